"""Small transformers of one's own, saved as compiled models: every part of them counts.

Two oracles know nothing of the loader: TransformerLens' native models, whose state dicts are saved,
and `CompiledOracle`, which is written from the definition and reads the files itself.
"""

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import ModelError, TaskError
from circuitfind.granularity import heads_and_mlps
from circuitfind.methods.acdc import Acdc, AcdcOptions
from circuitfind.methods.search import search
from circuitfind.metrics import find_metric
from circuitfind.models.compiled_files import save_compiled
from circuitfind.models.loading import load_model
from circuitfind.models.self_check import component_logits
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from tests.oracles.compiled import CompiledOracle
from tests.oracles.search import acdc

ACTIVATIONS = ("gelu", "relu", "gelu_new", "silu", "solu")
NORMS = (None, "LN", "RMS", "LNPre", "RMSPre")
SETTINGS = [
    {"normalization": norm, "attention": attention, "activation": activation}
    for (norm, attention), activation in zip(
        itertools.product(NORMS, ("causal", "bidirectional")),
        itertools.cycle(ACTIVATIONS),
        strict=False,
    )
]
SETTINGS[3] |= {"eps": 0.5}
SETTINGS[4] |= {"gated_mlp": True, "eps": 0.1}
SETTINGS[5] |= {"attention_scale": 1.0}
SETTINGS[6] |= {"n_mlp": 0}
SETTINGS[7] |= {"bare": True}
CASES = pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda each: "-".join(map(str, each.values()))
)


@CASES
def test_a_transformer_with_norms_and_biases_is_computed_as_it_is_defined(settings, tmp_path):
    file = written(tmp_path, **settings)
    model = load_model(file)
    tokens = torch.randint(7, (5, 6), generator=torch.Generator().manual_seed(1))
    graph = heads_and_mlps(model.shape)
    oracle = CompiledOracle(file, graph, tokens, tokens, "zero")
    expected = oracle.outputs(edge.name for edge in graph.edges())
    assert expected.shape == (5, 6, 4)
    for found in (model.own_logits(tokens), component_logits(model, tokens)):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@CASES
def test_a_search_on_it_equals_the_naive_one(settings, tmp_path):
    file = written(tmp_path, **settings)
    model = load_model(file)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(7, (8, 5), generator=generator).tolist()
    pairs = [
        Pair(a, b, [[row % 4]], steps=[0])
        for row, (a, b) in enumerate(zip(tokens[:4], tokens[4:], strict=True))
    ]
    prompts = collate(pairs)
    problem = assemble(model, prompts, find_metric("loss"))
    found = search(IncrementalEngine(problem), Acdc(), AcdcOptions(threshold=0.02))
    graph = problem.graph
    oracle = CompiledOracle(file, graph, prompts.clean, prompts.corrupted, "resample")

    def logits_of(kept):
        return oracle.outputs(edge.name for edge in graph.edges(kept))

    def loss(logits):
        rows = torch.arange(4)
        return -float(logits[rows, 0].log_softmax(-1)[rows, rows].mean())

    naive = acdc(logits_of, graph, loss, 0.02)
    assert [(d.edge, d.kept) for d in found.decisions] == [
        (d.edge, d.kept) for d in naive.decisions
    ]
    effects = [(a.effect, b.effect) for a, b in zip(found.decisions, naive.decisions, strict=True)]
    assert all((a is None) == (b is None) for a, b in effects)
    assert max(abs(a - b) for a, b in effects if b is not None) < 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_a_native_bridge_saved_as_files_gives_the_logits_of_the_bridge(seed, tmp_path):
    from transformer_lens import TransformerBridge, TransformerBridgeConfig

    norm, direction = NORMS[seed % 5], ("causal", "bidirectional")[seed % 2]
    config = TransformerBridgeConfig(
        n_layers=2, n_heads=3, d_model=12, d_head=4, d_mlp=20, n_ctx=8, d_vocab=9,
        d_vocab_out=(-1, 4)[seed % 2], act_fn=ACTIVATIONS[seed % 5],
        normalization_type=norm, attention_dir=direction, attn_only=seed % 4 == 3,
        gated_mlp=seed % 3 == 0, attn_scale=(-1, 2.5)[seed % 2], seed=seed,
    )  # fmt: skip
    bridge = TransformerBridge.boot_native(config, dtype=torch.float64).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in bridge.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) / 2)
    file = save_compiled(tmp_path / "mine.json", bridge.state_dict(), **vars(bridge.cfg))
    tokens = torch.randint(9, (4, 8), generator=generator)
    with torch.no_grad():
        expected = bridge(tokens)
    model = load_model(file)
    # The bridge takes root mean squares in float32.
    torch.testing.assert_close(model.own_logits(tokens), expected, rtol=1e-5, atol=1e-5)


