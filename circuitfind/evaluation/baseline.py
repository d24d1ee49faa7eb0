"""Faithfulness of random circuits with the size or the degrees of a circuit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circuitfind.circuit import Circuit
from circuitfind.evaluation.measured import Measured
from circuitfind.evaluation.random_circuits import Null, p_value, random_circuits


@dataclass(frozen=True)
class Baseline:
    """A circuit among random ones, by the problem's own metric.

    Attributes:
        null: What the random circuits share with it.
        n_circuits: How many there are.
        faithfulness: The circuit's own.
        mean: The mean of the random ones'.
        low: Their 2.5 % quantile.
        high: Their 97.5 % quantile.
        best: The largest of theirs.
        p_value: How often chance does at least as well, the circuit counted in.
    """

    null: Null
    n_circuits: int
    faithfulness: float
    mean: float
    low: float
    high: float
    best: float
    p_value: float


def random_baseline(
    measured: Measured, circuit: Circuit, n: int, *, null: Null = "degree", seed: int = 0
) -> Baseline | None:
    """Measure n random circuits; None where the metric has no gap.

    Raises:
        MethodError: No random circuit of this size could be drawn.
    """
    if not measured.scale.has_gap:
        return None
    drawn = random_circuits(circuit, n, null=null, seed=seed)
    own, *others = measured.faithfulness([circuit.kept, *(each.kept for each in drawn)])
    return among(null, own, others)


def among(null: Null, own: float, others: Sequence[float]) -> Baseline:
    """Put the faithfulness of a circuit beside that of random ones."""
    low, high = np.quantile(others, [0.025, 0.975]).tolist()
    mean = float(np.mean(others))
    return Baseline(null, len(others), own, mean, low, high, max(others), p_value(own, others))
