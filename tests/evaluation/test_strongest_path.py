"""The strongest path is that of a search over all paths; random circuits without it lack it."""

import itertools
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import torch

import circuitfind as cf
from circuitfind.circuit import Circuit
from circuitfind.evaluation.random_circuits import random_circuits
from circuitfind.evaluation.random_walks import connected_mask, exchanged
from circuitfind.evaluation.strongest_path import strongest_path, widest_path
from circuitfind.reports.evaluation import assessment_rows
from tests.evaluation.test_random_circuits import GRAPHS
from tests.evaluation.wired import measured_of, true_circuit


@pytest.mark.parametrize("name", ["plain", "grouped", "split embedding", "grouped with places"])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_the_widest_path_is_the_best_of_all_paths(name, ties):
    graph, generator = GRAPHS[name], np.random.default_rng(0)
    circuit = Circuit(graph, torch.from_numpy(connected_mask(graph, 14, generator)))
    names = [edge.name for edge in circuit.edges]
    values = generator.integers(0, 3, len(names)) if ties else generator.permutation(len(names))
    widths = dict(zip(names, (float(value) for value in values), strict=True))
    every = all_paths(circuit)
    assert len(every) > 3
    found = widest_path(circuit, widths)
    assert found in every
    for other in every:
        assert stronger_or_equal([widths[n] for n in found], [widths[n] for n in other])


def test_a_circuit_without_a_path_has_no_strongest_one():
    graph = GRAPHS["plain"]
    circuit = Circuit(graph, graph.mask_of(["embed->m0", "m1->logits"]))
    assert widest_path(circuit, {"embed->m0": 1.0, "m1->logits": 1.0}) == ()


def test_one_path_that_does_everything_is_found_with_its_share():
    measured = measured_of("backup-head")
    found = strongest_path(measured, true_circuit(measured.problem), 6)
    assert found.edges == ("embed->a0.h0.v", "a0.h0->logits")
    assert found.alone == pytest.approx(1.0) and found.without == pytest.approx(0.0, abs=1e-9)
    assert found.baseline.faithfulness == pytest.approx(1.0)
    assert found.baseline.best < 1.0 and found.baseline.p_value == pytest.approx(1 / 7)


@pytest.mark.parametrize("name", ["plain", "grouped with places"])
def test_a_replaced_edge_is_gone_and_another_one_joins_the_circuit(name):
    graph, generator = GRAPHS[name], np.random.default_rng(0)
    kept = connected_mask(graph, 12, generator)
    for writer, reader in np.argwhere(kept).tolist():
        drawn = exchanged(graph, kept, (writer, reader), generator)
        assert drawn.sum() == kept.sum() and not drawn[writer, reader]
        assert (drawn & ~kept).sum() == 1 and not (drawn & ~graph.edge_mask.numpy()).any()
    full = graph.edge_mask.numpy().copy()
    writer, reader = map(int, np.argwhere(full)[0])
    assert exchanged(graph, full, (writer, reader), generator).sum() == full.sum() - 1


def test_an_evaluation_says_what_the_path_carries_and_why_chance_does_as_well():
    problem = measured_of("backup-head").problem
    circuit = true_circuit(problem)
    found = cf.evaluate(problem, circuit, "usual")
    # The model has one head in each layer, so that the degrees leave nothing but this wiring.
    drawn = random_circuits(circuit, 40, null="degree")
    assert all(bool(each.kept[circuit.kept].all()) for each in drawn)
    assert found.path.n_holding == len(drawn)
    rows = dict(assessment_rows(found))
    assert "40 of 40 random circuits hold it" in rows["strongest path"]
    assert "faithfulness 1.000 alone, 0.000 of the circuit without it" in rows["strongest path"]
    assert found.baselines[0].p_value > 0.05
    assert rows["why chance does as well"].endswith("with one of its edges replaced they do worse")
    few = dict(assessment_rows(replace(found, path=replace(found.path, n_holding=3))))
    assert few["why chance does as well"].endswith("3 of 40 hold it, so it explains little")
    assert cf.evaluate(problem, circuit, "quick").path is None


def stronger_or_equal(one, other):
    """Compare weakest edges, then the next weakest; the shorter path is the stronger."""
    for ours, theirs in itertools.zip_longest(sorted(one), sorted(other), fillvalue=np.inf):
        if ours != theirs:
            return ours > theirs
    return True


def all_paths(circuit):
    """Return every path of kept edges, as networkx lists them."""
    network, found = circuit.network(), set()
    ends = {kind: [n for n, d in network.nodes(data=True) if d["kind"] == kind]
            for kind in ("embedding", "logits")}  # fmt: skip
    for start, end in itertools.product(*ends.values()):
        for path in nx.all_simple_edge_paths(network, start, end):
            data = [network.edges[edge] for edge in path]
            found.add(tuple(each["name"] for each in data if each["kind"] == "edge"))
    return found
