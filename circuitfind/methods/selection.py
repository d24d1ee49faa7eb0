"""Selection of edges by score: a number of them, a threshold, or a target faithfulness.

Edges are taken by rank (`top`), by a best-first walk from the logits (`greedy`), which takes no
edge that leads nowhere, or by an integer programme (`ilp`), whose circuit has no dead end. For a
target, the number of edges is found by bisection; faithfulness is not monotone in it, so the result
is the smallest circuit that was tried and meets the target.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError, quoted
from circuitfind.limits import require_fields
from circuitfind.methods.programme import best_connected

Walk = Literal["top", "greedy", "ilp"]

_GIVEN = ("n_edges", "threshold", "target_faithfulness")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Rule by which edges are kept; at most one of the first three is given.

    Attributes:
        n_edges: Keep this many edges, the highest scores; dead ends are then removed.
        threshold: Keep every edge whose score is at least this.
        target_faithfulness: Keep as few of the highest scores as reach this faithfulness.
        walk: How edges are taken: by rank, by a best-first walk from the logits, or so that their
            scores add up to most and none is a dead end.
        signed: Whether scores count by value; otherwise by size. By default a threshold is
            compared with values and a rank is by size.
        prune: Remove dead ends afterwards where that changes nothing.
    """

    n_edges: int | None = None
    threshold: float | None = None
    target_faithfulness: float | None = None
    walk: Walk = "top"
    signed: bool | None = None
    prune: bool = True

    def __post_init__(self) -> None:
        require_fields(self)
        if len(self.given) > 1:
            raise MethodError(
                "give one of a number of edges, a threshold and a target faithfulness, not "
                f"{' and '.join(self.given)}"
            )
        if self.walk not in get_args(Walk):
            raise MethodError(
                f"no walk named {quoted(self.walk)}; choose one of {', '.join(get_args(Walk))}"
            )

    @property
    def given(self) -> list[str]:
        """Names of the number, the threshold and the target that are given."""
        return [name for name in _GIVEN if getattr(self, name) is not None]


def chosen(engine: IncrementalEngine, scores: EdgeScores, selection: Selection) -> Circuit:
    """Return the circuit that is asked for; its effects are the scores.

    Raises:
        MethodError: No number, threshold or target is given, or the target cannot be reached.
        MetricError: A target is given, and the metric is the same in the full and the empty graph,
            so that no circuit has a faithfulness.
    """
    if selection.threshold is not None:
        signed = selection.signed is None or selection.signed
        return scores.above(selection.threshold, signed=signed)
    if selection.n_edges is not None:
        return _first_edges(scores, selection.n_edges, selection)
    if selection.target_faithfulness is not None:
        return smallest(scores, selection, partial(share_of, engine))
    raise MethodError(
        "give one of a number of edges, a threshold and a target faithfulness, not none"
    )


def _first_edges(scores: EdgeScores, n: int, selection: Selection) -> Circuit:
    """Keep n edges, by rank, along the walk or by an integer programme."""
    takes: dict[Walk, Callable[..., Circuit]] = {
        "top": scores.top,
        "greedy": scores.greedy,
        "ilp": partial(best_connected, scores),
    }
    return takes[selection.walk](n, signed=bool(selection.signed))


def smallest(
    scores: EdgeScores, selection: Selection, share: Callable[[Circuit], float]
) -> Circuit:
    """Return as few of the highest scores as reach the target; all edges reach 1.

    Args:
        scores: The scores.
        selection: The target, and how edges are taken.
        share: Measures a circuit's faithfulness.

    Raises:
        MethodError: The target is more than all edges reach.
    """
    target, n_edges = selection.target_faithfulness, scores.graph.n_edges
    assert target is not None
    best = _first_edges(scores, n_edges, selection)
    if share(best) < target:
        raise MethodError(
            f"all {n_edges} edges together have a faithfulness of 1, less than the "
            f"target {target}; give at most 1"
        )
    low, high = 0, n_edges
    while high - low > 1:
        middle = (low + high) // 2
        circuit = _first_edges(scores, middle, selection)
        if share(circuit) >= target:
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
