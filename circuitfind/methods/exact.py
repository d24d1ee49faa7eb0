"""Exact effects: each edge cut alone in the full graph (leave one out).

The oracle of every approximation, and a first ranking of edges. It does not see edges that stand
in for one another: cutting either of two redundant edges alone changes little.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from circuitfind.circuit import EdgeScores
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.methods.base import Decision, NoOptions, Progress, ScoringMethod, tested
from circuitfind.methods.order import visits
from circuitfind.progress import State


class Exact(ScoringMethod):
    """Leave-one-out effects as an entry of the table of methods."""

    name = "exact"
    summary = "cut each edge alone in the full graph, keep the largest effects"
    paper = "activation patching of single edges; no approximation"
    knows_moves = True

    def run(
        self,
        engine: IncrementalEngine,
        options: NoOptions,
        resume: Sequence[Decision] = (),
        state: State | None = None,
    ) -> Iterator[Progress]:
        """Measure every edge, yielding after each reader."""
        full = engine.start()
        done, total = 0, engine.graph.n_edges
        for reader, writers in visits(engine.graph, "backward-index", seed=0):
            done += len(writers)
            if done <= len(resume):
                continue
            # Kept or cut is said once all effects are known.
            tests = engine.tests_alone(full, reader, writers)
            decisions = tuple(replace(tested(test), kept=True) for test in tests)
            yield Progress(done, total, decisions)


def sampled_effects(engine: IncrementalEngine, n_edges: int | None, seed: int) -> EdgeScores:
    """Return the effects of some edges drawn at random, each cut alone; NaN for the others.

    Args:
        engine: The problem, made ready to cut edges.
        n_edges: How many edges; None measures all.
        seed: Fixes which.
    """
    graph, full = engine.graph, engine.start()
    edges = graph.edge_mask.nonzero()
    drawn = torch.randperm(len(edges), generator=torch.Generator().manual_seed(seed))
    wanted = torch.zeros_like(graph.edge_mask)
    wanted[tuple(edges[drawn[:n_edges]].T)] = True
    values = torch.full(wanted.shape, torch.nan, dtype=torch.float64)
    for reader, writers in visits(graph, "backward-index", seed=0):
        some = [writer for writer in writers if wanted[writer, reader]]
        effects = [test.effect for test in engine.tests_alone(full, reader, some)]
        values[some, reader] = torch.tensor(effects, dtype=torch.float64)
    return EdgeScores(graph, values, engine.problem.metric.unit, Exact.name)
