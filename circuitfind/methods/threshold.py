"""Automatic choice of a threshold: the circuit does the task, or meets a target.

The automatic threshold begins at the level of the metric's noise and is halved until the circuit
keeps most of what the model does. A target is found by a bracketed search on a logarithmic scale.
Neither the size of ACDC's circuit nor its faithfulness is monotone in the threshold, so both end
with the best threshold that they have tried, and say how many that were.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.incremental import IncrementalEngine, as_engine
from circuitfind.errors import MethodError
from circuitfind.limits import require
from circuitfind.problem import HasProblem, as_problem

_SIGNIFICANT = 1.96
"""Standard errors: 95 % of a normal distribution lies within."""

KEPT_SHARE = 0.9
"""What a circuit must keep of the model's accuracy, and of the gap between full and empty graph.

With less accuracy it fails on prompts on which the model succeeds. With more, thresholds get so
small on trained models that most of what they add is noise.
"""

MOST_TRIALS = 6
"""Of automatic thresholds: the last one is a 32nd of the first."""


def suggest_threshold(
    asked: HasProblem, *, n_edges: int = 64, seed: int = 0, memory: int | str | None = None
) -> float:
    """Return a threshold at the level of the metric's noise over prompts.

    The effect of an edge is a mean over prompts, so it has a standard error: how much it would
    change with other prompts. The suggestion is 1.96 times the root mean square of the standard
    errors of a random sample of edges, each cut alone. Effects below it may be chance.

    Args:
        asked: A problem, an engine of it, or what a search found.
        n_edges: How many edges the sample holds.
        seed: Fixes the sample.
        memory: How many bytes may be taken beside the model, also as text like `2GB`; by default
            what it takes.

    Returns:
        A threshold in the metric's unit.

    Raises:
        MethodError: There are fewer than two prompts, or the effects do not differ between them.
    """
    require(sampled_edges=n_edges, seed=seed)
    if as_problem(asked).prompts.n_prompts < 2:
        raise MethodError("the noise of a metric shows over several prompts; give at least 2")
    engine = as_engine(asked, memory)
    edges = engine.graph.edge_mask.nonzero().tolist()
    sample = random.Random(seed).sample(edges, min(n_edges, len(edges)))
    effects = torch.stack([_effects(engine, (writer, reader)) for writer, reader in sample])
    errors = effects.std(dim=1) / math.sqrt(effects.shape[1])
    noise = float(errors.square().mean().sqrt())
    if noise == 0:
        raise MethodError(_without_noise(engine, effects))
    return _SIGNIFICANT * noise


def _effects(engine: IncrementalEngine, pair: tuple[int, int]) -> Float[Tensor, " batch"]:
    state = engine.start()
    cut = engine.readout.by_prompt(engine.cut(state, [pair]).final)
    return cut - engine.readout.by_prompt(state.final)


def _without_noise(engine: IncrementalEngine, effects: Float[Tensor, "edge batch"]) -> str:
    """Return the reason why no cut edge showed any noise."""
    metric = engine.problem.metric.name
    full = engine.readout.values(engine.clean_final)
    empty = engine.readout.values(engine.recomputed(torch.zeros_like(engine.graph.edge_mask)))
    if torch.equal(full, empty):
        return (
            f"the metric {metric!r} is constant on these prompts: it is the same with all edges "
            "and with none; choose another metric, or prompts whose corruption changes it"
        )
    if bool(effects.any()):
        return (
            "every prompt gives the same effects, so the noise of the metric cannot be seen; give "
            "prompts that differ, or a threshold"
        )
    return "no sampled edge has an effect; give a threshold yourself"


@dataclass(frozen=True)
class Target:
    """Target of a search for a threshold: faithfulness or number of edges.

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
    """One threshold that was tried, and the circuit that it gave.

    Attributes:
        threshold: The threshold.
        n_edges: Edges of the circuit.
        faithfulness: Of the circuit, by the problem's own metric; None where there is no gap.
        accuracy: Share of the model's own accuracy that the circuit keeps; None where the model
            has none or prompts have no answers.
    """

    threshold: float
    n_edges: int
    faithfulness: float | None
    accuracy: float | None = None

    @property
    def keeps(self) -> float:
        """The smaller of the two shares that the circuit keeps; 1 where neither is known."""
        known = [share for share in (self.faithfulness, self.accuracy) if share is not None]
        return min(known, default=1.0)

    @property
    def does_the_task(self) -> bool:
        """Whether the circuit keeps enough of the model's accuracy and faithfulness."""
        return self.keeps >= KEPT_SHARE

    def __str__(self) -> str:
        known = {"the accuracy": self.accuracy, "the faithfulness": self.faithfulness}
        shares = [f"{value:.1%} of {name}" for name, value in known.items() if value is not None]
        edges = f"{self.n_edges} edge{'' if self.n_edges == 1 else 's'}"
        return edges + (f" and {' and '.join(shares)}" if shares else "")


