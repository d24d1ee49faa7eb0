"""Minimality lists what a circuit does not need, and nothing that it needs."""

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.evaluation.measured import Measured
from circuitfind.evaluation.minimality import minimality
from tests.engine.problems import EXACT, engine_of, random_mask
from tests.evaluation.wired import circuit_of, measured_of, true_circuit, wired

PLACE_OF = ((0, 1, 1, 2, 2, 2), (1, 0, 2, 2, 2, 2))

WIRED = ["induction-pair", "and-gate", "backup-head", "reverse"]


@pytest.mark.parametrize("name", WIRED)
@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_true_circuits_need_every_edge_and_every_component(name, ablation):
    problem = wired(name, ablation)
    found = minimality(measured_of(name, ablation), true_circuit(problem))
    assert found.useless_edges == () and found.useless_components == ()
    assert all(need.matters for need in (*found.edges, *found.components))


@pytest.mark.parametrize("name", WIRED)
def test_a_planted_useless_edge_is_found(name):
    problem = wired(name)
    truth = true_circuit(problem)
    spare = next(edge for edge in problem.graph.edges() if edge.name == "embed->logits")
    assert spare not in truth.edges
    found = minimality(
        measured_of(name), circuit_of(problem, *(e.name for e in truth.edges), spare.name)
    )
    assert found.useless_edges == (spare.name,)
    need = next(need for need in found.edges if need.name == spare.name)
    assert (need.effect, need.largest) == (pytest.approx(0), pytest.approx(0))
    assert need.tried > 1


def test_edges_that_stand_in_for_one_another_matter_where_the_other_is_cut():
    """Both inputs of the gate are on: either alone says 1."""
    problem = wired("or-gate", "resample", "or-gate:both")
    measured = measured_of("or-gate", "resample", "or-gate:both")
    found = minimality(measured, true_circuit(problem), n_sets=0)
    needs = {need.name: need for need in found.edges}
    assert abs(needs["a0.h1->m0"].effect) < 1e-9
    assert needs["a0.h1->m0"].largest == pytest.approx(1)
    assert "a0.h1->m0" not in found.useless_edges


def test_effects_are_those_of_the_engine():
    engine = engine_of("gpt2", metric="logit-difference")
    circuit = Circuit(engine.graph, random_mask(engine.graph, 0, 0.06))
    values = Measured(engine).without_each_edge(circuit.kept)
    state = engine.start_from(circuit.kept)
    for edge, row in list(zip(circuit.edges, values, strict=True))[::3]:
        expected = engine.readout.values(engine.cut(state, [engine.graph.index(edge)]).final)
        torch.testing.assert_close(row, expected, **EXACT)


@pytest.mark.parametrize("crossing", [False, True])
def test_stand_ins_of_an_edge_are_the_others_that_act_at_its_place(monkeypatch, crossing):
    """Each edge is tried again without the edges whose names say that they act with it."""
    monkeypatch.setattr("circuitfind.evaluation.minimality.MATTERS", torch.inf)
    setting = {"metric": "logit-difference", "place_of": PLACE_OF, "crossing": crossing}
    measured = Measured(engine_of("gpt2", **setting))
    graph = measured.problem.graph
    parts = "->a0.h3.", "->a0.h3@", "->m0@", "m0->a1.h0.", "->a1.h0@p2", "a1.h0->logits@p2"
    names = [e.name for e in graph.edges() if any(part in e.name for part in parts)]
    circuit = Circuit(graph, graph.mask_of(names))
    found = {need.name: need for need in minimality(measured, circuit, n_sets=0).edges}
    for name in names:
        others = [other for other in names if other != name and acts_with(other, name)]
        rest = circuit.kept & ~graph.mask_of(others)
        one, two = measured.faithfulness([rest, rest & ~graph.mask_of(name)])
        expected = max(abs(found[name].effect), abs(one - two))
        assert found[name].largest == pytest.approx(expected, abs=1e-9), name
        assert found[name].tried == (2 if others else 1)


def acts_with(one: str, other: str) -> bool:
    """Return whether a head or an MLP uses the inputs of two edges together, at some position."""
    (ours, here), (theirs, there) = (name.partition("->")[2].split("@") for name in (one, other))
    # Where moves arrive is no input of a head, and its name has no port.
    if ours.split(".")[:2] != theirs.split(".")[:2] or ours.count(".") != theirs.count("."):
        return False
    return here == there or ours.endswith((".k", ".v")) or theirs.endswith((".k", ".v"))


def test_an_empty_circuit_needs_nothing():
    problem = wired("and-gate")
    found = minimality(measured_of("and-gate"), circuit_of(problem))
    assert found.edges == found.components == ()
