"""The two kinds of methods, those that score and those that decide step by step, and decisions.

A method is a generator of `Progress`. Decisions are the whole truth about a search: the circuit is
built from them, a run directory is a file of them, and a search resumes by replaying them. A
`StepwiseMethod` decides about one edge after another. A `ScoringMethod` gives every edge a number;
which edges are kept is then asked of a `Selection`.

Fields of a method's options say by their metadata (`THRESHOLD`, `ORDER`, `STEPS`, `SEED`) what else
they are for. Nothing is concluded from their names.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.engine.candidates import Test
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError, quoted
from circuitfind.graph import Graph
from circuitfind.methods.selection import Selection
from circuitfind.progress import Checkpoint, State

Role = Literal["threshold", "order", "seed", "steps"]

THRESHOLD: Mapping[str, Role] = {"role": "threshold"}
"""Marks the option that decides how many edges a stepwise method keeps, the fewer the larger it is.
It is what `--threshold`, `--target-edges` and `--target-faithfulness` set or search for."""

ORDER: Mapping[str, Role] = {"role": "order"}
"""Marks the option that says in which order edges are tested; `random` is one of its values."""

STEPS: Mapping[str, Role] = {"role": "steps"}
"""Marks the option that says how often the same is done again, which takes no more memory."""

SEED: Mapping[str, Role] = {"role": "seed"}
"""Marks the option that fixes all random choices; by default it has the seed of the run."""

Reason = Literal["tested", "group", "dead", "scored"]
"""Why an edge was kept or cut: its own test; the test of all edges into its port at once; because
nothing reads the component that it leads into; or its score, without a test."""


@dataclass(frozen=True)
class Decision:
    """The decision about one edge.

    Attributes:
        edge: The edge's name.
        kept: Whether it is in the circuit.
        reason: On what grounds.
        before: Loss before the edge was cut.
        after: Loss with the edge cut; None if it was not tested.
        effect: Rise of the loss when the edge is cut, in the metric's unit; None if not tested.
        score: The estimate by which the method ranked the edge; None if it gave none.
        error: How far the effect can be off at most, where only bounds on the losses were computed
            and `before` and `after` are their middles; None where they are exact.
    """

    edge: str
    kept: bool
    reason: Reason
    before: float | None = None
    after: float | None = None
    effect: float | None = None
    score: float | None = None
    error: float | None = None

    def turned(self) -> "Decision":
        """Return the opposite decision on the same grounds."""
        # Most edges of a large graph are turned, and `replace` takes ten times as long.
        grounds = self.reason, self.before, self.after, self.effect, self.score, self.error
        return Decision(self.edge, not self.kept, *grounds)


def tested(test: Test) -> Decision:
    """Return the decision about an edge that a test was made of."""
    measured = test.before, test.after, test.effect
    return Decision(test.edge, test.kept, "tested", *measured, error=test.error or None)


@dataclass(frozen=True)
class Progress:
    """Progress of a search.

    Attributes:
        done: Edges decided so far, resumed ones included.
        total: Edges in all.
        decisions: What was decided since the last progress.
        drift: Given with the last progress of an incremental search: how far its state was from
            one computed from scratch.
        checkpoint: Given instead of decisions by methods that decide at their end.
    """

    done: int
    total: int
    decisions: tuple[Decision, ...]
    drift: float | None = None
    checkpoint: Checkpoint | None = None

    def __str__(self) -> str:
        so_far = f"{self.done} of {self.total} edges are decided"
        return so_far if self.checkpoint is None else str(self.checkpoint)


@dataclass(frozen=True)
class NoOptions:
    """The options of a method that has none of its own."""


class Method(ABC):
    """An entry of the table of methods: a `StepwiseMethod` or a `ScoringMethod`.

    Attributes:
        name: What the command line calls it.
        summary: What it does, in a sentence.
        paper: Where it comes from.
        options: The type of its own options, a frozen dataclass.
        selected_by: Which fields of `Selection` it can be given.
        selection: The selection from which a user's own differs.
        knows_moves: Whether it can be asked about moves inside attention (`Graph.moves`).
    """

    name: str
    summary: str
    paper: str
    options: type[Any] = NoOptions
    selected_by: ClassVar[tuple[str, ...]]
    selection: ClassVar[Selection] = Selection()
    knows_moves: ClassVar[bool] = False

    def require_moves(self, options: Mapping[str, Any]) -> None:
        """Refuse moves inside attention, if the method or one of its options cannot tell them.

        Raises:
            MethodError: The message says what can.
        """
        if not self.knows_moves:
            raise MethodError(
                f"the method {quoted(self.name)} cannot tell the moves inside attention apart; "
                "leave out crossing, or choose acdc, hybrid, exact, eap or eap-ig"
            )

    def option_for(self, role: Role) -> str | None:
        """Return the name of the option that is marked so."""
        marked = [item.name for item in fields(self.options) if item.metadata.get("role") == role]
        return marked[0] if marked else None


class StepwiseMethod(Method):
    """A method that decides edge by edge; its circuit holds the edges that it decided to keep."""

    selected_by = ("prune",)

    @abstractmethod
    def run(
        self, engine: IncrementalEngine, options: Any, resume: Sequence[Decision] = ()
    ) -> Iterator[Progress]:
        """Search; decisions passed as `resume` are taken over and not yielded again."""


class ScoringMethod(Method):
    """A method that gives every edge a number, by which edges are chosen afterwards.

    Its decisions hold a score or a measured effect of every edge.

    Attributes:
        says_how_many: Whether the edges that its decisions keep are its own proposal, as many of
            which are chosen where the selection does not say how many.
    """

    selected_by = tuple(item.name for item in fields(Selection))
    says_how_many: ClassVar[bool] = False

    @abstractmethod
    def run(
        self,
        engine: IncrementalEngine,
        options: Any,
        resume: Sequence[Decision] = (),
        state: State | None = None,
    ) -> Iterator[Progress]:
        """Score all edges.

        Args:
            engine: The problem, made ready to cut edges.
            options: The method's own options.
            resume: Decisions of an earlier, interrupted run; taken over and not yielded again.
            state: The state of the last checkpoint of that run.
        """

    def unit(self, engine: IncrementalEngine) -> str:
        """Return the unit of the scores: the metric's, unless a method says otherwise."""
        return engine.problem.metric.unit

    def adapted(self, options: Any, selection: Selection, graph: Graph) -> Any:
        """Return the options where some that were not given follow from the selection."""
        return options

    def scores(self, engine: IncrementalEngine, options: Any) -> EdgeScores:
        """Return the scores of all edges."""
        decisions = [each for step in self.run(engine, options) for each in step.decisions]
        return self.scores_in(engine, circuit_of(engine.graph, decisions))

    def scores_in(self, engine: IncrementalEngine, decided: Circuit) -> EdgeScores:
        """Return the scores that the circuit of the decisions about all edges holds as effects."""
        assert decided.effects is not None
        return EdgeScores(engine.graph, decided.effects, self.unit(engine), self.name)


