"""Faithfulness against size, and three areas that sum it up.

The first edges of a ranking, so many per cent of all, make circuits that lie in one another; dead
ends go where that changes nothing. Their size stands on the x axis, and their faithfulness f on the
y axis. The first two areas are those of the Mechanistic Interpretability Benchmark (MIB; Mueller et
al. 2025, arXiv 2504.13151), by trapezoids between the points:

    CPR       circuit performance ratio: the area under f; larger is better, and it may exceed 1
    CMD       circuit-model distance: the area of |1 - f|; 0 is best
    acc-AUC   the share of prompts on which the metric is positive, averaged over the logarithm of
              the share of edges asked for (arXiv 2609.25518)

Most of the weight of CPR and CMD lies on large circuits; acc-AUC weighs every doubling of the size
alike. A `Protocol` says what else is done. Ours puts what is left without dead ends on the x axis,
which begins with the empty graph: f = 0 at 0. MIB's puts the share asked for there, from 0.1 % on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.errors import shortened
from circuitfind.evaluation.measured import Measured
from circuitfind.graph import Graph
from circuitfind.notebook import Tabled

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Protocol:
    """How a curve of circuits of several sizes is drawn and summed up.

    Attributes:
        name: What it is called.
        axis: What the x axis says of a circuit: the share of edges that was `asked` for, or that is
            `left` without dead ends.
        from_empty: Whether the curve begins with the empty graph, at (0, 0).
        shares: The shares of all edges, or components, that are taken; each is rounded down to a
            whole number of them.
    """

    name: str
    axis: Literal["asked", "left"]
    from_empty: bool
    shares: tuple[float, ...] = SHARES


OURS = Protocol("circuitfind", axis="left", from_empty=True)
MIB = Protocol("mib", axis="asked", from_empty=False)


@dataclass(frozen=True)
class Ranking:
    """Edges or components of a graph, the most important one first.

    Attributes:
        graph: The graph.
        order: Edges: where all of them stand among the pairs of writers and readers, row by row.
            Components: the indices of the ranked writers.
        by: What ranks them: `score`, or `effect` of the edges when they were tested.
        of: What is ranked.
        always: The components that are in every circuit, because they have no score.
    """

    graph: Graph
    order: Int[Tensor, " item"]
    by: str
    of: Literal["edges", "components"] = "edges"
    always: tuple[int, ...] = ()

    def first(self, n: int) -> Circuit:
        """Keep the first n edges, or all edges that leave the first n components."""
        mask = self.graph.edge_mask
        if self.of == "components":
            return Circuit(self.graph, mask & self._chosen(len(mask), n)[:, None])
        return Circuit(self.graph, self._chosen(mask.numel(), n).view_as(mask))

    def _chosen(self, size: int, n: int) -> Bool[Tensor, " _size"]:
        chosen = torch.zeros(size, dtype=torch.bool)
        chosen[[*self.order[:n].tolist(), *self.always]] = True
        return chosen


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


def ranked_components(
    graph: Graph, values: Float[Tensor, " writer"], *, signed: bool = False
) -> Ranking:
    """Rank components by the size of their scores, or by their value.

    Those whose score is NaN are in every circuit and are not counted.
    """
    scored = (~values.isnan()).nonzero().flatten()
    ranks = (values if signed else values.abs())[scored]
    order = scored[ranks.argsort(descending=True, stable=True)]
    always = tuple(values.isnan().nonzero().flatten().tolist())
    return Ranking(graph, order, "score", "components", always)


def _ranking(graph: Graph, values: Tensor, by: str) -> Ranking:
    # Transposed, so that ties stand in the order of `Graph.edges`: by reader, then by writer.
    places = torch.arange(values.numel()).view_as(values).T[graph.edge_mask.T]
    found = values.nan_to_num(-torch.inf).T[graph.edge_mask.T]
    return Ranking(graph, places[found.argsort(descending=True, stable=True)], by)


@dataclass(frozen=True)
class CurvePoint:
    """A circuit on the curve.

    Attributes:
        asked: Share of all edges, or components, that was taken.
        n_edges: Edges that are left without dead ends.
        share: Share of all edges that is left.
        faithfulness: Its faithfulness; None where the metric has no gap.
        positive: Share of the prompts on which the metric is positive: the right answer is ahead of
            the wrong one. None where the metric does not compare them.
    """

    asked: float
    n_edges: int
    share: float
    faithfulness: float | None
    positive: float | None = None


@dataclass(frozen=True)
class SizeCurve(Tabled):
    """Faithfulness against size.

    Attributes:
        metric: The metric.
        by: What ranked the edges: `score`, `effect` or `threshold`.
        points: The circuits, smallest first.
        cpr: Area under the curve; None where the metric has no gap.
        cmd: Area between the curve and 1.
        acc_auc: Mean over the logarithm of the share asked for of `CurvePoint.positive`.
        protocol: Name of the protocol.
    """

    metric: str
    by: str
    points: tuple[CurvePoint, ...]
    cpr: float | None
    cmd: float | None
    acc_auc: float | None = None
    protocol: str = OURS.name

    def __repr__(self) -> str:
        name = shortened(self.metric)[:60]
        return f"<SizeCurve of {name} by {self.by}: {len(self.points)} circuits>"

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the circuits as rows, smallest first."""
        return (asdict(point) for point in self.points)


