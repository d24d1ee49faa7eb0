"""Exact effects: each edge cut alone in the full graph (leave one out).

The oracle of every approximation, and a first ranking of edges. It does not see edges that stand
in for one another: cutting either of two redundant edges alone changes little.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.engine.incremental import EngineState, IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.methods.base import Decision, Progress, Selection
from circuitfind.methods.order import visits
from circuitfind.methods.selection import Choice, reselected


@dataclass(frozen=True, kw_only=True)
class ExactOptions(Choice):
    """Settings of the exact method: which edges to keep, given all effects."""


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
        """Return the edges with the largest effects, or as many as are asked for."""
        return reselected(engine, decisions, options, self.name)


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
