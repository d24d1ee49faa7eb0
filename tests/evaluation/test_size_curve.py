"""Size curves: areas computed by hand, rankings that nest, and both limits."""

import json

import pytest
import torch

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.errors import ResultFileError
from circuitfind.evaluation.assess import FULL, QUICK, USUAL, Subject, assess, passes
from circuitfind.evaluation.assessment import assessment_from
from circuitfind.evaluation.baseline import random_baseline
from circuitfind.evaluation.size_curve import (
    SHARES,
    areas,
    ranked_by_effect,
    ranked_by_score,
    size_curve,
)
from tests.engine.problems import problem_of, random_mask
from tests.evaluation.wired import circuit_of, measured_of, true_circuit, wired


@pytest.mark.parametrize(
    ("sizes", "shares", "cpr", "cmd"),
    [
        # A straight line from nothing to everything: two triangles.
        ([1.0], [1.0], 0.5, 0.5),
        # Right at once, from half of the edges on: a triangle and a rectangle.
        ([0.5, 1.0], [1.0, 1.0], 0.25 + 0.5, 0.25),
        # 0.2 -> 0.8 -> 1 at 0.1, 0.5, 1: trapezoids 0.01 + 0.2 + 0.45 and 0.09 + 0.2 + 0.05.
        ([0.1, 0.5, 1.0], [0.2, 0.8, 1.0], 0.66, 0.34),
        # Better than the model: CPR above 1 counts it as gain, CMD as distance.
        ([0.5, 0.5, 1.0], [0.0, 2.0, 2.0], 1.0, 0.5 + 0.5),
        # Two circuits of one size have no area between them.
        ([0.0, 0.0, 1.0], [0.0, 0.0, 1.0], 0.5, 0.5),
    ],
)
def test_areas_are_those_computed_by_hand(sizes, shares, cpr, cmd):
    assert areas(sizes, shares) == (pytest.approx(cpr), pytest.approx(cmd))


def test_a_true_circuit_ranked_first_is_right_from_its_size_on():
    problem = wired("reverse", "zero")
    truth = true_circuit(problem)
    values = torch.rand(truth.kept.shape, generator=torch.Generator().manual_seed(0))
    scores = EdgeScores(problem.graph, values - 9 * truth.kept, "", "")
    curve = size_curve(measured_of("reverse", "zero"), ranked_by_score(scores))
    share = truth.n_edges / problem.graph.n_edges
    right = [point for point in curve.points if point.share >= share]
    assert right and all(point.faithfulness == pytest.approx(1) for point in right)
    assert curve.points[0].faithfulness == pytest.approx(0)
    expected = areas([p.share for p in curve.points], [p.faithfulness for p in curve.points])
    assert (curve.cpr, curve.cmd) == expected


def test_dead_ends_do_not_count_as_edges_left():
    problem = wired("reverse")
    scores = EdgeScores(problem.graph, torch.zeros(problem.graph.edge_mask.shape), "", "")
    curve = size_curve(measured_of("reverse"), ranked_by_score(scores))
    asked = {point.asked: point for point in curve.points}
    assert list(asked) == list(SHARES)
    assert asked[0.1].n_edges < int(0.1 * problem.graph.n_edges)
    assert asked[1.0].n_edges == problem.graph.n_edges


def test_rankings_hold_every_edge_once_and_the_circuit_first():
    graph = problem_of("gpt2").graph
    kept = random_mask(graph, 0, 0.3)
    effects = torch.randn(kept.shape, generator=torch.Generator().manual_seed(0)).double()
    effects[random_mask(graph, 1, 0.3)] = torch.nan
    circuit = Circuit(graph, kept, effects)
    ranking = ranked_by_effect(circuit)
    assert sorted(ranking.order.tolist()) == graph.edge_mask.flatten().nonzero()[:, 0].tolist()
    assert torch.equal(ranking.first(circuit.n_edges).kept, kept)
    scores = ranked_by_score(EdgeScores(graph, effects, "", ""))
    for n in (1, 5, 50):
        assert torch.equal(scores.first(n).kept, EdgeScores(graph, effects, "", "").top(n).kept)


def test_random_circuits_are_a_p_value_and_a_distribution():
    problem = wired("reverse", "zero")
    found = random_baseline(measured_of("reverse", "zero"), true_circuit(problem), 39, null="size")
    assert found.faithfulness == pytest.approx(1)
    assert found.low <= found.mean <= found.high <= found.best < 0.9
    assert found.p_value == 1 / 40


@pytest.mark.parametrize("effort", [QUICK, USUAL])
def test_an_assessment_costs_what_was_said_and_comes_back_from_json(effort):
    problem, held_out = wired("and-gate"), wired("and-gate", seed=5)
    circuit, said = true_circuit(problem), []
    subject = Subject(circuit, problem, held_out, ranked_by_effect(circuit))
    found = assess(subject, effort, tell=said.append)
    assert found.n_passes == sum(passes(subject, effort).values())
    assert said[0].startswith(f"{found.n_passes} passes of 16 prompts (faithfulness 6")
    assert assessment_from(json.loads(json.dumps(found.as_json()))) == found
    assert (found.completeness is None) == (effort is QUICK)


def test_an_empty_circuit_can_be_assessed():
    problem = wired("and-gate")
    found = assess(Subject(circuit_of(problem), problem), FULL)
    assert found.readings[0].measured.faithfulness == 0
    assert found.baselines == () and found.tests == ()


def test_what_is_no_assessment_is_refused():
    problem = wired("and-gate")
    value = assess(Subject(circuit_of(problem), problem), QUICK).as_json()
    for name, wrong, said in (
        ("n_edges", "many", "n_edges is 'many', not of type int"),
        ("readings", 3, "readings is not a list"),
        ("curve", {}, "curve lacks the field"),
    ):
        with pytest.raises(ResultFileError, match=said):
            assessment_from({**value, name: wrong})
    with pytest.raises(ResultFileError, match="it is not an object"):
        assessment_from([])
