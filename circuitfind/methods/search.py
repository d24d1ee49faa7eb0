"""Run a method to its end, check what came out, and return it as one value."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.engine.checks import LimitCheck, check_limits
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.graph import Graph
from circuitfind.methods.base import (
    Decision,
    Method,
    Progress,
    ScoringMethod,
    Selected,
    StepwiseMethod,
    circuit_of,
    without_dead_ends,
)
from circuitfind.methods.selection import Selection, chosen
from circuitfind.notebook import Framed
from circuitfind.problem import Problem
from circuitfind.progress import State


@dataclass(frozen=True)
class Found(Framed):
    """Result of a search.

    Attributes:
        engine: The engine that searched, ready to measure the circuit.
        circuit: The circuit.
        decisions: Every decision, in order; what they keep is the circuit with its dead ends.
        dead_ends: Kept edges that no path from the embedding to the logits uses.
        pruned: Whether those were removed from the circuit.
        limits: How exactly the engine reproduced the model, before the search.
        drift: How far the search's last state was from one computed from scratch, relative to
            the norm of the final stream; None where nothing was cut step by step.
        seconds: What the method took, without the checks before and after it.
    """

    engine: IncrementalEngine
    circuit: Circuit
    decisions: tuple[Decision, ...]
    dead_ends: tuple[str, ...]
    pruned: bool
    limits: LimitCheck
    drift: float | None
    seconds: float

    def __repr__(self) -> str:
        return f"<Found {self.circuit!r}, {self.n_tested} edges tested, for {self.problem!r}>"

    def _repr_svg_(self) -> str:
        """Draw the circuit; notebooks call this."""
        return self.circuit._repr_svg_()

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the decisions as rows, in order."""
        return (asdict(decision) for decision in self.decisions)

    @property
    def problem(self) -> Problem:
        """The problem that was searched."""
        return self.engine.problem

    @property
    def graph(self) -> Graph:
        """Its graph."""
        return self.engine.graph

    @property
    def n_tested(self) -> int:
        """Number of edges that were cut and measured."""
        return sum(decision.effect is not None for decision in self.decisions)


def search(
    engine: IncrementalEngine,
    method: Method,
    options: Any,
    selection: Selection | None = None,
    *,
    resume: Sequence[Decision] = (),
    state: State | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Found:
    """Run a method.

    Args:
        engine: The problem, made ready to cut edges.
        method: The method.
        options: Its options.
        selection: How edges are chosen by their scores, and whether dead ends are removed; by
            default as the method does unless told otherwise.
        resume: Decisions of an earlier, interrupted run of the same search.
        state: The state of its last checkpoint, of a method that scores.
        on_progress: Called after each step; the only way out for progress.

    Raises:
        SelfCheckError: The engine does not reproduce the model.
        MethodError: The search failed.
        WorkerError: Its workers failed.
    """
    if engine.graph.moves:
        method.require_moves(vars(options))
    limits = check_limits(engine)
    decisions, drift = list(resume), None
    started = time.monotonic()
    selection = method.selection if selection is None else selection
    with engine.staffed():
        for progress in _steps(engine, method, options, selection, resume, state):
            # A resumed search takes over whole steps only, and repeats one that was cut short.
            decisions[progress.done - len(progress.decisions) :] = progress.decisions
            drift = drift if progress.drift is None else progress.drift
            on_progress(progress)
    circuit = _circuit(engine, method, decisions, selection)
    seconds = time.monotonic() - started
    selected = without_dead_ends(engine, circuit, prune=selection.prune)
    return Found(
        engine,
        selected.circuit,
        _as_selected(engine.graph, decisions, selected),
        selected.dead_ends,
        selected.pruned,
        limits,
        drift,
        seconds,
    )


def _steps(
    engine: IncrementalEngine,
    method: Method,
    options: Any,
    selection: Selection,
    resume: Sequence[Decision],
    state: State | None,
) -> Iterator[Progress]:
    if isinstance(method, ScoringMethod):
        adapted = method.adapted(options, selection, engine.graph)
        return method.run(engine, adapted, resume, state)
    assert isinstance(method, StepwiseMethod)
    return method.run(engine, options, resume)


def _circuit(
    engine: IncrementalEngine, method: Method, decisions: Sequence[Decision], selection: Selection
) -> Circuit:
    """Return the circuit that the decisions keep, or of the edges chosen by their scores."""
    decided = circuit_of(engine.graph, decisions)
    if not isinstance(method, ScoringMethod):
        return decided
    if method.says_how_many and not selection.given:
        selection = replace(selection, n_edges=decided.n_edges)
    scores = method.scores_in(engine, decided)
    return replace(decided, kept=chosen(engine, scores, selection).kept)


def _as_selected(
    graph: Graph, decisions: Sequence[Decision], selected: Selected
) -> tuple[Decision, ...]:
    """Return the decisions with what was chosen among all edges once they were scored."""
    kept = graph.mask_of(selected.dead_ends) | selected.circuit.kept
    chosen = {edge.name for edge in graph.edges(kept)}
    return tuple(
        each if each.kept == (each.edge in chosen) else each.turned() for each in decisions
    )
