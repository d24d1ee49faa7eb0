"""What every method has in common: it decides about edges, one after another, and says so.

A method is a generator of `Progress`. Decisions are the whole truth about a search: the circuit is
built from them, a run directory is a file of them, and a search resumes by replaying them. Methods
that decide about all edges at their end yield checkpoints on the way, and go on from the last one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.graph import Graph
from circuitfind.progress import Checkpoint, State

Reason = Literal["tested", "group", "dead", "scored"]
"""Why an edge was kept or cut: its own test; the test of all edges into its port at once; because
nothing reads the component that it leads into; or its score, without a test."""


@dataclass(frozen=True)
class Decision:
    """What was decided about one edge.

    Attributes:
        edge: The edge's name.
        kept: Whether it is in the circuit.
        reason: On what grounds.
        before: Loss before the edge was cut.
        after: Loss with the edge cut; None if it was not tested.
        effect: Rise of the loss when the edge is cut, in the metric's unit; None if not tested.
        score: The estimate by which the method ranked the edge; None if it gave none.
    """

    edge: str
    kept: bool
    reason: Reason
    before: float | None = None
    after: float | None = None
    effect: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class Progress:
    """How far a search is.

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
class Selection:
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


@runtime_checkable
class Method(Protocol):
    """An entry of the table of methods.

    Attributes:
        name: What the command line calls it.
        summary: What it does, in a sentence.
        paper: Where it comes from.
        options: Its options type, a frozen dataclass.
    """

    name: str
    summary: str
    paper: str
    options: type[Any]

    def run(
        self, engine: IncrementalEngine, options: Any, resume: Sequence[Decision] = ()
    ) -> Iterator[Progress]:
        """Search; decisions passed as `resume` are taken over and not yielded again."""
        ...

    def select(
        self, engine: IncrementalEngine, options: Any, decisions: Sequence[Decision]
    ) -> Selection:
        """Return the circuit that all decisions amount to."""
        ...


@runtime_checkable
class Continuable(Method, Protocol):
    """A method that decides about all edges at its end and can go on from a checkpoint."""

    def continued(
        self, engine: IncrementalEngine, options: Any, state: State
    ) -> Iterator[Progress]:
        """Go on from the state of an earlier checkpoint, to the same decisions."""
        ...


def circuit_of(graph: Graph, decisions: Sequence[Decision]) -> Circuit:
    """Return the circuit of the edges decided to be kept, with every effect that was measured.

    Where an edge was scored and not measured, its score stands for its effect.
    """
    kept = torch.zeros_like(graph.edge_mask)
    effects = torch.full(kept.shape, torch.nan, dtype=torch.float64)
    for decision in decisions:
        index = graph.index(decision.edge)
        kept[index] = decision.kept
        value = decision.score if decision.effect is None else decision.effect
        if value is not None:
            effects[index] = value
    return Circuit(graph, kept, effects)


def without_dead_ends(engine: IncrementalEngine, circuit: Circuit, *, prune: bool) -> Selection:
    """Find a circuit's dead ends and remove them where that changes nothing.

    Under resample ablation a component that reads nothing of the clean run writes what it writes
    on the corrupted run, so removing it is free. Under zero and mean ablation it is not: there
    the dead ends stay and are reported.
    """
    connected = circuit.connected()
    dead_ends = tuple(edge.name for edge in circuit.without(connected))
    pruned = prune and engine.problem.ablation.pruning_is_free
    return Selection(connected if pruned else circuit, dead_ends, pruned)