def size_curve(measured: Measured, ranking: Ranking, protocol: Protocol = OURS) -> SizeCurve:
    """Measure circuits of the first edges, or components, of a ranking."""
    prune, n = measured.problem.pruning_is_free, len(ranking.order)
    taken = [ranking.first(int(share * n)) for share in protocol.shares]
    circuits = [circuit.connected() if prune else circuit for circuit in taken]
    return curve_of(measured, circuits, protocol.shares, ranking.by, protocol)


def curve_of(
    measured: Measured,
    circuits: Sequence[Circuit],
    asked: Sequence[float],
    by: str,
    protocol: Protocol = OURS,
) -> SizeCurve:
    """Measure circuits of several sizes by the problem's own metric."""
    metric, n_all = measured.problem.metric, measured.problem.graph.n_edges
    values = measured.own([circuit.kept for circuit in circuits])
    scale, compares = measured.scale, metric.needs == "right and wrong"
    found = [
        CurvePoint(
            share,
            circuit.n_edges,
            circuit.n_edges / n_all,
            float(scale.faithfulness(own.mean())) if scale.has_gap else None,
            float((own > 0).double().mean()) if compares else None,
        )
        for share, circuit, own in zip(asked, circuits, values, strict=True)
    ]
    points = sorted(found, key=lambda point: (_size(point, protocol), point.asked))
    known = [point.faithfulness for point in points if point.faithfulness is not None]
    cpr, cmd = None, None
    if len(known) == len(points):
        sizes = [_size(point, protocol) for point in points]
        cpr, cmd = areas(sizes, known, from_empty=protocol.from_empty)
    return SizeCurve(metric.name, by, tuple(points), cpr, cmd, log_mean(points), protocol.name)


def _size(point: CurvePoint, protocol: Protocol) -> float:
    return point.share if protocol.axis == "left" else point.asked


def areas(
    sizes: Sequence[float], faithfulness: Sequence[float], *, from_empty: bool = True
) -> tuple[float, float]:
    """Return CPR and CMD of a curve.

    Args:
        sizes: Shares of edges, ascending.
        faithfulness: What the circuits of these sizes have.
        from_empty: Whether the curve begins with the empty graph, at (0, 0).
    """
    start = [0.0] * from_empty
    x, f = np.array([*start, *sizes]), np.array([*start, *faithfulness])
    return float(np.trapezoid(f, x)), float(np.trapezoid(np.abs(1 - f), x))


def log_mean(points: Sequence[CurvePoint]) -> float | None:
    """Return the mean of `positive` over the logarithm of the share asked for; acc-AUC.

    None where it is not known, or where fewer than two shares were asked for.
    """
    known = sorted((p.asked, p.positive) for p in points if p.positive is not None and p.asked > 0)
    shares = [share for share, _ in known]
    if len(set(shares)) < 2:
        return None
    x = np.log(shares)
    return float(np.trapezoid([positive for _, positive in known], x) / (x[-1] - x[0]))
