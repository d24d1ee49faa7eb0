"""Faithfulness against size, and two areas that sum it up.

The first edges of a ranking, so many per cent of all, make circuits that lie in one another; dead
ends go where that changes nothing. What is left of them stands on the x axis, and their
faithfulness f on the y axis. The areas are those of the Mechanistic Interpretability Benchmark
(Mueller et al. 2025, arXiv 2504.13151):

    CPR   circuit performance ratio: the area under f; larger is better, and it may exceed 1
    CMD   circuit-model distance: the area of |1 - f|; 0 is best

both by trapezoids between the points. The benchmark's code integrates from 0.1 % on, over the
shares asked for; here the x axis says what is left, and begins with the empty graph: f = 0 at 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.errors import shortened
from circuitfind.evaluation.measured import Measured
from circuitfind.graph import Graph
from circuitfind.notebook import Tabled

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Ranking:
    """All edges of a graph, the most important one first.

    Attributes:
        graph: The graph.
        order: Where the edges stand among the pairs of writers and readers, row by row.
        by: What ranks them: `score`, or `effect` of the edges when they were tested.
    """

    graph: Graph
    order: Int[Tensor, " edge"]
    by: str

    def first(self, n: int) -> Circuit:
        """Keep the first n edges."""
        kept = torch.zeros(self.graph.edge_mask.numel(), dtype=torch.bool)
        kept[self.order[:n]] = True
        return Circuit(self.graph, kept.view_as(self.graph.edge_mask))


def ranked_by_score(scores: EdgeScores, *, signed: bool = False) -> Ranking:
    """Rank edges by the size of their scores, or by their value; those without a score come last.

    Ties stand in the order of `Graph.edges`.
    """
    values = scores.values.double().cpu()
    return _ranking(scores.graph, values if signed else values.abs(), "score")


def ranked_by_effect(circuit: Circuit) -> Ranking:
    """Rank a circuit's edges by their effects, then the edges that it lacks by theirs.

    So a search that decides edge by edge, as ACDC does, gives circuits of all sizes, its own one
    among them; they are not the ones that it would find with other thresholds.
    """
    values = torch.full(circuit.kept.shape, torch.nan, dtype=torch.float64)
    if circuit.effects is not None:
        values = circuit.effects.double().cpu()
    kept = circuit.kept.cpu()
    known = values[~values.isnan()]
    span = float(known.max() - known.min()) + 1 if len(known) else 1.0
    lowest = float(known.min()) - 1 if len(known) else 0.0
    return _ranking(circuit.graph, values.nan_to_num(lowest) + span * 2 * kept, "effect")


def _ranking(graph: Graph, values: Tensor, by: str) -> Ranking:
    # Transposed, so that ties stand in the order of `Graph.edges`: by reader, then by writer.
    places = torch.arange(values.numel()).view_as(values).T[graph.edge_mask.T]
    found = values.nan_to_num(-torch.inf).T[graph.edge_mask.T]
    return Ranking(graph, places[found.argsort(descending=True, stable=True)], by)


@dataclass(frozen=True)
class CurvePoint:
    """A circuit on the curve.

    Attributes:
        asked: Share of all edges that was taken.
        n_edges: Edges that are left without dead ends.
        share: Share of all edges that is left.
        faithfulness: Its faithfulness; None where the metric has no gap.
    """

    asked: float
    n_edges: int
    share: float
    faithfulness: float | None


@dataclass(frozen=True)
class SizeCurve(Tabled):
    """Faithfulness against size.

    Attributes:
        metric: The metric.
        by: What ranked the edges: `score`, `effect` or `threshold`.
        points: The circuits, smallest first.
        cpr: Area under the curve; None where the metric has no gap.
        cmd: Area between the curve and 1.
    """

    metric: str
    by: str
    points: tuple[CurvePoint, ...]
    cpr: float | None
    cmd: float | None

    def __repr__(self) -> str:
        name = shortened(self.metric)[:60]
        return f"<SizeCurve of {name} by {self.by}: {len(self.points)} circuits>"

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the circuits as rows, smallest first."""
        return (asdict(point) for point in self.points)


def size_curve(measured: Measured, ranking: Ranking, shares: Sequence[float] = SHARES) -> SizeCurve:
    """Measure circuits of the first edges of a ranking."""
    prune = measured.problem.pruning_is_free
    taken = [ranking.first(int(share * ranking.graph.n_edges)) for share in shares]
    circuits = [circuit.connected() if prune else circuit for circuit in taken]
    return curve_of(measured, circuits, shares, ranking.by)


def curve_of(
    measured: Measured, circuits: Sequence[Circuit], asked: Sequence[float], by: str
) -> SizeCurve:
    """Measure circuits of several sizes by the problem's own metric."""
    name, n_all = measured.problem.metric.name, measured.problem.graph.n_edges
    masks = [circuit.kept for circuit in circuits]
    found = measured.faithfulness(masks) if measured.scale.has_gap else [None] * len(masks)
    points = sorted(
        (
            CurvePoint(share, circuit.n_edges, circuit.n_edges / n_all, value)
            for share, circuit, value in zip(asked, circuits, found, strict=True)
        ),
        key=lambda point: (point.share, point.asked),
    )
    shares = [point.faithfulness for point in points]
    known = [share for share in shares if share is not None]
    if len(known) < len(shares):
        return SizeCurve(name, by, tuple(points), None, None)
    cpr, cmd = areas([point.share for point in points], known)
    return SizeCurve(name, by, tuple(points), cpr, cmd)


def areas(sizes: Sequence[float], faithfulness: Sequence[float]) -> tuple[float, float]:
    """Return CPR and CMD of a curve that begins with the empty graph, at (0, 0).

    Args:
        sizes: Shares of edges left, ascending.
        faithfulness: What the circuits of these sizes have.
    """
    x, f = np.array([0.0, *sizes]), np.array([0.0, *faithfulness])
    return float(np.trapezoid(f, x)), float(np.trapezoid(np.abs(1 - f), x))
