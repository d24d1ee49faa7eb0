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

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import ModelError
from circuitfind.methods.acdc import Acdc, AcdcOptions
from circuitfind.methods.search import search
from circuitfind.metrics import find_metric
from circuitfind.models.loading import load_model
from circuitfind.problem import ABLATIONS, assemble
from circuitfind.prompts import Pair, collate
from circuitfind.runs.api import discover, make_problem
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


@pytest.mark.parametrize("ablation", ABLATIONS)
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
    "change",
    [
        {"normalization": "LN"},
        {"activation": "swish"},
        {"n_heads": 0},
        {"n_layers": "four"},
        {"tokens": []},
        {"attention_scale": None},
        {"attention": "sideways"},
        {"n_layers": 5},
        {"d_model": 34},
        {"d_head": 9},
        {"d_vocab": 99},
        {"tokens": {"BOS": 0, "a": 5}},
    ],
    ids=str,
)
def test_a_description_that_does_not_fit_is_refused_in_one_line(program, change):
    rewrite(program, **change)
    with pytest.raises(ModelError, match="is not a compiled model: ") as refusal:
        load_model(program)
    assert "\n" not in str(refusal.value)


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
