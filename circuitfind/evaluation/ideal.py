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
from circuitfind.evaluation.meter import Meter
from circuitfind.evaluation.random_circuits import random_circuits
from circuitfind.evaluation.random_walks import inflated

PerPrompt = Float[Tensor, " batch"]
PerEdge = Float[Tensor, "edge batch"]


def n_ideal_passes(n_random: int) -> int:
    """Return how many passes `ideal_tests` takes."""
    return 2 + 3 * n_random


def ideal_tests(
    meter: Meter, circuit: Circuit, cut: PerEdge, *, n_random: int, seed: int = 0
) -> tuple[HypothesisTest, ...]:
    """Test a circuit for equivalence, independence, minimality and sufficiency.

    Equivalence and independence ask who does better on a prompt, so they take the first of the
    meter's metrics by which the model need not be best; the others take the problem's own.

    Args:
        meter: Measures the circuit.
        circuit: The circuit; it has an edge.
        cut: The problem's metric without each of its edges.
        n_random: How many random circuits, and random edges, are drawn.
        seed: Fixes them, and the permutations.
    """
    values = meter.values([circuit.kept.cpu(), complement(circuit)])
    whole = values[meter.problem.metric.name][0]
    return (
        *_tests_of_scores(meter, values, seed),
        _minimality_test(meter, circuit, whole, cut, n_random, seed),
        _sufficiency_test(meter, circuit, whole, n_random, seed),
    )


def _tests_of_scores(
    meter: Meter, values: Mapping[str, Float[Tensor, "circuit batch"]], seed: int
) -> tuple[HypothesisTest, HypothesisTest]:
    scores = [metric.name for metric in meter.metrics if metric.slope == "everywhere"]
    if not scores:
        note = "needs a metric by which a circuit can be better than the model, so answers"
        return not_applicable("equivalence", note), not_applicable("independence", note)
    full, (circuit, rest) = meter.limits[0][scores[0]][0], values[scores[0]]
    return equivalence_test(full, circuit), independence_test(full, rest, seed=seed)


def _minimality_test(
    meter: Meter, circuit: Circuit, whole: PerPrompt, cut: PerEdge, n_random: int, seed: int
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
    values = meter.values(masks)[meter.problem.metric.name]
    reference = squared_distance(values[::2], values[1::2])
    return minimality_test(squared_distance(cut, whole[None]), reference)


def _sufficiency_test(
    meter: Meter, circuit: Circuit, whole: PerPrompt, n_random: int, seed: int
) -> HypothesisTest:
    name = meter.problem.metric.name
    drawn = random_circuits(circuit, n_random, null="size", seed=seed)
    values, full = meter.values([each.kept for each in drawn])[name], meter.limits[0][name]
    (own,) = squared_distance(whole[None], full)
    return sufficiency_test(own, squared_distance(values, full))
