"""The oracle itself, held to the models' own forward passes, changed from outside by hooks.

Three kinds of single edges are cut in ways that share nothing with the oracle: at the input of a
norm inside the model's own forward pass (edges into the MLP, or into a whole block, and into the
logits), at TransformerLens' q, k and v hooks with its weights (edges into one head's port), and for
whole random circuits by TransformerLens' per-head inputs.
"""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph
from circuitfind.shape import ModelShape
from tests.oracles.brute_force import BruteForce, logits_of, writer_outputs
from tests.oracles.checkpoints import FAMILIES, build, float64_throughout, random_pairs
from tests.oracles.layouts import LAYOUTS, blocks_of, submodule
from tests.oracles.search import acdc, is_dead, leave_one_out, readers_in_order, writers_in_order

CLOSE = {"rtol": 0, "atol": 1e-9}
CLEAN, CORRUPTED = random_pairs(seed=0, n_prompts=2, n_tokens=6)
every_family = pytest.mark.parametrize("family", FAMILIES)
own_mlp_norm = [
    name
    for name, family in FAMILIES.items()
    if family.has_mlp and LAYOUTS[name].mlp_norm != LAYOUTS[name].attention_norm
]
bridged = [name for name, family in FAMILIES.items() if family.bridge_is_right]
fused = [name for name, layout in LAYOUTS.items() if layout.attention == "self_attention"]


@pytest.fixture(autouse=True)
def exact_arithmetic():
    with torch.no_grad(), float64_throughout():
        yield


@every_family
def test_the_full_mask_is_the_model(family):
    oracle, graph = oracle_of(family)
    torch.testing.assert_close(oracle.logits(graph.edge_mask), plain(family, CLEAN), **CLOSE)


@every_family
def test_the_empty_mask_is_the_model_on_the_corrupted_prompts(family):
    oracle, graph = oracle_of(family)
    nothing = torch.zeros_like(graph.edge_mask)
    torch.testing.assert_close(oracle.logits(nothing), plain(family, CORRUPTED), **CLOSE)


@every_family
def test_a_cut_edge_into_the_logits_shifts_the_input_of_the_final_norm(family):
    oracle, graph = oracle_of(family)
    norm = submodule(model_of(family), family, LAYOUTS[family].final_norm)
    for writer in ("embed", "a1.h2", graph.writers[-1].name):
        expected = shifted_forward(family, norm, change(family, writer))
        assert_cut(oracle, [f"{writer}->logits"], expected)


@pytest.mark.parametrize("family", own_mlp_norm)
def test_a_cut_edge_into_an_mlp_shifts_the_input_of_its_norm(family):
    layout = LAYOUTS[family]
    oracle, _ = oracle_of(family)
    norm = getattr(blocks_of(model_of(family), family)[1], layout.mlp_norm)
    writers = ["embed", "a0.h3"] + ([] if FAMILIES[family].parallel_mlp else ["a1.h1"])
    for writer in writers:
        expected = shifted_forward(family, norm, change(family, writer))
        assert_cut(oracle, [f"{writer}->m1"], expected)


@every_family
def test_cut_edges_into_a_whole_block_shift_the_input_of_its_first_norm(family):
    layout = LAYOUTS[family]
    oracle, graph = oracle_of(family)
    norm = getattr(blocks_of(model_of(family), family)[1], layout.attention_norm)
    shared = layout.mlp_norm == layout.attention_norm
    readers = [r.name for r in graph.readers if r.layer == 1 and (r.port or shared)]
    expected = shifted_forward(family, norm, change(family, "a0.h1"))
    assert_cut(oracle, [f"a0.h1->{reader}" for reader in readers], expected)


@pytest.mark.parametrize("family", bridged)
@pytest.mark.parametrize("port", ["q", "k", "v"])
def test_a_cut_edge_into_a_port_changes_the_query_key_or_value_of_one_head(family, port):
    oracle, graph = oracle_of(family)
    bridge = bridge_of(family)
    for reader in graph.readers:
        if (reader.layer, reader.port) == (1, port):
            shift = change(family, "a0.h1")
            expected = bridge_with_changed_port(bridge, port, reader.index, shift)
            assert_cut(oracle, [f"a0.h1->{reader.name}"], expected)


