"""The oracle of MLPs taken apart, held to the models' own forward passes, changed by hooks.

What hooks see and change is the input of the down projection, and the MLP's input and output.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph, Units
from tests.oracles.brute_force import BruteForce
from tests.oracles.checkpoints import FAMILIES, build, float64_throughout, random_pairs
from tests.oracles.dictionaries import N_LATENTS, random_dictionary
from tests.oracles.layouts import LAYOUTS, blocks_of
from tests.oracles.units import inputs_of, latents_of, output_of

CLOSE = {"rtol": 0, "atol": 1e-9}
CLEAN, CORRUPTED = random_pairs(seed=0, n_prompts=2, n_tokens=6)
WITH_NEURONS = [name for name in FAMILIES if LAYOUTS[name].down and FAMILIES[name].has_mlp]
UNSCALED = [name for name in WITH_NEURONS if LAYOUTS[name].post_mlp_norm is None]
WITH_MLPS = [name for name, family in FAMILIES.items() if family.has_mlp]
NEURONS = (0, 5, 17)

LISTED = (1, 4, 7, 10)

MADE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "transcoder": ({}, {"apart": True, "error": "fixed"}),
    "jumprelu": ({"activation": "jumprelu"}, {"apart": True, "error": "fixed"}),
    "skip": ({"skip": True}, {"apart": True, "skip": True, "error": "fixed"}),
    "normalized": ({"reads": "ln2.hook_normalized"}, {"apart": True, "error": "fixed"}),
    "together": ({"skip": True}, {"skip": True, "error": "fixed"}),
    "topk": ({"activation": "topk", "skip": True}, {"skip": True, "error": "fixed"}),
    "sae": ({"reads": "hook_mlp_out"}, {"error": "live"}),
}
"""How the dictionary of each kind is made, and its units."""


@pytest.fixture(autouse=True)
def exact_arithmetic():
    with torch.no_grad(), float64_throughout():
        yield


@pytest.mark.parametrize("family", WITH_NEURONS)
def test_with_neurons_as_writers_the_limits_are_the_two_runs(family):
    assert_limits(oracle_of(family, "neurons"), family)


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("family", WITH_MLPS)
def test_with_latents_as_writers_the_limits_are_the_two_runs(family, kind):
    assert_limits(oracle_of(family, kind), family)


@pytest.mark.parametrize("family", WITH_NEURONS)
@pytest.mark.parametrize("ablation", ["resample", "zero", "mean"])
def test_an_mlp_of_which_no_neuron_is_listed_is_the_mlp(family, ablation):
    whole = BruteForce(model_of(family), family, CLEAN, CORRUPTED, plain_graph(family), ablation)
    none = oracle_of(family, "none", ablation)
    for seed in range(3):
        mask = random_mask(none.graph, seed)
        torch.testing.assert_close(none.logits(mask), whole.logits(mask), **CLOSE)


@pytest.mark.parametrize("kind", ["neurons", *MADE])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-j", "gemma2", "bidirectional"])
def test_all_parts_of_an_mlp_add_up_to_it(family, kind):
    """Cut into one reader together, whatever else is cut, they are the MLP cut into it."""
    whole = BruteForce(model_of(family), family, CLEAN, CORRUPTED, plain_graph(family))
    apart = oracle_of(family, kind)
    for reader in ("logits", "a2.h1.q", "m2"):
        mask = plain_graph(family).edge_mask & ~plain_graph(family).mask_of([f"m1->{reader}"])
        got = apart.logits(without(apart.graph, [f"{w}->{reader}" for w in of_mlp(apart.graph)]))
        torch.testing.assert_close(got, whole.logits(mask), **CLOSE)


@pytest.mark.parametrize("family", UNSCALED)
def test_a_neuron_cut_everywhere_is_its_activation_replaced(family):
    oracle, down = oracle_of(family, "neurons"), down_of(family)
    corrupted = inputs_of(down, lambda: plain(family, CORRUPTED))

    def replace(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        changed = args[0].clone()
        changed[..., 5] = corrupted[..., 5]
        return (changed, *args[1:])

    with down.register_forward_pre_hook(replace):
        expected = plain(family, CLEAN)
    assert_cut(oracle, "m1.n5", expected)


@pytest.mark.parametrize("family", UNSCALED)
def test_what_a_neuron_writes_is_its_activation_times_its_row(family):
    oracle, down = oracle_of(family, "neurons"), down_of(family)
    active = inputs_of(down, lambda: plain(family, CLEAN)).reshape(2, 6, -1)
    rows = down.weight if family == "gpt2" else down.weight.T
    written = oracle.outputs(oracle.graph.edge_mask)
    for number in NEURONS:
        expected = active[..., number, None] * rows[number]
        torch.testing.assert_close(written[f"m1.n{number}"], expected, **CLOSE)


def test_with_a_norm_after_the_mlp_all_is_scaled_alike():
    oracle, down = oracle_of("gemma2", "neurons"), down_of("gemma2")
    norm = blocks_of(model_of("gemma2"), "gemma2")[1].post_feedforward_layernorm
    active = inputs_of(down, lambda: plain("gemma2", CLEAN))
    summed = inputs_of(norm, lambda: plain("gemma2", CLEAN))
    scale = 1 / (summed.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    expected = active[..., 17, None] * down.weight[:, 17] * scale * (1 + norm.weight)
    written = oracle.outputs(oracle.graph.edge_mask)
    torch.testing.assert_close(written["m1.n17"], expected, **CLOSE)


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-j", "gemma2", "bidirectional"])
def test_a_part_of_a_dictionary_cut_everywhere_changes_what_the_mlp_adds_by_its_own(family, kind):
    oracle, dictionary = oracle_of(family, kind), dictionary_of(kind)
    changes = {}
    for tokens, sign in ((CLEAN, -1), (CORRUPTED, 1)):
        read, out = seen_by(family, kind, tokens)
        for name, part in parts(dictionary, read, out).items():
            changes[name] = changes.get(name, 0) + sign * part
    names = [w.removeprefix("m1.") for w in of_mlp(oracle.graph)]
    assert {"rest", "error"} < set(names) and ("skip" in names) == (dictionary.skip is not None)
    for name in names:
        expected = added_to_mlp(family, lambda x, n=name: changes[n])
        # A latent may be active on neither prompt.
        assert_cut(oracle, f"m1.{name}", expected, changes=bool(changes[name].any()))
    assert sum(bool(changes[f"f{number}"].any()) for number in LISTED) >= 2


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-j", "gemma2", "bidirectional"])
def test_an_edge_into_a_latent_changes_what_it_alone_reads(family):
    oracle, dictionary = oracle_of(family, "skip"), dictionary_of("skip")
    norm = getattr(blocks_of(model_of(family), family)[1], LAYOUTS[family].mlp_norm)
    written = oracle.outputs(oracle.graph.edge_mask)
    shift = oracle.replacement["a0.h1"] - written["a0.h1"]
    stream = inputs_of(norm, lambda: plain(family, CLEAN))
    before, after = norm(stream), norm(stream + shift)
    out = torch.zeros_like(before)
    for name in ("f4", "rest", "skip"):
        expected = added_to_mlp(
            family,
            lambda x, n=name: parts(dictionary, after, out)[n] - parts(dictionary, before, out)[n],
        )
        got = oracle.logits(without(oracle.graph, [f"a0.h1->m1.{name}"]))
        torch.testing.assert_close(got, expected, **CLOSE)
        assert (got - plain(family, CLEAN)).abs().max() > 1e-6


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_error_of_a_transcoder_does_not_follow_what_is_cut_before_it(family):
    oracle = oracle_of(family, "transcoder")
    mask = random_mask(oracle.graph, seed=0)
    read, out = seen_by(family, "transcoder", CLEAN)
    expected = out - output_of(dictionary_of("transcoder"), read)
    torch.testing.assert_close(oracle.outputs(mask)["m1.error"], expected, **CLOSE)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_that_of_an_sae_does(family):
    oracle = oracle_of(family, "sae")
    whole, error = (oracle.outputs(m) for m in (oracle.graph.edge_mask, random_mask(oracle.graph)))
    assert (whole["m1.error"] - error["m1.error"]).abs().max() > 1e-3


def test_a_random_dictionary_has_active_and_idle_latents():
    for kind, (_, units) in MADE.items():
        active = latents_of(dictionary_of(kind), seen_by("gpt2", kind, CLEAN)[0]) != 0
        assert 0.1 < float(active.double().mean()) < 0.8, kind
        assert active[..., list(LISTED)].any() and units


# ------------------------------------------------------------------------------- helpers


@cache
def model_of(family: str) -> Any:
    return build(family)


@cache
def plain_graph(family: str) -> Graph:
    return heads_and_mlps(FAMILIES[family].shape())


def dictionary_of(kind: str) -> Any:
    return random_dictionary(1, **MADE[kind][0])


@cache
def oracle_of(family: str, kind: str, ablation: Any = "resample") -> BruteForce:
    """Return the oracle of a model of which the MLP of layer 1 is taken apart."""
    dictionaries = {}
    if kind in MADE:
        units = Units(1, "latent", LISTED, **MADE[kind][1])
        dictionaries = {"m1": dictionary_of(kind)}
    else:
        units = Units(1, "neuron", {"neurons": NEURONS, "none": ()}[kind])
    graph = heads_and_mlps(FAMILIES[family].shape(), units=(units,))
    return BruteForce(
        model_of(family), family, CLEAN, CORRUPTED, graph, ablation, dictionaries=dictionaries
    )


def plain(family: str, tokens: Tensor) -> Tensor:
    output = model_of(family)(tokens)
    return getattr(output, "logits", output)


def down_of(family: str) -> Any:
    found = blocks_of(model_of(family), family)[1]
    for name in LAYOUTS[family].down.split("."):
        found = getattr(found, name)
    return found


def adder_of(family: str) -> Any:
    """The module that returns what the MLP of layer 1 adds to the stream."""
    return getattr(blocks_of(model_of(family), family)[1], LAYOUTS[family].post_mlp_norm or "mlp")


def seen_by(family: str, kind: str, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the dictionary reads, and what the MLP adds to the stream, in a plain run."""
    layout, block = LAYOUTS[family], blocks_of(model_of(family), family)[1]
    outputs: list[Tensor] = []
    with adder_of(family).register_forward_hook(lambda m, args, out: outputs.append(out)):
        stream = inputs_of(getattr(block, layout.mlp_norm), lambda: plain(family, tokens))
    (out,) = outputs
    hook = dictionary_of(kind).site.reads
    if hook == "hook_mlp_out":
        return out, out
    norm = getattr(block, layout.mlp_norm)
    if hook == "ln2.hook_normalized" and not isinstance(norm, torch.nn.LayerNorm):
        if hasattr(norm, "original_component"):  # the native bridge's layer norm
            return norm(stream), out
        eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
        return stream / (stream.square().mean(-1, keepdim=True) + eps).sqrt(), out
    return norm(stream), out


