"""What methods share that give every edge a score first and choose edges afterwards."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from circuitfind.circuit import EdgeScores
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.methods.base import Decision, Progress, Selection
from circuitfind.methods.selection import Choice, chosen, decisions_of, selected
from circuitfind.progress import Checkpoint, State


class Scored(ABC):
    """A method that scores all edges at its end.

    Attributes:
        name: What the command line calls it.
        summary: What it does, in a sentence.
        paper: Where it comes from.
        options: Its options type, a `Choice` with more fields.
    """

    name: str
    summary: str
    paper: str
    options: type[Any]

    @abstractmethod
    def scoring(
        self, engine: IncrementalEngine, options: Any, state: State | None = None
    ) -> Iterator[Checkpoint]:
        """Yield checkpoints; the last one's state holds the `scores` of all edges.

        Raises:
            MethodError: The metric has no slope that the method could use, or a score is no
                finite number.
        """

    def unit(self, engine: IncrementalEngine) -> str:
        """Return the unit of the scores: the metric's, unless a method says otherwise."""
        return engine.problem.metric.unit

    def scores(self, engine: IncrementalEngine, options: Any) -> EdgeScores:
        """Return the scores alone."""
        state: State = {}
        for checkpoint in self.scoring(engine, options):
            state = checkpoint.state or state
        return EdgeScores(engine.graph, state["scores"], self.unit(engine), self.name)

    def choice(self, engine: IncrementalEngine, options: Any, state: State) -> Choice:
        """Return which edges are to be kept; methods may derive it from what they learned."""
        chosen_by: Choice = options
        return chosen_by

    def run(
        self, engine: IncrementalEngine, options: Any, resume: Sequence[Decision] = ()
    ) -> Iterator[Progress]:
        """Score and choose, unless all decisions are there already."""
        if len(resume) == engine.graph.n_edges:
            yield Progress(engine.graph.n_edges, engine.graph.n_edges, ())
        else:
            yield from self._steps(engine, options, None)

    def continued(
        self, engine: IncrementalEngine, options: Any, state: State
    ) -> Iterator[Progress]:
        """Go on from the state of an earlier checkpoint, to the same decisions."""
        yield from self._steps(engine, options, state)

    def _steps(
        self, engine: IncrementalEngine, options: Any, state: State | None
    ) -> Iterator[Progress]:
        n_edges = engine.graph.n_edges
        latest: State = state or {}
        for checkpoint in self.scoring(engine, options, state):
            latest = checkpoint.state or latest
            yield Progress(0, n_edges, (), checkpoint=checkpoint)
        scores = EdgeScores(engine.graph, latest["scores"], self.unit(engine), self.name)
        circuit = chosen(engine, scores, self.choice(engine, options, latest))
        yield Progress(n_edges, n_edges, decisions_of(engine.graph, scores, circuit))

    def select(
        self, engine: IncrementalEngine, options: Any, decisions: Sequence[Decision]
    ) -> Selection:
        """Return the chosen edges, without dead ends where removing them is free."""
        return selected(engine, decisions, options)
