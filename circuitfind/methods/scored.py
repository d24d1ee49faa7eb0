"""Common part of all methods that score edges: select edges by score, and record decisions."""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from circuitfind.circuit import EdgeScores
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.methods.base import Decision, Progress, ScoringMethod
from circuitfind.progress import Checkpoint, State


class Scored(ScoringMethod):
    """A method that scores all edges at its end, with checkpoints on the way."""

    @abstractmethod
    def scoring(
        self, engine: IncrementalEngine, options: Any, state: State | None = None
    ) -> Iterator[Checkpoint]:
        """Yield checkpoints; the last one's state holds the `scores` of all edges.

        A method that `says_how_many` puts that number into the same state, as `expected`.

        Raises:
            MethodError: The metric has no slope that the method could use, or a score is not a
                finite number.
        """

    def scores(self, engine: IncrementalEngine, options: Any) -> EdgeScores:
        """Return the scores of all edges."""
        (last,) = deque(self.scoring(engine, options), maxlen=1)
        assert last.state is not None
        return self._scores(engine, last.state)

    def run(
        self,
        engine: IncrementalEngine,
        options: Any,
        resume: Sequence[Decision] = (),
        state: State | None = None,
    ) -> Iterator[Progress]:
        """Score, unless all decisions are made already."""
        n_edges = engine.graph.n_edges
        if len(resume) == n_edges:
            yield Progress(n_edges, n_edges, ())
            return
        latest: State = state or {}
        for checkpoint in self.scoring(engine, options, state):
            latest = checkpoint.state or latest
            yield Progress(0, n_edges, (), checkpoint=checkpoint)
        scores = self._scores(engine, latest)
        expected = latest["expected"] if self.says_how_many else None
        yield Progress(n_edges, n_edges, _decisions(scores, expected))

    def _scores(self, engine: IncrementalEngine, state: State) -> EdgeScores:
        return EdgeScores(engine.graph, state["scores"], self.unit(engine), self.name)


def _decisions(scores: EdgeScores, expected: torch.Tensor | None) -> tuple[Decision, ...]:
    """Return a decision about every edge, with its score.

    Args:
        scores: The scores.
        expected: How many edges are kept, those with the highest scores; by default all.
    """
    graph = scores.graph
    kept = graph.edge_mask if expected is None else scores.top(round(float(expected))).kept
    edges = graph.edge_mask.T
    values = (each.T[edges].tolist() for each in (kept, scores.values))
    return tuple(
        Decision(edge.name, is_kept, "scored", score=score)
        for edge, is_kept, score in zip(graph.edges(), *values, strict=True)
    )
