"""How faithful random circuits are that share size or degrees with a circuit."""

from dataclasses import dataclass

import numpy as np

from circuitfind.circuit import Circuit
from circuitfind.evaluation.meter import Meter
from circuitfind.evaluation.random_circuits import Null, p_value, random_circuits
from circuitfind.evaluation.scorecard import share_of_means


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
    meter: Meter, circuit: Circuit, n: int, *, null: Null = "degree", seed: int = 0
) -> Baseline | None:
    """Measure n random circuits; None where the metric has no gap.

    Raises:
        MethodError: No random circuit of this size could be drawn.
    """
    name = meter.problem.metric.name
    full, empty = (float(limit[name].mean()) for limit in meter.limits)
    if share_of_means(full, full, empty) is None:
        return None
    drawn = random_circuits(circuit, n, null=null, seed=seed)
    values = meter.values([circuit.kept, *(each.kept for each in drawn)])[name].mean(dim=1)
    own, *others = ((values - empty) / (full - empty)).tolist()
    low, high = np.quantile(others, [0.025, 0.975]).tolist()
    mean = float(np.mean(others))
    return Baseline(null, n, own, mean, low, high, max(others), p_value(own, others))
