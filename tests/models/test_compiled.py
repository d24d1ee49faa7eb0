"""Compiled programs: they compute what they say, and their circuits are found.

The threshold of the searches is 1e-3 of the squared distance: outputs are 0 or 1, or fractions no
closer than 1/20, so an edge that changes an answer anywhere costs more, and rounding costs 1e-9.
"""

import json
import random
import re
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuitfind.ablations import ABLATIONS
from circuitfind.api import discover
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import ModelError
from circuitfind.methods.acdc import Acdc, AcdcOptions
from circuitfind.methods.search import search
from circuitfind.metrics import find_metric
from circuitfind.models.loading import load_model
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from circuitfind.question import make_problem
from tests.oracles.compiled import CompiledOracle

PROGRAMS = {
    "hist": lambda symbols: [symbols.count(symbol) for symbol in symbols],
    "reverse": lambda symbols: [int(symbol) for symbol in reversed(symbols)],
    "xproportion": lambda symbols: [
        symbols[: end + 1].count("x") / (end + 1) for end in range(len(symbols))
    ],
}
"""What each program computes, written out."""

THRESHOLD = 1e-3
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
STATED = re.compile(r"Tracr compiler .* at every threshold from (\S+) to (\S+):", re.S)
"""Where the page says at which thresholds true circuits are found."""

TOLERANCE = 0.01
"""Of numerical outputs, which are fractions with a denominator of at most 5."""


@pytest.mark.parametrize(
    ("program", "symbols", "expected"),
    [
        ("reverse", "0 1 2 2", [2, 2, 1, 0]),
        ("xproportion", "x y x w", [1, 1 / 2, 2 / 3, 1 / 2]),
        ("hist", "a b a c a", [3, 1, 3, 1, 3]),
    ],
)
def test_a_program_computes_its_published_example(shared, program, symbols, expected):
    model = load_model(shared / "models" / "tracr" / f"{program}.json")
    assert model.vocabulary is not None
    tokens = torch.tensor([model.vocabulary.encode(symbols)])
    outputs = said(shared, program, model.own_logits(tokens)[0, 1:])
    assert outputs == pytest.approx(expected, abs=TOLERANCE)
    assert model.vocabulary.decode(tokens[0].tolist()) == f"BOS {symbols}"


