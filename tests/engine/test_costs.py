"""What checks, scorecards and searches cost, in passes of the whole model.

Counted, not timed: heads and MLPs that are run on whole prompts, and the model's own passes.
"""

from dataclasses import replace

import pytest
import torch

import circuitfind as cf
from circuitfind.engine.checks import check_limits
from circuitfind.engine.incremental import IncrementalEngine
from tests.counting import CountingModel
from tests.engine.problems import problem_of


@pytest.fixture
def counted():
    """A deep model that counts, and an engine and a small circuit of it."""
    problem = problem_of("llama", metric="logit-difference", n_layers=8)
    model = CountingModel(problem.model)
    problem = replace(problem, model=model)
    found = cf.discover(problem, "eap", n_edges=12, walk="greedy")
    assert 6 <= found.circuit.n_edges <= 12
    return model, problem, found


def passes(model: CountingModel, problem: cf.Problem) -> float:
    """Return the work that was counted as a multiple of the whole model on all prompts."""
    positions = problem.prompts.clean.numel()
    ran = model.ran.total() / (len(problem.graph.heads_and_mlps) * positions)
    return float(ran + model.own / positions)


def test_the_checks_take_less_than_two_passes():
    """The model itself; of 4 of 16 prompts, on both sides, and the full graph built up."""
    problem = problem_of("llama", lengths=(6,) * 16)
    model = CountingModel(problem.model)
    engine = IncrementalEngine(problem := replace(problem, model=model))
    model.clear()
    check_limits(engine)
    assert passes(model, problem) == pytest.approx(1.5)


def test_the_scorecard_takes_a_part_of_a_pass(counted):
    model, problem, found = counted
    engine = IncrementalEngine(problem)
    _ = engine.scale
    model.clear()
    cf.scorecard(engine, found.circuit)
    assert 0 < passes(model, problem) < 0.5


def test_many_circuits_cost_what_each_adds_and_not_their_number_of_whole_passes(counted):
    model, problem, found = counted
    engine = IncrementalEngine(problem)
    kept = found.circuit.kept
    masks = [kept & ~problem.graph.mask_of([edge]) for edge in found.circuit.edges]
    model.clear()
    values = engine.measure(masks)
    assert passes(model, problem) < 0.5 * len(masks)
    model.clear()
    cuts = torch.cat([rows for _, rows in engine.measure_cuts(kept)])
    assert passes(model, problem) < 0.1 * len(masks) + 1
    torch.testing.assert_close(cuts, values, rtol=0, atol=1e-9)


def test_edges_that_decide_nothing_cost_no_second_pass(counted):
    model, problem, found = counted
    engine, graph = IncrementalEngine(problem), problem.graph
    kept = graph.mask_of(["embed->m0", "m0->logits"])
    # Nothing of the clean run reaches the one, and nothing reads the other.
    more = kept | graph.mask_of(["m3->m5", "m5->logits", "embed->m7"])
    model.clear()
    first, second = engine.finals([kept, more], "replaced")
    assert torch.equal(first, second)
    assert set(model.ran) == {"m0"} and model.ran["m0"] == problem.prompts.clean.numel()


def test_a_search_by_attribution_takes_six_passes_forward_and_one_back(counted):
    model, problem, _ = counted
    model.clear()
    found = cf.discover(problem, "eap", n_edges=12)
    # Both runs of the engine, three of the checks, and all components again on the way back, which
    # starts from the engine's runs. Pruned, the circuit is measured against the one unpruned. The
    # products of the way back are those of one more pass: 7 are 3.5 passes forward and back.
    assert found.circuit.n_edges <= 12
    assert 5.5 < passes(model, problem) < 6.5