@pytest.mark.parametrize("family", fused)
def test_columns_of_fused_projections_are_where_the_model_splits_them(family):
    """Falcon and Bloom split in a method that can be asked, also where the bridge is wrong."""
    attention, shape = blocks_of(model_of(family), family)[0].self_attention, shape_of(family)
    split = getattr(attention, "_split_heads", None) or attention._reshape
    everything = torch.arange(attention.query_key_value.weight.shape[0])[None, None]
    for port, columns in zip("qkv", split(everything), strict=True):
        columns = columns.reshape(-1, shape.d_head)
        # Falcon repeats each key and value for the query heads that share it.
        repeats = len(columns) // (shape.n_heads if port == "q" else shape.n_kv_heads)
        for row, expected in enumerate(columns.tolist()):
            place = LAYOUTS[family].columns(port, row // repeats, shape)
            assert list(range(place.start, place.stop)) == expected


def test_the_bridge_is_wrong_about_grouped_falcon():
    """If this fails TransformerLens has been mended, and `bridge_is_right` can go."""
    got = bridge_of("falcon-grouped")(CLEAN)
    assert (got - plain("falcon-grouped", CLEAN)).abs().max() > 0.1


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox-sequential", "qwen3", "mixtral"])
@pytest.mark.parametrize("seed", range(3))
def test_random_circuits_agree_with_the_inputs_that_transformer_lens_splits(family, seed):
    oracle, graph = oracle_of(family)
    keep = torch.rand(graph.edge_mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    kept = keep & graph.edge_mask
    expected = bridge_circuit(family, graph, kept)
    torch.testing.assert_close(oracle.logits(kept), expected, **CLOSE)


@every_family
def test_what_the_writers_write_and_the_constant_biases_add_up_to_the_stream(family):
    model, (_, graph) = model_of(family), oracle_of(family)
    seen: list[Tensor] = []
    norm = submodule(model, family, LAYOUTS[family].final_norm)
    with norm.register_forward_pre_hook(lambda module, args: seen.append(args[0])):
        plain(family, CLEAN)
    total = sum(writer_outputs(model, family, CLEAN, graph).values())
    for block in blocks_of(model, family):
        out = getattr(getattr(block, LAYOUTS[family].attention), LAYOUTS[family].output)
        total = total + (0 if getattr(out, "bias", None) is None else out.bias)
    torch.testing.assert_close(total, seen[0], **CLOSE)


@pytest.mark.parametrize("family", ["gpt2", "opt", "bidirectional"])
def test_cutting_both_embeddings_is_cutting_the_joint_one(family):
    split = heads_and_mlps(shape_of(family), split_embedding=True)
    for reader in ("logits", "m1", "a1.h0.k"):
        apart = mask_without(split, [f"embed->{reader}", f"pos_embed->{reader}"])
        got = logits_of(model_of(family), family, CLEAN, CORRUPTED, split, apart, "zero")
        joint, graph = oracle_of(family, "zero")
        expected = joint.logits(mask_without(graph, [f"embed->{reader}"]))
        torch.testing.assert_close(got, expected, **CLOSE)


def test_cutting_a_merged_port_is_cutting_all_three():
    merged = heads_and_mlps(shape_of("gpt2"), merge_qkv=True)
    kept = mask_without(merged, ["m0->a1.h2.qkv"])
    got = logits_of(model_of("gpt2"), "gpt2", CLEAN, CORRUPTED, merged, kept)
    assert_cut(oracle_of("gpt2")[0], [f"m0->a1.h2.{port}" for port in "qkv"], got)


@pytest.mark.parametrize("ablation", ["zero", "mean", "mean-over-positions"])
def test_a_replacement_is_what_its_name_says(ablation):
    oracle, graph = oracle_of("gpt2", ablation)
    corrupted = writer_outputs(model_of("gpt2"), "gpt2", CORRUPTED, graph)["m1"]
    replacement = oracle.replacement["m1"]
    for row in range(2):
        for position in range(6):
            if ablation == "zero":
                expected = torch.zeros(32, dtype=torch.float64)
            elif ablation == "mean":
                expected = (corrupted[0, position] + corrupted[1, position]) / 2
            else:
                expected = sum(corrupted[r, p] for r in range(2) for p in range(6)) / 12
            torch.testing.assert_close(replacement[row, position], expected, **CLOSE)


@pytest.mark.parametrize("family", ["llama", "bidirectional"])
@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_padding_changes_nothing_at_real_positions(family, ablation):
    real = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    oracle, graph = oracle_of(family)
    padded = BruteForce(model_of(family), family, CLEAN, CORRUPTED, graph, ablation, real)
    clean, corrupted = CLEAN[1:, :4], CORRUPTED[1:, :4]
    alone = BruteForce(model_of(family), family, clean, corrupted, graph, ablation)
    kept = mask_without(graph, ["a0.h1->logits", "m0->m1", "embed->a1.h0.q"])
    torch.testing.assert_close(padded.logits(kept)[1:, :4], alone.logits(kept), **CLOSE)


@every_family
def test_a_seed_gives_the_same_model_in_every_dtype(family):
    exact, other = build(family, seed=1), build(family, seed=2)
    single, half = (build(family, seed=1, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    weights = dict(exact.named_parameters())
    for name, weight in single.named_parameters():
        torch.testing.assert_close(weight.double(), weights[name], rtol=1e-6, atol=1e-7)
    assert any(not torch.equal(w, weights[name]) for name, w in other.named_parameters())
    for model, dtype in ((single, torch.float32), (half, torch.bfloat16)):
        logits = model(CLEAN)
        logits = getattr(logits, "logits", logits)
        assert logits.dtype == dtype and logits.isfinite().all()


@every_family
def test_the_edges_of_tiny_models_matter(family):
    oracle, graph = oracle_of(family)
    loss = kl_loss(family)
    sample = [edge.name for edge in graph.edges()[::12]]
    effects = [loss(oracle.logits(mask_without(graph, [name]))) for name in sample]
    assert torch.tensor(effects).median() > 1e-5


def test_leaving_one_out_scores_the_kept_edges_alone():
    oracle, graph = oracle_of("gpt2")
    loss, kept = kl_loss("gpt2"), graph.mask_of(["embed->m0", "m0->logits"])
    effects = leave_one_out(oracle.logits, graph, loss, kept)
    assert torch.equal(effects.isfinite(), kept)
    only = oracle.logits(graph.mask_of(["m0->logits"]))
    index = graph.writer_index["embed"], graph.reader_index["m0"]
    assert effects[index] == loss(only) - loss(oracle.logits(kept))


def test_a_lower_threshold_than_every_effect_keeps_all_edges_and_a_higher_one_none():
    oracle, graph = oracle_of("llama", n_layers=2)
    loss = kl_loss("llama", n_layers=2)
    all_kept = acdc(oracle.logits, graph, loss, -100.0)
    assert torch.equal(all_kept.kept, graph.edge_mask)
    none_kept = acdc(oracle.logits, graph, loss, 100.0)
    assert not none_kept.kept.any()
    tested = [decision.edge for decision in none_kept.decisions if decision.tested]
    assert tested == [f"{w}->logits" for w in backwards("logits", graph)]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("options", [{}, {"absolute": True}, {"group_qkv": True}])
def test_acdc_tells_a_consistent_story(family, options):
    oracle, graph = oracle_of(family, n_layers=2)
    loss, threshold = kl_loss(family, n_layers=2), 0.01
    found = acdc(oracle.logits, graph, loss, threshold, **options)
    singles = [decision for decision in found.decisions if not decision.edge.startswith("*")]
    assert sorted(d.edge for d in singles) == sorted(edge.name for edge in graph.edges())
    assert {d.edge for d in singles if d.kept} == {e.name for e in graph.edges(found.kept)}
    for decision in found.decisions:
        if decision.tested:
            effect = abs(decision.effect) if options.get("absolute") else decision.effect
            assert decision.kept == (effect >= threshold)
    assert found.loss == loss(oracle.logits(found.kept))
    assert 0 < found.kept.sum() < graph.n_edges
    assert not any(is_dead(graph, edge.reader, found.kept) for edge in graph.edges(found.kept))


def test_the_default_order_is_the_documented_one():
    graph = heads_and_mlps(shape_of("llama", n_layers=1))
    assert list(readers_in_order(graph, "default")) == [
        "logits", "m0", "a0.kv1.v", "a0.kv0.v", "a0.kv1.k", "a0.kv0.k",
        "a0.h3.q", "a0.h2.q", "a0.h1.q", "a0.h0.q",
    ]  # fmt: skip
    assert backwards("logits", graph) == ["m0", "a0.h3", "a0.h2", "a0.h1", "a0.h0", "embed"]
    logits = graph.readers[-1]
    assert list(writers_in_order(graph, logits, "forward-index"))[1:3] == ["a0.h0", "a0.h1"]


def test_a_shared_key_reader_dies_with_the_last_head_it_feeds():
    graph = heads_and_mlps(shape_of("llama", n_layers=1))
    reader = graph.readers[graph.reader_index["a0.kv1.k"]]
    assert not is_dead(graph, reader, graph.mask_of(["a0.h2->logits"]))
    assert not is_dead(graph, reader, graph.mask_of(["a0.h3->m0"]))
    assert is_dead(graph, reader, graph.mask_of(["a0.h1->logits", "m0->logits"]))


def test_a_head_lives_as_long_as_another_head_under_the_same_norm_does():
    graph = heads_and_mlps(shape_of("gemma2", n_layers=1))
    for name in ("a0.kv1.k", "a0.h3.q"):
        reader = graph.readers[graph.reader_index[name]]
        assert not is_dead(graph, reader, graph.mask_of(["a0.h0->logits"]))
        assert is_dead(graph, reader, graph.mask_of(["m0->logits"]))


# ------------------------------------------------------------------------------- helpers


def shape_of(family: str, n_layers: int = 3) -> ModelShape:
    return FAMILIES[family].shape(n_layers)


cached_build = cache(build)


def model_of(family: str, n_layers: int = 3) -> Any:
    """One and the same object for the same arguments, so that hooks put on it are met again."""
    return cached_build(family, n_layers=n_layers)


@cache
def bridge_of(family: str) -> Any:
    """A TransformerLens bridge around a model of the same weights, of its own."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    model = build(family)
    if FAMILIES[family].native:
        return model
    return build_bridge_from_module(
        model,
        architecture=type(model).__name__,
        hf_config=model.config,
        tokenizer=None,
        dtype=torch.float64,
        device="cpu",
    ).eval()


@cache
def oracle_of(
    family: str, ablation: str = "resample", n_layers: int = 3
) -> tuple[BruteForce, Graph]:
    graph = heads_and_mlps(shape_of(family, n_layers))
    model = model_of(family, n_layers)
    return BruteForce(model, family, CLEAN, CORRUPTED, graph, ablation), graph


def plain(family: str, tokens: Tensor, n_layers: int = 3) -> Tensor:
    output = model_of(family, n_layers)(tokens)
    return getattr(output, "logits", output)


def kl_loss(family: str, n_layers: int = 3) -> Any:
    full = plain(family, CLEAN, n_layers)[:, -1].log_softmax(-1)

    def loss(logits: Tensor) -> float:
        found = logits[:, -1].log_softmax(-1)
        return float((full.exp() * (full - found)).sum(-1).mean())

    return loss


@cache
def written(family: str, corrupted: bool) -> dict[str, Tensor]:  # noqa: FBT001
    tokens = CORRUPTED if corrupted else CLEAN
    return writer_outputs(model_of(family), family, tokens, oracle_of(family)[1])


def change(family: str, writer: str) -> Tensor:
    """What cutting an edge of this writer adds to a reader, if nothing else is cut."""
    return written(family, True)[writer] - written(family, False)[writer]  # noqa: FBT003


def shifted_forward(family: str, norm: Any, shift: Tensor) -> Tensor:
    """The model's own forward pass with something added to the input of one norm."""

    def add(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return ((args[0].reshape(shift.shape) + shift).reshape(args[0].shape), *args[1:])

    with norm.register_forward_pre_hook(add):
        return plain(family, CLEAN)


def bridge_with_changed_port(bridge: Any, port: str, head: int, shift: Tensor) -> Tensor:
    """TransformerLens' forward pass with one head's q, k or v of layer 1 made from a new stream."""
    block = bridge.blocks[1]
    seen: dict[str, Tensor] = {}
    weight = getattr(block.attn, f"W_{port.upper()}")[head]
    bias = getattr(block.attn, f"b_{port.upper()}", None)
    bias = 0 if bias is None else bias.reshape(-1, weight.shape[-1])[head]

    def note(stream: Tensor, hook: Any) -> None:
        seen["stream"] = stream

    def overwrite(vectors: Tensor, hook: Any) -> Tensor:
        changed = vectors.clone()
        normed = block.ln1.original_component(seen["stream"] + shift)
        if vectors.ndim == 3:
            vectors = vectors.unflatten(-1, (-1, weight.shape[-1]))
            changed = changed.unflatten(-1, (-1, weight.shape[-1]))
        changed[:, :, head] = normed @ weight + bias
        return changed

    hooks = [
        ("blocks.1.hook_resid_pre", note),
        (f"blocks.1.attn.hook_{port}", overwrite),
    ]
    with bridge.hooks(fwd_hooks=hooks):
        return bridge(CLEAN)


def bridge_circuit(family: str, graph: Graph, kept: Tensor) -> Tensor:
    """A circuit's logits by TransformerLens' split inputs, each shifted for its cut edges."""
    bridge = bridge_of(family)
    clean: list[Tensor] = []
    corrupted: list[Tensor] = []

    def shift(readers: list[str]) -> Any:
        def hook(stream: Tensor, hook: Any) -> Tensor:
            stream = stream.clone()
            for place, reader in enumerate(readers):
                target = stream[:, :, place] if stream.ndim == 4 else stream
                cut = (graph.edge_mask & ~kept)[:, graph.reader_index[reader]]
                for row in cut.nonzero()[:, 0].tolist():
                    target += corrupted[row] - clean[row]
            return stream

        return hook

    bridge.set_use_attn_result(True)  # noqa: FBT003
    bridge.set_use_split_qkv_input(True)  # noqa: FBT003
    bridge.set_use_hook_mlp_in(True)  # noqa: FBT003
    with bridge.hooks(fwd_hooks=noting_hooks(graph, corrupted)):
        bridge(CORRUPTED)
    shifts = [(name, shift(readers)) for name, readers in split_inputs(graph)]
    with bridge.hooks(fwd_hooks=[*noting_hooks(graph, clean), *shifts]):
        logits = bridge(CLEAN)
    bridge.set_use_attn_result(False)  # noqa: FBT003
    bridge.set_use_split_qkv_input(False)  # noqa: FBT003
    bridge.set_use_hook_mlp_in(False)  # noqa: FBT003
    return logits


def noting_hooks(graph: Graph, written: list[Tensor]) -> list[tuple[str, Any]]:
    """Hooks that list what each writer writes, in the order in which they run."""

    def whole(output: Tensor, hook: Any) -> None:
        written.append(output.clone())

    def heads(output: Tensor, hook: Any) -> None:
        written.extend(output.clone().unbind(2))

    layers = range(graph.shape.n_layers)
    return [
        ("blocks.0.hook_in", whole),
        *((f"blocks.{layer}.attn.hook_result", heads) for layer in layers),
        *((f"blocks.{layer}.hook_mlp_out", whole) for layer in layers),
    ]


def split_inputs(graph: Graph) -> list[tuple[str, list[str]]]:
    """TransformerLens' name of each place where streams are read, and its readers by head."""
    inputs = [("ln_final.hook_in", ["logits"])]
    for layer in range(graph.shape.n_layers):
        inputs.append((f"blocks.{layer}.hook_mlp_in", [f"m{layer}"]))
        for port in ("q", "k", "v"):
            names = [r.name for r in graph.readers if (r.layer, r.port) == (layer, port)]
            inputs.append((f"blocks.{layer}.attn.hook_{port}_input", names))
    return inputs


def mask_without(graph: Graph, edges: list[str]) -> Tensor:
    return graph.edge_mask & ~graph.mask_of(edges)


def assert_cut(oracle: BruteForce, edges: list[str], expected: Tensor) -> None:
    """The oracle agrees on cutting these edges, and the cut is not a trivial one."""
    got = oracle.logits(mask_without(oracle.graph, edges))
    torch.testing.assert_close(got, expected, **CLOSE)
    assert (got - oracle.logits(oracle.graph.edge_mask)).abs().max() > 1e-5


def backwards(reader: str, graph: Graph) -> list[str]:
    return list(writers_in_order(graph, graph.readers[graph.reader_index[reader]], "default"))
