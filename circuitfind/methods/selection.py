"""From scores to a circuit: so many edges, all above a threshold, or as many as it takes.

Edges are taken by rank (`top`), or by a best-first walk from the logits (`greedy`), which takes no
edge that leads nowhere. For a target, the number of edges is found by bisection; faithfulness is
not monotone in it, so the result is the smallest circuit that was tried and meets the target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.graph import Graph
from circuitfind.limits import require_fields
from circuitfind.methods.base import Decision, Selection, circuit_of, without_dead_ends

Walk = Literal["top", "greedy"]

_GIVEN = ("n_edges", "threshold", "target_faithfulness")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which edges to keep, given a score of each; one of the first three.

    Attributes:
        n_edges: Keep this many edges, the highest scores; dead ends are then removed.
        threshold: Keep every edge whose score is at least this.
        target_faithfulness: Keep as few of the highest scores as reach this faithfulness.
        walk: How edges are taken one after the other: by rank, or by a best-first walk from the
            logits.
        signed: Whether scores count by value; otherwise by size. By default a threshold is
            compared with values and a rank goes by size.
        prune: Remove dead ends afterwards where that changes nothing.
    """

    needs_one: ClassVar[bool] = True
    """Whether one of the first three must be given."""

    n_edges: int | None = None
    threshold: float | None = None
    target_faithfulness: float | None = None
    walk: Walk = "top"
    signed: bool | None = None
    prune: bool = True

    def __post_init__(self) -> None:
        require_fields(self)
        given = [name for name in _GIVEN if getattr(self, name) is not None]
        if len(given) > 1 or (not given and self.needs_one):
            raise MethodError(
                "give one of a number of edges, a threshold and a target faithfulness, not "
                f"{' and '.join(given) or 'none'}"
            )
        if self.walk not in get_args(Walk):
            raise MethodError(
                f"no walk named {self.walk!r}; choose one of {', '.join(get_args(Walk))}"
            )


def chosen(engine: IncrementalEngine, scores: EdgeScores, choice: Choice) -> Circuit:
    """Return the circuit that is asked for; its effects are the scores.

    Raises:
        MethodError: The metric is the same in the full and the empty graph, so that no circuit
            has a faithfulness.
    """
    if choice.threshold is not None:
        signed = choice.signed is None or choice.signed
        return scores.above(choice.threshold, signed=signed)
    if choice.n_edges is not None:
        return first_edges(scores, choice.n_edges, choice)
    assert choice.target_faithfulness is not None
    return _smallest(engine, scores, choice, choice.target_faithfulness)


def first_edges(scores: EdgeScores, n: int, choice: Choice) -> Circuit:
    """Keep the first n edges, by rank or along the walk."""
    take = scores.greedy if choice.walk == "greedy" else scores.top
    return take(n, signed=bool(choice.signed))


def _smallest(
    engine: IncrementalEngine, scores: EdgeScores, choice: Choice, target: float
) -> Circuit:
    """Bisect on the number of edges; all edges reach a faithfulness of 1."""
    best = first_edges(scores, engine.graph.n_edges, choice)
    if share_of(engine, best) < target:
        raise MethodError(
            f"all {engine.graph.n_edges} edges together have a faithfulness of 1, less than the "
            f"target {target}; give at most 1"
        )
    low, high = 0, engine.graph.n_edges
    while high - low > 1:
        middle = (low + high) // 2
        circuit = first_edges(scores, middle, choice)
        if share_of(engine, circuit) >= target:
            best, high = circuit, middle
        else:
            low = middle
    return best


def share_of(engine: IncrementalEngine, circuit: Circuit) -> float:
    """Return a circuit's faithfulness by the problem's own metric.

    Raises:
        MetricError: The metric is the same in the full and the empty graph.
    """
    return engine.faithfulness(circuit.kept)


def selected(engine: IncrementalEngine, decisions: Sequence[Decision], choice: Choice) -> Selection:
    """Return the edges decided to be kept, without dead ends where removing them is free."""
    return without_dead_ends(engine, circuit_of(engine.graph, decisions), prune=choice.prune)


def reselected(
    engine: IncrementalEngine, decisions: Sequence[Decision], choice: Choice, method: str
) -> Selection:
    """Choose among edges by what their decisions say they are worth."""
    circuit = circuit_of(engine.graph, decisions)
    assert circuit.effects is not None
    scores = EdgeScores(engine.graph, circuit.effects, engine.problem.metric.unit, method)
    kept = replace(circuit, kept=chosen(engine, scores, choice).kept)
    return without_dead_ends(engine, kept, prune=choice.prune)


def decisions_of(graph: Graph, scores: EdgeScores, circuit: Circuit) -> tuple[Decision, ...]:
    """Return a decision for every edge, with its score."""
    return tuple(
        Decision(edge.name, bool(circuit.kept[index]), "scored", score=float(scores.values[index]))
        for edge in graph.edges()
        for index in [graph.index(edge)]
    )
