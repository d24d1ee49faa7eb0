"""Measure what the tests of an ideal circuit need, and test (`hypotheses.py`)."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.circuit import Circuit
from circuitfind.evaluation.cuts import complement
from circuitfind.evaluation.hypotheses import (
    HypothesisTest,
    equivalence_test,
    independence_test,
    minimality_test,
    not_applicable,
    squared_distance,
    sufficiency_test,
)
from circuitfind.evaluation.measured import Measured, PerCircuit
from circuitfind.evaluation.random_circuits import random_circuits
from circuitfind.evaluation.random_walks import inflated

PerPrompt = Float[Tensor, " batch"]


def n_ideal_passes(n_random: int) -> int:
    """Return how many passes `ideal_tests` takes."""
    return 2 + 3 * n_random


def ideal_tests(
    measured: Measured, circuit: Circuit, cut: PerCircuit, *, n_random: int, seed: int = 0
) -> tuple[HypothesisTest, ...]:
    """Test a circuit for equivalence, independence, minimality and sufficiency.

    Equivalence and independence ask who does better on a prompt, so they take the first of the
    metrics by which the model need not be best; the others take the problem's own.

    Args:
        measured: Measures the circuit.
        circuit: The circuit; it has an edge.
        cut: The problem's metric without each of its edges.
        n_random: How many random circuits, and random edges, are drawn.
        seed: Fixes them, and the permutations.
    """
    values = measured.values([circuit.kept.cpu(), complement(circuit)])
    whole = values[measured.problem.metric.name][0]
    return (
        *_tests_of_scores(measured, values, seed),
        _minimality_test(measured, circuit, whole, cut, n_random, seed),
        _sufficiency_test(measured, circuit, whole, n_random, seed),
    )


def _tests_of_scores(
    measured: Measured, values: Mapping[str, PerCircuit], seed: int
) -> tuple[HypothesisTest, HypothesisTest]:
    scores = [metric.name for metric in measured.metrics if metric.slope == "everywhere"]
    if not scores:
        note = "needs a metric by which a circuit can be better than the model, so answers"
        return not_applicable("equivalence", note), not_applicable("independence", note)
    full, (circuit, rest) = measured.limits[0][scores[0]][0], values[scores[0]]
    return equivalence_test(full, circuit), independence_test(full, rest, seed=seed)


def _minimality_test(
    measured: Measured,
    circuit: Circuit,
    whole: PerPrompt,
    cut: PerCircuit,
    n_random: int,
    seed: int,
) -> HypothesisTest:
    graph, kept = circuit.graph, circuit.kept.cpu().numpy()
    if circuit.n_edges == graph.n_edges:
        return not_applicable("minimality", "the circuit is the full graph: nothing to add")
    generator, masks = np.random.default_rng(seed), []
    for _ in range(n_random):
        larger, added = inflated(graph, kept, generator)
        smaller = larger.copy()
        smaller[added[int(generator.integers(len(added)))]] = False
        masks += [torch.from_numpy(larger), torch.from_numpy(smaller)]
    values = measured.own(masks)
    reference = squared_distance(values[::2], values[1::2])
    return minimality_test(squared_distance(cut, whole[None]), reference)


def _sufficiency_test(
    measured: Measured, circuit: Circuit, whole: PerPrompt, n_random: int, seed: int
) -> HypothesisTest:
    name = measured.problem.metric.name
    drawn = random_circuits(circuit, n_random, null="size", seed=seed)
    values, full = measured.values([each.kept for each in drawn])[name], measured.limits[0][name]
    (own,) = squared_distance(whole[None], full)
    return sufficiency_test(own, squared_distance(values, full))
