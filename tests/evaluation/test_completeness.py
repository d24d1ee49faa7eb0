"""Completeness finds what the circuit lacks, and nothing where it lacks nothing."""

import pytest
import torch

from circuitfind.api import discover
from circuitfind.circuit import Circuit
from circuitfind.evaluation.completeness import completeness, n_knock_out_passes
from circuitfind.evaluation.cuts import removable, without
from circuitfind.evaluation.measured import Measured
from circuitfind.models.loading import load_model
from circuitfind.question import make_problem
from tests.evaluation.wired import circuit_of, measured_of, true_circuit, wired


def test_the_planted_backup_head_is_found():
    """Without a0.h0 the circuit says nothing, and the model all the same: a1.h0 takes over."""
    problem = wired("backup-head", "zero")
    found = completeness(measured_of("backup-head", "zero"), true_circuit(problem))
    worst = found.knock_outs[0]
    assert worst.components == ("a0.h0",)
    assert (worst.circuit, worst.full) == (pytest.approx(0), pytest.approx(1))
    assert found.worst == pytest.approx(1)
    (backup,) = found.backups
    assert (backup.component, backup.effect) == ("a1.h0", pytest.approx(1))


def test_under_an_ablation_that_does_not_wake_the_backup_nothing_is_lacking():
    problem = wired("backup-head")
    found = completeness(measured_of("backup-head"), true_circuit(problem))
    assert found.worst == pytest.approx(0, abs=1e-9)
    assert found.backups == ()


@pytest.mark.parametrize("name", ["induction-pair", "and-gate", "or-gate", "hist"])
def test_the_full_graph_is_complete(name):
    graph = wired(name).graph
    found = completeness(measured_of(name), Circuit(graph, graph.edge_mask), n_greedy=2)
    assert found.worst == 0 and found.backups == ()


def test_roles_are_knocked_out_together():
    problem = wired("or-gate")
    found = completeness(
        measured_of("or-gate"),
        true_circuit(problem),
        n_random=0,
        roles={"input": ["a0.h0", "a0.h1"]},
    )
    kinds = {each.kind: each.components for each in found.knock_outs}
    assert kinds["role input"] == ("a0.h0", "a0.h1")
    assert found.worst == pytest.approx(0, abs=1e-9)


def test_the_greedy_set_is_at_least_as_bad_as_its_worst_component():
    problem = wired("or-gate", "resample", "or-gate:both")
    measured = measured_of("or-gate", "resample", "or-gate:both")
    lacking = circuit_of(problem, "embed->a0.h0.v", "a0.h0->m0", "m0->logits")
    found = completeness(measured, lacking, n_random=0, n_greedy=2)
    assert found.knock_outs[0].components == ("a0.h0",)
    assert found.worst == pytest.approx(1)
    assert [backup.component for backup in found.backups] == ["a0.h1"]


@pytest.mark.parametrize("n_greedy", [1, 2, 5])
@pytest.mark.parametrize("edges", [(), ("embed->logits",), ("embed->a0.h0.v", "a0.h0->logits")])
def test_the_cost_is_known_before(edges, n_greedy):
    problem = wired("backup-head")
    circuit, measured = circuit_of(problem, *edges), Measured(problem)
    _ = measured.limits
    completeness(measured, circuit, n_random=3, n_greedy=n_greedy, n_backups=2)
    assert measured.n_passes - 2 == n_knock_out_passes(circuit, 3, n_greedy, n_backups=2)


@pytest.mark.parametrize("n_backups", [1, 2])
def test_of_many_components_the_likeliest_backups_are_tried(n_backups):
    problem = wired("or-gate", "resample", "or-gate:both")
    measured = measured_of("or-gate", "resample", "or-gate:both")
    lacking = circuit_of(problem, "embed->a0.h0.v", "a0.h0->m0", "m0->logits")
    found = completeness(measured, lacking, n_random=0, n_greedy=0, n_backups=n_backups)
    assert [backup.component for backup in found.backups] == ["a0.h1"]


def test_the_backups_of_a_trained_model_are_among_the_likeliest():
    """Five, of which the six likeliest of all components outside the circuit hold all."""
    problem = make_problem(load_model("ioi-small"), "ioi", metric="logit-difference", n_prompts=16)
    circuit = discover(problem, "acdc", threshold=0.3).circuit
    every, some = (
        completeness(Measured(problem), circuit, n_random=0, n_backups=n).backups for n in (None, 6)
    )
    assert len(every) == 5 and some == every


def test_a_component_is_without_effect_when_all_that_it_writes_is_cut():
    graph = wired("or-gate").graph
    mask = without(graph, graph.edge_mask, ["a0.h1"])
    gone = {edge.name for edge in graph.edges(graph.edge_mask & ~mask)}
    assert gone == {"a0.h1->m0", "a0.h1->logits"}
    assert removable(Circuit(graph, torch.zeros_like(mask))) == []
