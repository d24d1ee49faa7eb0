"""Exact effects: each edge cut alone in the full graph (leave one out).

The oracle of every approximation, and a first ranking of edges. It does not see edges that stand
in for one another: cutting either of two redundant edges alone changes little.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.state import EngineState
from circuitfind.errors import MethodError
from circuitfind.methods.base import (
    Decision,
    Progress,
    Selection,
    circuit_of,
    without_dead_ends,
)
from circuitfind.methods.order import visits


@dataclass(frozen=True)
class ExactOptions:
    """Settings of the exact method; give one of the two.

    Attributes:
        threshold: Keep the edges whose removal raises the loss by at least this.
        n_edges: Keep this many edges, those with the largest effects in size.
    """

    threshold: float | None = None
    n_edges: int | None = None

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.n_edges is None):
            raise MethodError("the method 'exact' takes either a threshold or a number of edges")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise MethodError(
                f"the threshold is {self.threshold}; give a finite number in the metric's unit"
            )
        if self.n_edges is not None and self.n_edges < 0:
            raise MethodError(f"{self.n_edges} edges cannot be kept; give 0 or more")


class Exact:
    """Leave-one-out effects as an entry of the table of methods."""

    name = "exact"
    summary = "cut each edge alone in the full graph, keep the largest effects"
    paper = "activation patching of single edges; no approximation"
    options = ExactOptions

    def run(
        self, engine: IncrementalEngine, options: ExactOptions, resume: Sequence[Decision] = ()
    ) -> Iterator[Progress]:
        """Measure every edge, yielding after each reader."""
        state = engine.start()
        done, total = 0, engine.graph.n_edges
        for reader, writers in visits(engine.graph, "backward-index", seed=0):
            done += len(writers)
            if done <= len(resume):
                continue
            decisions = list(_measure_all(engine, state, options, (reader, writers)))
            yield Progress(done, total, tuple(decisions))

    def select(
        self, engine: IncrementalEngine, options: ExactOptions, decisions: Sequence[Decision]
    ) -> Selection:
        """Return the edges with the largest effects."""
        circuit = circuit_of(engine.graph, decisions)
        if options.n_edges is not None:
            chosen = effects(circuit, engine.problem.metric.unit).top(options.n_edges)
            circuit = Circuit(circuit.graph, chosen.kept, circuit.effects)
        return without_dead_ends(engine, circuit, prune=True)


def effects(circuit: Circuit, unit: str) -> EdgeScores:
    """Return a circuit's measured effects as scores."""
    values = circuit.effects
    if values is None:
        values = torch.full(circuit.kept.shape, torch.nan)
    return EdgeScores(circuit.graph, values, unit, "exact")


def _measure_all(
    engine: IncrementalEngine,
    state: EngineState,
    options: ExactOptions,
    edges: tuple[int, Sequence[int]],
) -> Iterator[Decision]:
    reader, writers = edges
    before = engine.loss(state)
    for first in range(0, len(writers), engine.most_candidates):
        batch = writers[first : first + engine.most_candidates]
        losses = engine.cut_each(state, reader, batch).losses()
        for writer, after in zip(batch, losses, strict=True):
            name = f"{engine.graph.writers[writer].name}->{engine.graph.readers[reader].name}"
            if not math.isfinite(after):
                raise MethodError(
                    f"the loss became {after} when {name} was cut; choose another metric"
                )
            effect = after - before
            kept = options.threshold is None or effect >= options.threshold
            yield Decision(name, kept, "tested", before, after, effect)
