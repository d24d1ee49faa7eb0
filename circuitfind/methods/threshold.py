"""Which threshold? From the noise of the metric, or from a target for the circuit.

A target is found by a bracketed search on a logarithmic scale. Neither the size of ACDC's circuit
nor its faithfulness is monotone in the threshold, so the search ends with the best threshold that
it has tried, and says how many that were.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.limits import require

_SIGNIFICANT = 1.96
"""Standard errors: 95 % of a normal distribution lies within."""


def suggest_threshold(engine: IncrementalEngine, *, n_edges: int = 64, seed: int = 0) -> float:
    """Return a threshold at the level of the metric's noise over prompts.

    The effect of an edge is a mean over prompts, so it has a standard error: how much it would
    change with other prompts. The suggestion is 1.96 times the root mean square of the standard
    errors of a random sample of edges, each cut alone. Effects below it may be chance.

    Returns:
        A threshold in the metric's unit.

    Raises:
        MethodError: There are fewer than two prompts, or no sampled edge has any effect.
    """
    if len(engine.problem.prompts) < 2:
        raise MethodError("the noise of a metric shows over several prompts; give at least 2")
    edges = engine.graph.edge_mask.nonzero().tolist()
    sample = random.Random(seed).sample(edges, min(n_edges, len(edges)))
    errors = [_standard_error(engine, (writer, reader)) for writer, reader in sample]
    noise = math.sqrt(sum(error**2 for error in errors) / len(errors))
    if noise == 0:
        raise MethodError("no sampled edge has an effect; give a threshold yourself")
    return _SIGNIFICANT * noise


def _standard_error(engine: IncrementalEngine, pair: tuple[int, int]) -> float:
    state = engine.start()
    cut = engine.readout.values(engine.cut(state, [pair]).final)
    effects = (cut - engine.readout.values(state.final)).double()
    return float(effects.std() / math.sqrt(len(effects)))


@dataclass(frozen=True)
class Target:
    """What the circuit should be like.

    Attributes:
        n_edges: At most this many edges, and as many of them as possible; or
        faithfulness: At least this faithful, with as few edges as possible.
    """

    n_edges: int | None = None
    faithfulness: float | None = None

    def __post_init__(self) -> None:
        if (self.n_edges is None) == (self.faithfulness is None):
            raise MethodError("a target is either a number of edges or a faithfulness")
        require(target_edges=self.n_edges, target_faithfulness=self.faithfulness)

    def met_by(self, trial: "Trial") -> bool:
        if self.n_edges is not None:
            return trial.n_edges <= self.n_edges
        assert self.faithfulness is not None
        return trial.faithfulness is not None and trial.faithfulness >= self.faithfulness


@dataclass(frozen=True)
class Trial:
    """One threshold that was tried, and the circuit that it gave."""

    threshold: float
    n_edges: int
    faithfulness: float | None


def search_threshold(
    attempt: Callable[[float], Trial], target: Target, start: float, *, n_trials: int = 10
) -> tuple[Trial, list[Trial]]:
    """Search for the threshold whose circuit meets a target best.

    A larger threshold usually keeps fewer edges and less of the behaviour, so a number of edges is
    approached from small circuits and a faithfulness from large ones. Just as many edges as are
    wanted end the search.

    Args:
        attempt: Runs one search at a threshold.
        target: What the circuit should be like.
        start: A first threshold, larger than 0.
        n_trials: How many searches to spend.

    Returns:
        The best trial, and all trials in the order in which they were made.

    Raises:
        MethodError: No threshold that was tried meets the target.
    """
    trials: list[Trial] = []
    low, high, threshold = 0.0, math.inf, start
    for _ in range(n_trials):
        trials.append(attempt(threshold))
        if trials[-1].n_edges == target.n_edges:
            break
        smaller = target.met_by(trials[-1]) == (target.n_edges is not None)
        low, high = (low, threshold) if smaller else (threshold, high)
        threshold = _between(low, high)
        if high / max(low, 1e-300) < 1.02:
            break
    return _best(trials, target), trials


def _between(low: float, high: float) -> float:
    if low == 0:
        return high / 4
    return low * 4 if math.isinf(high) else math.sqrt(low * high)


def _best(trials: list[Trial], target: Target) -> Trial:
    fitting = [trial for trial in trials if target.met_by(trial)]
    if not fitting:
        wanted = (
            f"at most {target.n_edges} edges"
            if target.n_edges is not None
            else f"a faithfulness of {target.faithfulness}"
        )
        tried = ", ".join(f"{trial.threshold:.3g}" for trial in trials)
        raise MethodError(f"no threshold gave {wanted}; tried {tried}")
    if target.n_edges is not None:
        return max(fitting, key=lambda trial: (trial.n_edges, trial.faithfulness or 0))
    return min(fitting, key=lambda trial: trial.n_edges)
