"""Cuts and knock-outs in graphs with places, held to the model run whole for each of them."""

from functools import partial

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.evaluation.completeness import completeness
from circuitfind.evaluation.false_discoveries import discoveries
from circuitfind.evaluation.measured import Measured
from tests.engine.problems import engine_of, oracle_of, random_mask

PLACE_OF = ((0, 1, 1, 2, 2, 2), (1, 0, 2, 2, 2, 2))


@pytest.fixture(scope="module")
def measured():
    return Measured(engine_of("gpt2", metric="logit-difference", place_of=PLACE_OF))


@pytest.fixture(scope="module")
def circuit(measured):
    graph = measured.problem.graph
    return Circuit(graph, random_mask(graph, 0, 0.2))


def test_each_edge_is_cut_at_its_place_alone_and_told_by_its_name(measured, circuit):
    kept = circuit.kept
    rows = measured.without_each_edge(kept)
    (whole,) = measured.own([kept])
    evidence = {row.edge: row for row in discoveries(circuit, whole - rows, held_out=False).edges}
    assert set(evidence) == {edge.name for edge in circuit.edges}
    before = differences(measured, kept)
    for edge in circuit.edges[::7]:
        after = differences(measured, kept & ~circuit.graph.mask_of(edge))
        effect = float((before - after).mean())
        assert evidence[edge.name].effect == pytest.approx(effect, abs=1e-9), edge.name


def test_a_component_is_knocked_out_of_circuit_and_model_at_every_place(measured, circuit):
    found = completeness(measured, circuit, n_random=2, n_greedy=1, n_backups=2)
    graph, faithful = circuit.graph, partial(faithfulness, measured)
    for each in found.knock_outs[::3]:
        ours, theirs = (
            faithful(without(graph, mask, each.components))
            for mask in (circuit.kept, graph.edge_mask)
        )
        assert (each.circuit, each.full) == (
            pytest.approx(ours, abs=1e-8), pytest.approx(theirs, abs=1e-8)
        )  # fmt: skip
    worst = found.knock_outs[0]
    for backup in found.backups:
        without_both = without(graph, graph.edge_mask, [*worst.components, backup.component])
        assert backup.effect == pytest.approx(worst.full - faithful(without_both), abs=1e-8)


# ------------------------------------------------------------------------------- helpers


def without(graph, mask, components):
    """Return a mask without the edges whose names begin with a component's."""
    names = [edge.name for edge in graph.edges(mask)]
    return graph.mask_of(name for name in names if name.partition("->")[0] not in components)


def differences(measured, mask):
    """Return the logit difference of each prompt, by the oracle."""
    prompts = measured.problem.prompts
    logits = oracle_of("gpt2", place_of=PLACE_OF).logits(mask)[:, -1]
    rows = zip(logits, prompts.answers[:, 0], prompts.wrong_answers[:, 0], strict=True)
    return torch.stack([row[right].mean() - row[wrong].mean() for row, right, wrong in rows])


def faithfulness(measured, mask):
    everything = measured.problem.graph.edge_mask
    full, empty, found = (
        float(differences(measured, each).mean()) for each in (everything, everything & False, mask)
    )
    return (found - empty) / (full - empty)