def test_biases_that_are_left_out_are_zero(tmp_path):
    with_zeros, without = (written(tmp_path / name, normalization="LN") for name in "ab")
    weights = load_file(with_zeros.with_suffix(".safetensors"))
    zero = {name for name in weights if ".b" in name.replace("blocks", "")}
    assert len(zero) == 2 * 8 + 2
    shown = {name: w * 0 if name in zero else w for name, w in weights.items()}
    save_file(shown, with_zeros.with_suffix(".safetensors"))
    save_file(
        {name: w for name, w in weights.items() if name not in zero},
        without.with_suffix(".safetensors"),
    )
    tokens = torch.tensor([[0, 3, 1]])
    first, second = (load_model(file).own_logits(tokens) for file in (with_zeros, without))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "blocks.1.ln1.w",
            {"normalization": None},
            r"tensors blocks\.0\.ln1\.b, .*and 7 more.*normalization is null",
        ),
        ("ln_final.b", {"normalization": "RMS"}, r"ln1\.b, .*normalization is RMS"),
        ("blocks.0.mlp.b_in", {"d_mlp": 0, "normalization": None}, None),
        ("blocks.1.attn.W_Q", {"n_layers": 1}, r"blocks\.1\..* its n_layers is 1"),
    ],
)
def test_tensors_that_the_sizes_have_no_use_for_are_refused_by_name(name, change, said, tmp_path):
    file = written(tmp_path, normalization="LN")
    assert name in load_file(file.with_suffix(".safetensors"))
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelError, match=said or "is not a compiled model: it holds tensors"):
        load_model(file)


@pytest.mark.parametrize(
    "extra",
    ["unembed.b_U2", "blocks.0.attn.W_pos", "blocks.0.mlp.W_gate", "rotary", "blocks.0.ln3.w"],
)
def test_an_unknown_tensor_is_refused_by_name(extra, tmp_path):
    file = written(tmp_path)
    weights = load_file(file.with_suffix(".safetensors"))
    save_file(weights | {extra: torch.zeros(3)}, file.with_suffix(".safetensors"))
    with pytest.raises(ModelError, match=f"holds the tensor {extra}, which a model of its JSON"):
        load_model(file)


@pytest.mark.parametrize(
    "setting",
    [
        {"positional_embedding_type": "rotary"},
        {"parallel_attn_mlp": True},
        {"output_logits_soft_cap": 30.0},
        {"attn_scores_soft_cap": 50.0},
        {"n_key_value_heads": 1},
        {"final_rms": True},
        {"window_size": 4},
    ],
    ids=str,
)
def test_a_setting_that_compiled_models_lack_is_refused_rather_than_ignored(setting, tmp_path):
    file = written(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), **setting}))
    with pytest.raises(ModelError, match=f"{next(iter(setting))} is .*no such part"):
        load_model(file)


def test_the_names_of_an_old_state_dict_are_taken_with_its_mask(tmp_path):
    file = written(tmp_path, attention="causal")
    weights = load_file(file.with_suffix(".safetensors"))
    mask = torch.ones(6, 6).tril().bool()
    buffers = {"blocks.0.attn.mask": mask, "blocks.0.attn.IGNORE": torch.tensor(-torch.inf)}
    save_file(weights | buffers, file.with_suffix(".safetensors"))
    load_model(file)
    buffers["blocks.0.attn.mask"] = mask & ~torch.ones(6, 6).tril(-3).bool()
    save_file(weights | buffers, file.with_suffix(".safetensors"))
    with pytest.raises(ModelError, match=r"blocks\.0\.attn\.mask is not the mask of causal"):
        load_model(file)


def test_half_precision_weights_are_computed_with_in_float32(tmp_path):
    file = written(tmp_path)
    weights = load_file(file.with_suffix(".safetensors"))
    half = {name: weight.bfloat16() for name, weight in weights.items()}
    save_file(half, file.with_suffix(".safetensors"))
    model = load_model(file)
    assert model.dtype == torch.float32
    save_file({n: w.float() for n, w in half.items()}, file.with_suffix(".safetensors"))
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(load_model(file).own_logits(tokens), model.own_logits(tokens))


def test_sizes_that_follow_from_the_weights_need_not_be_given(tmp_path):
    weights = load_file(written(tmp_path).with_suffix(".safetensors"))
    file = save_compiled(tmp_path / "b.json", weights, activation="relu", attention="causal")
    content = json.loads(file.read_text())
    assert content["attention_scale"] == 2
    assert [content[name] for name in ("n_layers", "n_heads", "d_head", "d_mlp")] == [2, 2, 4, 10]
    assert [content[name] for name in ("d_vocab", "d_vocab_out", "n_ctx")] == [7, 4, 6]


