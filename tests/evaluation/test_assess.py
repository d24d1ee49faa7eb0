"""An evaluation says what its parts say when they are asked directly, on these prompts."""

from dataclasses import replace

import pytest
import torch

import circuitfind as cf
from circuitfind.comparison.roles import Role, groups
from circuitfind.errors import MethodError
from circuitfind.evaluation.assess import USUAL, Subject, assess, passes
from circuitfind.evaluation.scorecard import measure


@pytest.fixture(scope="module")
def problem():
    model = cf.load_model("ioi-small", dtype="float64")
    return cf.make_problem(model, "ioi", n_prompts=24, metric="logit-difference")


@pytest.fixture(scope="module")
def circuit(problem):
    return cf.discover(problem, "eap", n_edges=12, walk="greedy").circuit


@pytest.fixture(scope="module")
def others(problem):
    return cf.make_problem(problem.model, "ioi", n_prompts=24, metric="logit-difference", seed=1)


@pytest.fixture(scope="module")
def quick(problem, circuit, others):
    """A quick evaluation, and what it said of its cost."""
    said: list[str] = []
    return cf.evaluate(problem, circuit, "quick", held_out=others, tell=said.append), said


def direct(problem, circuit):
    return measure(cf.IncrementalEngine(problem), circuit, problem.metric).faithfulness


def test_each_template_is_measured_as_if_it_were_alone(problem, circuit, quick):
    template = problem.prompts.template
    readings = {
        reading.prompts: reading
        for reading in quick[0].readings
        if reading.prompts.startswith("template")
    }
    counts = {number: int((template == number).sum()) for number in template.unique().tolist()}
    expected = {f"template {number}": n for number, n in counts.items() if n >= 2}
    assert len(expected) > 2
    assert {name: reading.n_prompts for name, reading in readings.items()} == expected
    for name, reading in readings.items():
        rows = (template == int(name.split()[1])).nonzero().flatten().tolist()
        alone = replace(problem, prompts=problem.prompts.select(rows))
        assert reading.measured.faithfulness == pytest.approx(direct(alone, circuit), abs=1e-9)
        assert reading.measured.metric == "logit-difference"


def test_from_python_it_is_one_call_and_the_cost_is_said(problem, circuit, others, quick):
    found, said = quick
    by_place = {
        reading.prompts: reading.measured.faithfulness
        for reading in found.readings
        if reading.measured.metric == "logit-difference"
    }
    assert by_place["discovery"] == pytest.approx(direct(problem, circuit), abs=1e-9)
    assert by_place["held-out"] == pytest.approx(direct(others, circuit), abs=1e-9)
    assert found.curve.by == "effect"
    assert "passes of 24 prompts" in said[0]
    with pytest.raises(MethodError, match="no effort 'huge'; choose one of quick, usual, full"):
        cf.evaluate(problem, circuit, "huge")


def test_components_that_share_a_role_are_one_knock_out_and_are_in_the_cost(problem):
    graph = problem.graph
    names = ["embed->a0.h0.v", "a0.h0->logits", "embed->a0.h1.v", "a0.h1->logits"]
    circuit = cf.Circuit(graph, graph.mask_of(names))
    roles = [
        Role("a0.h0", "mover", 0.5, "reads S2"),
        Role("a0.h1", "mover", 0.4, "reads IO"),
        Role("a0.h1", "mover", 0.4, "reads S2"),
        Role("a1.h0", "mover", 0.3, "reads S2"),
        Role("a0.h0", "induction", 0.9, "from S2"),
    ]
    shared = groups(roles, {"a0.h0", "a0.h1"})
    assert shared == {"mover": ("a0.h0", "a0.h1")}
    small = replace(USUAL, n_random=2, n_knock_outs=0, n_greedy=0, n_sets=1)
    subject = Subject(circuit, problem, roles=shared)
    bare = Subject(circuit, problem)
    assert passes(subject, small)["completeness"] == passes(bare, small)["completeness"] + 2
    found = assess(subject, small).completeness
    kinds = {each.kind: each.components for each in found.knock_outs}
    assert kinds["role mover"] == ("a0.h0", "a0.h1")
    without = cf.Circuit(graph, torch.zeros_like(graph.edge_mask))
    knocked = next(each for each in found.knock_outs if each.kind == "role mover")
    assert knocked.circuit == pytest.approx(direct(problem, without), abs=1e-9)