@pytest.mark.parametrize("dtype", [None, "float64"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_right_on_every_input_of_every_length(shared, program, dtype):
    model = load_model(shared / "models" / "tracr" / f"{program}.json", dtype=dtype)
    assert model.vocabulary is not None
    for symbols in inputs(shared, program):
        tokens = torch.tensor([model.vocabulary.encode(" ".join(symbols))])
        outputs = said(shared, program, model.own_logits(tokens)[0, 1:])
        assert outputs == pytest.approx(PROGRAMS[program](symbols), abs=TOLERANCE)


@pytest.mark.parametrize("ablation", ["zero", "resample", "mean-over-positions"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_circuit_found_computes_the_program_on_all_inputs(shared, program, ablation):
    found = search_of(shared, program, ablation)
    engine, symbols = found.engine, inputs(shared, program)
    final = engine.recomputed(found.circuit.kept)
    logits = engine.problem.model.logits(engine.problem.prompts.at_steps(final))
    for row, given in enumerate(symbols):
        outputs = said(shared, program, logits[row, : len(given)])
        assert outputs == pytest.approx(PROGRAMS[program](given), abs=TOLERANCE)


@pytest.mark.parametrize("ablation", ["zero", "resample"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_circuit_found_lies_within_the_edges_that_the_compiler_composed(
    shared, program, ablation
):
    circuit = search_of(shared, program, ablation).circuit
    composed = set(facts_of(shared, program)["composition_edges"])
    found = {edge.name for edge in circuit.edges}
    assert found and found <= composed


@pytest.mark.parametrize("program", ["hist", "xproportion"])
def test_with_zero_ablation_the_circuit_found_is_the_composed_one(shared, program):
    circuit = search_of(shared, program, "zero").circuit
    assert sorted(edge.name for edge in circuit.edges) == sorted(
        facts_of(shared, program)["composition_edges"]
    )


@pytest.mark.parametrize("ablation", [each.name for each in ABLATIONS])
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_circuit_found_is_the_true_one_at_every_threshold_of_the_range(
    shared, program, ablation
):
    """The true one: the composed edges that cannot be spared, by an oracle of its own."""
    file = shared / "models" / "tracr" / f"{program}.json"
    problem = make_problem(load_model(file, dtype="float64"), "program", ablation=ablation)
    prompts, edges = problem.prompts, problem.graph.edges()
    oracle = CompiledOracle(file, problem.graph, prompts.clean, prompts.corrupted, ablation)
    true = oracle.without_spare(facts_of(shared, program)["composition_edges"])
    everything = oracle.outputs(edge.name for edge in edges)
    assert (oracle.outputs(true) - everything)[:, 1:].abs().max() < 1e-3
    low, high = (float(bound) for bound in STATED.search(PAGE.read_text(encoding="utf-8")).groups())
    for step in range(4):
        threshold = low * (high / low) ** (step / 3)
        found = {edge.name for edge in discover(problem, threshold=threshold).circuit.edges}
        assert found == true, threshold


# ------------------------------------------------------------------------------- bad files


def test_weights_that_are_missing_are_named(program):
    program.with_suffix(".safetensors").unlink()
    with pytest.raises(ModelError, match=r"compiled model, but reverse\.safetensors is missing"):
        load_model(program)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"reverse"', "{}", '{"n_layers": 1}'])
def test_a_description_that_is_none_is_refused(program, text):
    program.write_text(text)
    with pytest.raises(ModelError, match="is not a compiled model"):
        load_model(program)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalization": "LN"}, r"lacks tensors .*ln1\.w.* and \d+ more"),
        ({"normalization": "BN"}, "normalization must be one of LN, RMS, LNPre, RMSPre, not 'BN'"),
        ({"normalization": "LN", "eps": -1}, "eps must be a number from 0 to 1, not -1"),
        ({"activation": "swish"}, "activation must be one of relu, .*, not 'swish'"),
        ({"activation": ["relu"]}, r"activation must be one of relu, .*, not \['relu'\]"),
        ({"n_heads": 0}, "n_heads must be a whole number from 1 to 10,000,000, not 0"),
        ({"n_heads": -2}, "n_heads must be a whole number .*, not -2"),
        ({"n_layers": 4.0}, r"n_layers must be a whole number .*, not 4\.0"),
        ({"n_layers": True}, "n_layers must be a whole number .*, not True"),
        ({"n_layers": "four"}, "n_layers must be a whole number .*, not 'four'"),
        ({"n_layers": None}, "n_layers must be a whole number .*, not None"),
        ({"n_layers": 10**9}, "n_layers must be a whole number .*, not 1000000000"),
        ({"n_layers": 10**7}, "is larger than that of any model"),
        ({"n_layers": 10**3}, r"n_layers is 1,000 and there are \d+ tensors"),
        ({"n_heads": 10**7}, "is larger than that of any model"),
        ({"d_mlp": -1}, "d_mlp must be a whole number from 0 to .*, not -1"),
        ({"attn_only": 1}, "attn_only must be true or false, not 1"),
        ({"tokens": []}, r"tokens must be an object from symbols to numbers, not \[\]"),
        (
            {"tokens": {"BOS": 0, "a": 5}},
            r"tokens holds \{'a': 5\}, .* from 0 to 4",
        ),
        ({"tokens": {"BOS": 0, "a": False}}, r"tokens holds \{'a': False\}"),
        ({"tokens": {"BOS": 0, "a": 0}}, r"same number to two symbols, \('BOS', 'a'\)"),
        ({"output_labels": ["0", "1"]}, "has 2 output_labels for 3 outputs"),
        ({"output_labels": ["0", "1", "0"]}, "has the output label '0' twice"),
        ({"output_labels": ["0", 1, 2]}, "output_labels must be a list of texts"),
        ({"attention_scale": None}, "attention_scale must be a number above 0 .*, not None"),
        ({"attention_scale": 0}, "attention_scale must be a number above 0 .*, not 0"),
        (
            {"attention": "sideways"},
            "attention must be one of bidirectional, causal, not 'sideways'",
        ),
        ({"n_layers": 5}, r"lacks tensors blocks\.4\..* and \d+ more"),
        ({"d_model": 34}, r"has the shape .* and the sizes of its JSON ask for \(.*34"),
        ({"d_head": 9}, r"attn\.W_Q has the shape \(1, 35, 10\) and .* \(1, 35, 9\)"),
        ({"d_vocab": 99}, r"embed\.W_E has the shape \(5, 35\) and .* \(99, 35\)"),
        ({"d_mlp": 0}, r"holds tensors blocks\.0\.mlp\.W_in, .*; its d_mlp is 0"),
    ],
    ids=str,
)
def test_a_description_that_does_not_fit_is_refused_in_one_line(program, change, said):
    rewrite(program, **change)
    with pytest.raises(ModelError, match=f"is not a compiled model: .*{said}") as refusal:
        load_model(program)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("field", ["activation", "tokens", "output_labels", "n_heads", "eps"])
def test_at_most_200_characters_of_a_file_are_quoted(program, field):
    rewrite(program, normalization="RMS", **{field: {"x" * 10_000: "y" * 10_000}})
    with pytest.raises(ModelError) as refusal:
        load_model(program)
    assert len(str(refusal.value)) < 500 + len(str(program))


def test_symbols_that_are_named_twice_are_refused(program):
    text = program.read_text()
    program.write_text(text.replace('"0": 0', '"0": 2, "0": 0'))
    assert '"0": 2' in program.read_text()
    with pytest.raises(ModelError, match="names '0' twice in one object"):
        load_model(program)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(program, value):
    weights = load_file(program.with_suffix(".safetensors"))
    weights["blocks.2.attn.b_K"][0, 3] = value
    save_file(weights, program.with_suffix(".safetensors"))
    with pytest.raises(ModelError, match=r"blocks\.2\.attn\.b_K holds numbers that are not finite"):
        load_model(program)


def test_weights_that_are_whole_numbers_are_refused(program):
    weights = load_file(program.with_suffix(".safetensors"))
    weights["embed.W_E"] = weights["embed.W_E"].long()
    save_file(weights, program.with_suffix(".safetensors"))
    with pytest.raises(ModelError, match=r"embed\.W_E holds torch\.int64 and must hold floating"):
        load_model(program)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_weights_that_were_cut_short_are_refused(program, share):
    weights = program.with_suffix(".safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match="is not a compiled model"):
        load_model(program)


def test_a_directory_in_place_of_the_weights_is_refused(program):
    program.with_suffix(".safetensors").unlink()
    program.with_suffix(".safetensors").mkdir()
    with pytest.raises(ModelError, match=r"reverse\.safetensors is missing"):
        load_model(program)


def test_a_weight_of_another_name_is_refused(program):
    weights = load_file(program.with_suffix(".safetensors"))
    weights["blocks.0.attn.query"] = weights.pop("blocks.0.attn.W_Q")
    save_file(weights, program.with_suffix(".safetensors"))
    with pytest.raises(ModelError, match=r"blocks\.0\.attn\.W_Q"):
        load_model(program)


def test_weights_that_are_no_safetensors_are_refused(program):
    program.with_suffix(".safetensors").write_bytes(b"garbage")
    with pytest.raises(ModelError, match="is not a compiled model"):
        load_model(program)


def test_a_symbol_that_the_program_does_not_know_is_refused(program):
    vocabulary = load_model(program).vocabulary
    assert vocabulary is not None
    with pytest.raises(ModelError, match="knows no symbol '7'; it knows 0, 1, 2"):
        vocabulary.encode("0 7")


# ------------------------------------------------------------------------------- helpers


@pytest.fixture
def program(shared, tmp_path):
    """A copy of `reverse` that can be spoilt."""
    for suffix in ("json", "safetensors"):
        source = shared / "models" / "tracr" / f"reverse.{suffix}"
        (tmp_path / source.name).write_bytes(source.read_bytes())
    return tmp_path / "reverse.json"


def rewrite(file, **change):
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


@cache
def facts_of(shared, program):
    return json.loads((shared / "models" / "tracr" / f"{program}.json").read_text())


@cache
def inputs(shared, program):
    """Every input of every length, as symbols."""
    facts = facts_of(shared, program)
    symbols = [name for name in facts["tokens"] if name not in ("BOS", "compiler_pad")]
    lengths = range(1, facts["n_ctx"])
    return [list(given) for length in lengths for given in product(symbols, repeat=length)]


def said(shared, program, logits):
    """What the outputs at some positions mean: numbers, or the labels of the largest."""
    facts = facts_of(shared, program)
    if facts["output"] == "numerical":
        return logits[:, 0].tolist()
    labels = [int(label.rpartition(":")[2]) for label in facts["output_labels"]]
    return [labels[place] for place in logits.argmax(-1).tolist()]


@cache
def search_of(shared, program, ablation):
    """Search with every input as a clean prompt and another input of its length as corrupted."""
    model = load_model(shared / "models" / "tracr" / f"{program}.json", dtype="float64")
    given = inputs(shared, program)
    generator = random.Random(0)
    pairs = []
    for symbols in given:
        same_length = [other for other in given if len(other) == len(symbols) and other != symbols]
        clean, corrupted = (
            model.vocabulary.encode(" ".join(each))
            for each in (symbols, generator.choice(same_length))
        )
        pairs.append(Pair(clean, corrupted, answers=[], steps=range(1, len(clean))))
    problem = assemble(model, collate(pairs), find_metric("l2"), ablation)
    return search(IncrementalEngine(problem), Acdc(), AcdcOptions(threshold=THRESHOLD))