def parts(dictionary: Any, read: Tensor, out: Tensor) -> dict[str, Tensor]:
    """Return what each part of a dictionary writes."""
    active = latents_of(dictionary, read)
    written = {f"f{i}": active[..., i, None] * dictionary.decoder[i] for i in range(N_LATENTS)}
    others = [written[f"f{i}"] for i in range(N_LATENTS) if i not in LISTED]
    written["rest"] = sum(others) + dictionary.decoder_bias
    if dictionary.skip is not None:
        written["skip"] = torch.einsum("oi,bpi->bpo", dictionary.skip, read)
    written["error"] = out - sum(written[f"f{i}"] for i in LISTED) - written["rest"]
    if dictionary.skip is not None:
        written["error"] = written["error"] - written["skip"]
    return written


def added_to_mlp(family: str, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the logits of a plain run in which something is added to what the MLP adds."""
    adder = adder_of(family)
    with adder.register_forward_hook(lambda m, args, out: out + change(out)):
        return plain(family, CLEAN)


def of_mlp(graph: Graph) -> list[str]:
    return [writer.name for writer in graph.writers if writer.name.startswith("m1.")]


def without(graph: Graph, edges: list[str]) -> Tensor:
    return graph.edge_mask & ~graph.mask_of(edges)


def random_mask(graph: Graph, seed: int = 0) -> Tensor:
    drawn = torch.rand(graph.edge_mask.shape, generator=torch.Generator().manual_seed(seed))
    return graph.edge_mask & (drawn < 0.5)


def assert_limits(oracle: BruteForce, family: str) -> None:
    everything = oracle.graph.edge_mask
    torch.testing.assert_close(oracle.logits(everything), plain(family, CLEAN), **CLOSE)
    nothing = oracle.logits(torch.zeros_like(everything))
    torch.testing.assert_close(nothing, plain(family, CORRUPTED), **CLOSE)


def assert_cut(oracle: BruteForce, writer: str, expected: Tensor, *, changes: bool = True) -> None:
    """The oracle agrees on cutting all edges of a writer, and that is not a trivial cut."""
    mask = oracle.graph.edge_mask.clone()
    mask[oracle.graph.writer_index[writer]] = False
    got = oracle.logits(mask)
    torch.testing.assert_close(got, expected, **CLOSE)
    changed = (got - oracle.logits(oracle.graph.edge_mask)).abs().max() > 1e-6
    assert bool(changed) == changes
