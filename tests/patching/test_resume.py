"""Patching that was interrupted goes on to the same result, to the last bit."""

import itertools

import pytest
import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.models.loading import load_model
from circuitfind.patching.circuits import EdgeSearch
from circuitfind.patching.path import PathPatching
from circuitfind.patching.sweep import Sweep, patch
from circuitfind.patching.together import Together
from circuitfind.question import make_problem
from tests.engine.problems import problem_of

MIXED = (4, 3, 4)
KINDS = {
    "sweep": lambda problem: Sweep(problem, "resid_post,head,k", positions="0,last", rows=2),
    "sweep at once": lambda problem: Sweep(problem, "block", "noising", positions="all"),
    "paths": lambda problem: PathPatching(problem, None, ["a1.h0.q", "m1", "logits"], rows=4),
    "together": lambda problem: Together(problem, ["embed"], ["m1", "logits"], rows=2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_resumed_measurement_is_the_uninterrupted_one(family, kind):
    problem = problem_of(family, metric="logit-difference", lengths=MIXED)
    whole = list(KINDS[kind](problem).steps())
    measurement = KINDS[kind](problem)
    expected = measurement.result(whole[-1].state)
    assert [checkpoint.done for checkpoint in whole] == sorted({c.done for c in whole})
    for after in {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
        rest = list(KINDS[kind](problem).steps(whole[after].state))
        assert len(rest) == max(1, len(whole) - 1 - after)
        found = measurement.result(rest[-1].state)
        for site in expected.values:
            assert torch.equal(
                found.values[site].nan_to_num(99.0), expected.values[site].nan_to_num(99.0)
            )
        assert torch.equal(found.base, expected.base) and torch.equal(found.source, expected.source)


def test_checkpoints_are_values():
    problem = problem_of("gpt2", metric="logit-difference", lengths=MIXED)
    steps = KINDS["sweep"](problem).steps()
    first = next(steps)
    before = {name: tensor.clone() for name, tensor in first.state.items()}
    for _ in itertools.islice(steps, 3):
        pass
    for name, tensor in first.state.items():
        assert torch.equal(tensor.nan_to_num(99.0), before[name].nan_to_num(99.0)), name


def test_a_resumed_search_for_edges_finds_the_same():
    problem = problem_of("gpt2", metric="logit-difference")
    engine = IncrementalEngine(problem)
    result = patch(problem, "mlp,head", mode="noising", positions="all")
    search = EdgeSearch(engine, result, 0.01, edge_threshold=0.01)
    whole = list(search.steps())
    expected = search.circuit(whole[-1].state)
    assert len(whole) > 4
    for after in (0, len(whole) // 2, len(whole) - 1):
        *_, last = EdgeSearch(engine, result, 0.01, edge_threshold=0.01).steps(whole[after].state)
        found = search.circuit(last.state)
        assert found.to_json() == expected.to_json()


def test_a_search_with_several_edge_thresholds_goes_on_in_any_of_them():
    problem = make_problem(load_model("gpt-4l"), "agreement", n_prompts=32)
    result = patch(problem, "mlp,head", mode="noising")
    search = EdgeSearch(problem, result)
    whole = list(search.steps())
    expected = search.circuit(whole[-1].state)
    each = len(whole) // (int(whole[-1].state["search"]) + 1)
    assert each < len(whole)
    for after in (0, each - 1, each, len(whole) - 1):
        *_, last = EdgeSearch(search.engine, result).steps(whole[after].state)
        assert search.circuit(last.state).kept.equal(expected.kept)