def circuit_of(graph: Graph, decisions: Sequence[Decision]) -> Circuit:
    """Return the circuit of the edges decided to be kept, with every effect that was measured.

    Where an edge was scored and not measured, its score stands for its effect.
    """
    kept = np.zeros(graph.edge_mask.shape, dtype=bool)
    effects = np.full(kept.shape, np.nan)
    for decision in decisions:
        index = graph.index(decision.edge)
        kept[index] = decision.kept
        value = decision.score if decision.effect is None else decision.effect
        if value is not None:
            effects[index] = value
    return Circuit(graph, torch.from_numpy(kept), torch.from_numpy(effects))


@dataclass(frozen=True)
class Selected:
    """The circuit that a search's decisions amount to.

    Attributes:
        circuit: The circuit, dead ends removed where that is free.
        dead_ends: Names of kept edges that no path from the embedding to the logits uses; removed
            from the circuit if `pruned`.
        pruned: Whether the dead ends were removed.
    """

    circuit: Circuit
    dead_ends: tuple[str, ...]
    pruned: bool


def without_dead_ends(engine: IncrementalEngine, circuit: Circuit, *, prune: bool) -> Selected:
    """Find a circuit's dead ends and remove them where that changes nothing.

    Under resample ablation a component that reads nothing of the clean run writes what it writes
    on the corrupted run, so removing it is free. Under zero and mean ablation it is not: there
    the dead ends stay and are reported.
    """
    connected = circuit.connected()
    dead_ends = tuple(edge.name for edge in circuit.without(connected))
    pruned = prune and engine.problem.pruning_is_free
    return Selected(connected if pruned else circuit, dead_ends, pruned)