def automatic_threshold(
    attempt: Callable[[float], Trial],
    start: float,
    earlier: Sequence[Trial] = (),
    tell: Callable[[str], None] = lambda message: None,
) -> tuple[Trial, list[Trial]]:
    """Halve a threshold until its circuit does the task, at most a few times.

    Args:
        attempt: Runs one search at a threshold.
        start: The first threshold.
        earlier: What an interrupted call has tried already.
        tell: Called with what a user should know of each threshold.

    Returns:
        The largest threshold tried whose circuit keeps a share of `KEPT_SHARE` of the model's
        accuracy and of faithfulness, or, where none does, the one whose circuit keeps most; and
        all of them in the order in which they were tried.
    """
    trials = list(earlier)
    while not trials or _is_to_be_halved(trials):
        trials.append(attempt(_half(trials[-1].threshold) if trials else start))
        if not trials[-1].does_the_task:
            tell(f"threshold {trials[-1].threshold:g} keeps {trials[-1]}: not enough")
    best = max(trials, key=_goodness)
    wanted = f"{KEPT_SHARE:.0%} of accuracy and faithfulness"
    if not best.does_the_task:
        tell(f"no threshold of {len(trials)} tried keeps {wanted}; the best is {best.threshold:g}")
    elif len(trials) == 1:
        tell(f"threshold {best.threshold:g} from the metric's noise: keeps {best}")
    else:
        tell(
            f"threshold {best.threshold:g}: the largest of {len(trials)} tried whose circuit keeps "
            f"{wanted}: {best}"
        )
    return best, trials


def _goodness(trial: Trial) -> tuple[bool, float, float]:
    """Rank trials: what does the task first, then what keeps more, with no prize for excess."""
    faithfulness = 1.0 if trial.faithfulness is None else trial.faithfulness
    return trial.does_the_task, min(trial.keeps, KEPT_SHARE), min(faithfulness, KEPT_SHARE)


def _is_to_be_halved(trials: Sequence[Trial]) -> bool:
    last = trials[-1]
    return (
        not last.does_the_task
        and len(trials) < MOST_TRIALS
        and 0 < _half(last.threshold) < last.threshold
        and not _is_stuck(trials[-3:])
    )


def _is_stuck(last: Sequence[Trial]) -> bool:
    """Return whether circuits are faithful and yet, twice, have not become more accurate.

    A metric that compares two answers says nothing about all others, so its circuits need not have
    the model's accuracy at any threshold.
    """
    faithful = [each.faithfulness is not None and each.faithfulness >= KEPT_SHARE for each in last]
    accuracies = [each.accuracy or 0.0 for each in last]
    return len(last) == 3 and all(faithful[1:]) and max(accuracies[1:]) <= accuracies[0]


def _half(threshold: float) -> float:
    return rounded(threshold / 2)


def rounded(threshold: float) -> float:
    """Return a threshold in two digits, which a user can repeat."""
    return float(f"{threshold:.2g}")


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
        if not low < threshold < high or high / max(low, 1e-300) < 1.02:
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
