"""Measure circuits of a question by several metrics, and find again what was measured earlier.

A circuit measured on all prompts is the unit of cost of every evaluation: they are counted here,
and kept in a log, so that an evaluation that was interrupted repeats none.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.engine.incremental import IncrementalEngine, as_engine
from circuitfind.evaluation.passes import (
    PassLog,
    Rows,
    key_of,
    key_of_cuts,
    key_of_pass,
    key_of_scores,
)
from circuitfind.metrics import Metric, Scale
from circuitfind.problem import HasProblem, Problem

Mask = Bool[Tensor, "writer reader"]
PerCircuit = Float[Tensor, "circuit batch"]
Values = Mapping[str, PerCircuit]
"""By the name of the metric: a number per circuit and prompt, in float64."""


class Measured:
    """Circuits of a question, measured.

    Attributes:
        engine: Measures them.
        metrics: The metrics; the problem's own comes first.
        n_passes: How many circuits were measured, or found again.
        n_made: How many of these were measured.
        seconds: How long that took.

    Args:
        asked: The question, or an engine of it.
        others: More metrics than the problem's own.
        on_pass: Called after each of them.
        log: What was measured already, and where more is kept.
    """

    def __init__(
        self,
        asked: HasProblem,
        others: Sequence[Metric] = (),
        *,
        on_pass: Callable[[], None] = lambda: None,
        log: PassLog | None = None,
    ) -> None:
        self.engine: IncrementalEngine = as_engine(asked)
        own = self.problem.metric
        self.metrics = (own, *(metric for metric in others if metric.name != own.name))
        self.n_passes, self.n_made, self.seconds = 0, 0, 0.0
        self.on_pass = on_pass
        self._log = log or PassLog()
        self._cuts: dict[str, PerCircuit] = {}
        self._names = tuple(metric.name for metric in self.metrics)
        self._key = key_of(self.problem, self._names, len(self.engine.chunks))

    @property
    def problem(self) -> Problem:
        """The problem that the circuits are measured on."""
        return self.engine.problem

    def values(self, kept: Sequence[Mask]) -> Values:
        """Measure some circuits, given as masks, by every metric."""
        keys = [key_of_pass(self._key, mask) for mask in kept]
        left = dict(zip(keys, kept, strict=True))
        if (n_repeated := len(keys) - len(left)) > 0:
            self._count(n_repeated, 0.0)
        found: dict[str, Rows] = {
            key: rows for key in left if (rows := self._earlier(key, self._names, 1)) is not None
        }
        left = {key: mask for key, mask in left.items() if key not in found}
        finals, started = self.engine.finals(list(left.values())), time.monotonic()
        for key, final in zip(left, finals, strict=True):
            with torch.no_grad():
                found[key] = {
                    metric.name: self.engine.readout_of(metric).by_prompt(final).cpu()
                    for metric in self.metrics
                }
            started = self._note(key, found[key], started)
        return {name: self._stacked([found[key][name] for key in keys]) for name in self._names}

    def own(self, kept: Sequence[Mask]) -> PerCircuit:
        """Measure some circuits by the problem's own metric."""
        return self.values(kept)[self._names[0]]

    def without_each_edge(self, kept: Mask) -> PerCircuit:
        """Measure a circuit without each of its edges, in their order, by the problem's metric."""
        whole = key_of_pass(self._key, kept)
        if whole in self._cuts:
            return self._cuts[whole]
        edges = {reader: int(n) for reader, n in enumerate(kept.cpu().sum(0)) if n}
        keys = {reader: key_of_cuts(self._key, kept, reader) for reader in edges}
        names = {reader: tuple(map(str, range(n))) for reader, n in edges.items()}
        found = {
            reader: rows
            for reader, key in keys.items()
            if (rows := self._earlier(key, names[reader], edges[reader])) is not None
        }
        started = time.monotonic()
        for reader, values in self.engine.measure_cuts(kept, skip=frozenset(found)):
            found[reader] = dict(zip(names[reader], values, strict=True))
            started = self._note(keys[reader], found[reader], started, n=len(values))
        left_out = [row for reader in edges for row in found[reader].values()]
        self._cuts[whole] = self._stacked(left_out)
        return self._cuts[whole]

    def by_prompt(
        self, what: str, compute: Callable[[int], Iterator[Float[Tensor, " edge"]]]
    ) -> Float[Tensor, "prompt edge"]:
        """Return a score of every edge for each prompt alone.

        Args:
            what: What these are, so that they are found again.
            compute: Yields the scores for the prompts from a number on.
        """
        keys = [key_of_scores(self._key, what, n) for n in range(self.problem.prompts.n_prompts)]
        found = list[Float[Tensor, " edge"]]()
        for key in keys:
            rows = self._earlier(key, (what,), 1, self.problem.graph.n_edges)
            if rows is None:
                break
            found.append(rows[what])
        started = time.monotonic()
        for key, scores in zip(keys[len(found) :], compute(len(found)), strict=True):
            found.append(scores)
            started = self._note(key, {what: scores}, started)
        return torch.stack(found)

    @cached_property
    def limits(self) -> tuple[Values, Values]:
        """Values of the full and the empty graph."""
        everything = self.problem.graph.edge_mask
        values = self.values([everything, torch.zeros_like(everything)])
        full = {name: rows[:1] for name, rows in values.items()}
        return full, {name: rows[1:] for name, rows in values.items()}

    @cached_property
    def scale(self) -> Scale:
        """The problem's metric of the full and of the empty graph."""
        full, empty = (float(limit[self._names[0]].mean()) for limit in self.limits)
        return Scale(full, empty)

    def faithfulness(self, kept: Sequence[Mask]) -> list[float]:
        """Return the faithfulness of some circuits by the problem's own metric.

        Raises:
            MetricError: The metric has no gap between the full and the empty graph.
        """
        found: list[float] = self.scale.faithfulness(self.own(kept).mean(dim=1)).tolist()
        return found

    def _earlier(
        self, key: str, names: Sequence[str], n: int, length: int | None = None
    ) -> Rows | None:
        earlier = self._log.get(key, names, length or self.problem.prompts.n_prompts)
        if earlier is None:
            return None
        rows, seconds = earlier
        self._count(n, seconds)
        return rows

    def _note(self, key: str, rows: Rows, started: float, n: int = 1) -> float:
        """Keep what was measured, and return the time."""
        now = time.monotonic()
        self._log.add(key, rows, now - started)
        self.n_made += n
        self._count(n, now - started)
        return now

    def _count(self, n: int, seconds: float) -> None:
        self.n_passes += n
        self.seconds += seconds
        for _ in range(n):
            self.on_pass()

    def _stacked(self, rows: Sequence[Float[Tensor, " batch"]]) -> PerCircuit:
        empty = torch.zeros(0, self.problem.prompts.n_prompts, dtype=torch.float64)
        return torch.stack(list(rows)) if rows else empty