def test_what_is_not_such_a_model_is_not_saved(tmp_path):
    weights = load_file(written(tmp_path / "a").with_suffix(".safetensors"))
    file = tmp_path / "b.json"
    wrapped = {f"_orig_mod.{name}": weight for name, weight in weights.items()}
    with pytest.raises(ModelError, match="lacks d_vocab, which must be"):
        save_compiled(file, wrapped, activation="relu", attention="causal")
    with pytest.raises(ModelError, match="activation must be one of"):
        save_compiled(file, weights, attention="causal")
    with pytest.raises(ModelError, match=r"saved as NAME\.json, not as 'b\.pt'"):
        save_compiled(tmp_path / "b.pt", weights)
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_prefix_of_all_names_is_named(tmp_path):
    file = written(tmp_path)
    weights = load_file(file.with_suffix(".safetensors"))
    wrapped = {f"_orig_mod.{name}": weight for name, weight in weights.items()}
    save_file(wrapped, file.with_suffix(".safetensors"))
    with pytest.raises(ModelError, match=r"lacks .*; take the prefix '_orig_mod' off its names"):
        load_model(file)


def test_answers_are_outputs_and_not_inputs(tmp_path):
    """Class labels are no input symbols: the answer `b` of a model with inputs a, b, c."""
    tokens = {"BOS": 0, "a": 1, "b": 2, "c": 3}
    labelled = load_model(written(tmp_path / "x", tokens=tokens, output_labels=[*"bxya"]))
    assert labelled.vocabulary.answer("b") == 0
    assert labelled.vocabulary.answer_text(3) == "a"
    numbered = load_model(written(tmp_path / "y", tokens=tokens))
    assert numbered.vocabulary.answer("3") == 3
    with pytest.raises(
        TaskError, match="'b' is not a single token: the model's outputs are 0, 1, 2, 3"
    ):
        numbered.vocabulary.answer("b")


def test_symbols_are_numbers_where_the_file_names_none(tmp_path):
    vocabulary = load_model(written(tmp_path)).vocabulary
    assert vocabulary.encode("6 0 3") == [6, 0, 3]
    assert vocabulary.decode([6, 0, 3]) == "6 0 3"


def written(folder, *, n_mlp=10, bare=False, **settings):
    """Write a transformer of random float64 weights and return its JSON file."""
    sizes = {
        "n_layers": 2, "n_heads": 2, "d_model": 8, "d_head": 4, "d_mlp": n_mlp, "n_ctx": 6,
        "d_vocab": 7, "d_vocab_out": 4, "activation": "gelu", "attention": "causal",
        "attention_scale": 2.0, **settings,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(len(str(settings)))
    weights = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) / 2
        for name, shape in shapes(sizes).items()
        if not (bare and ".b" in name.replace("blocks", ""))
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "mine.json"
    file.write_text(json.dumps(sizes))
    save_file(weights, file.with_suffix(".safetensors"))
    return file


def shapes(sizes):
    heads, d_model, d_head, d_mlp = (sizes[n] for n in ("n_heads", "d_model", "d_head", "d_mlp"))
    normed = sizes.get("normalization") in ("LN", "RMS")
    block = {f"attn.W_{port}": (heads, d_model, d_head) for port in "QKV"}
    block |= {f"attn.b_{port}": (heads, d_head) for port in "QKV"}
    block |= {"attn.W_O": (heads, d_head, d_model), "attn.b_O": (d_model,)}
    if d_mlp:
        block |= {
            "mlp.W_in": (d_model, d_mlp),
            "mlp.W_out": (d_mlp, d_model),
            "mlp.b_out": (d_model,),
        }
        gated = sizes.get("gated_mlp")
        block |= {"mlp.W_gate": (d_model, d_mlp)} if gated else {"mlp.b_in": (d_mlp,)}
    norms = [f"ln{n}" for n in (1, 2) if n == 1 or d_mlp] if normed else []
    parts = "wb" if sizes.get("normalization") == "LN" else "w"
    block |= {f"{norm}.{part}": (d_model,) for norm in norms for part in parts}
    whole = {"embed.W_E": (sizes["d_vocab"], d_model), "pos_embed.W_pos": (sizes["n_ctx"], d_model)}
    whole |= {
        "unembed.W_U": (d_model, sizes["d_vocab_out"]),
        "unembed.b_U": (sizes["d_vocab_out"],),
    }
    whole |= {f"ln_final.{part}": (d_model,) for part in parts} if normed else {}
    layers = range(sizes["n_layers"])
    return whole | {f"blocks.{i}.{name}": shape for i in layers for name, shape in block.items()}
