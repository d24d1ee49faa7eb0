"""ROC curves of edges and components against a known circuit.

A ROC curve goes through a point (false positive rate, true positive rate) for every circuit that
a method gives, by threshold or by score. Its area is taken pessimistically, as in the ACDC paper
(Conmy et al. 2023, arXiv 2304.14997): over the Pareto front of the points with (0, 0) and (1, 1),
level from each point to the next, since no circuit is known in between. 0.5 is no chance value
here: a single point of a random circuit gives less.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.circuit import Circuit, EdgeScores, require_same_graph
from circuitfind.errors import MethodError
from circuitfind.graph import Graph

Point = tuple[float, float]
"""A false and a true positive rate."""

Level = Literal["edges", "components"]


@dataclass(frozen=True)
class Truth:
    """A known circuit.

    Attributes:
        name: What it is, or where it comes from.
        graph: The graph that it is part of.
        components: The components of it that write.
        edges: Its edges; None where only its components are known.
    """

    name: str
    graph: Graph
    components: frozenset[str]
    edges: Bool[Tensor, "writer reader"] | None = None

    def __post_init__(self) -> None:
        unknown = sorted(self.components - set(self.graph.writer_index))
        if unknown:
            raise MethodError(
                f"the known circuit {self.name} has the component {unknown[0]!r} and this model "
                f"has none of that name; its last one is {self.graph.writers[-1].name!r}"
            )


@dataclass(frozen=True)
class RocCurve:
    """ROC curve of edges or of components.

    Attributes:
        of: Edges or components.
        by: What gave the points: `circuit`, `threshold`, `score` or `effect`.
        points: False and true positive rates, sorted.
        area: The pessimistic area.
        n_true: How many the known circuit has.
        n_all: How many there are.
        precision: Of the evaluated circuit: the share of its own that is in the known circuit;
            None if it is empty.
        recall: The share of the known circuit that it has.
    """

    of: Level
    by: str
    points: tuple[Point, ...]
    area: float
    n_true: int
    n_all: int
    precision: float | None
    recall: float

    @property
    def best(self) -> tuple[float, float] | None:
        """Precision and recall of the point at which their harmonic mean is largest.

        None where no point finds anything true. Which point that is can only be told by the known
        circuit, so this is what a method could do with the right size or threshold.
        """
        found = [
            (true / (true + wrong), true / self.n_true)
            for false_rate, true_rate in self.points
            if (true := true_rate * self.n_true)
            for wrong in [false_rate * (self.n_all - self.n_true)]
        ]
        return max(found, key=lambda point: point[0] * point[1] / sum(point), default=None)


def truth_of(circuit: Circuit, name: str) -> Truth:
    """Take a circuit for the truth."""
    return Truth(name, circuit.graph, writing_components(circuit), circuit.kept)


def writing_components(circuit: Circuit) -> frozenset[str]:
    """Return the components that write or read along a kept edge, the logits not counted.

    A shared key/value head counts as the heads that compute with it.
    """
    touched = {edge.writer.component for edge in circuit.edges}
    for edge in circuit.edges:
        touched.update(writer.component for writer in circuit.graph.fed_by(edge.reader))
    return frozenset(touched & set(circuit.graph.outer.writer_index))


def roc_curves(
    truth: Truth,
    circuit: Circuit,
    *,
    others: Sequence[Circuit] = (),
    scores: EdgeScores | None = None,
    by: str = "circuit",
) -> tuple[RocCurve, ...]:
    """Compare a circuit with a known one: by edges if those are known, and by components.

    Args:
        truth: The known circuit.
        circuit: The circuit whose precision and recall are given.
        others: More circuits of the same method, for more points.
        scores: What the method ranks edges by: every score then gives a point. Larger sizes of
            scores come first; a score of 0, or none, says nothing.
        by: What gave the points.

    Raises:
        GraphError: The circuits belong to different graphs.
        MethodError: The known circuit holds nothing, or everything. Where it holds all components,
            only edges are compared.
    """
    require_same_graph(circuit.graph, truth.graph)
    levels: tuple[Level, ...] = ("components",) if truth.edges is None else ("edges", "components")
    telling = [level for level in levels if 0 < int(_true(truth, level).sum()) < _n(truth, level)]
    if not telling:
        raise MethodError(
            f"the known circuit {truth.name} holds nothing, or everything, so nothing can be told "
            "apart; give another one"
        )
    return tuple(_curve(level, truth, circuit, others, scores, by) for level in telling)


def _n(truth: Truth, level: Level) -> int:
    return truth.graph.n_edges if level == "edges" else truth.graph.n_components


def _curve(
    level: Level,
    truth: Truth,
    circuit: Circuit,
    others: Sequence[Circuit],
    scores: EdgeScores | None,
    by: str,
) -> RocCurve:
    true = _true(truth, level)
    if scores is None:
        points = [_rates(_found(each, level), true) for each in (circuit, *others)]
    else:
        points = ranked_points(_ranks(scores, level), true)
    found = _found(circuit, level)
    hits, n_found = int((found & true).sum()), int(found.sum())
    return RocCurve(
        of=level,
        by=by,
        points=tuple(sorted(points)),
        area=step_area(points),
        n_true=int(true.sum()),
        n_all=len(true),
        precision=hits / n_found if n_found else None,
        recall=hits / int(true.sum()),
    )


def _true(truth: Truth, level: Level) -> Bool[Tensor, " item"]:
    if level == "edges":
        assert truth.edges is not None
        return truth.edges.cpu()[truth.graph.edge_mask]
    writers = truth.graph.merged.writers
    return torch.tensor([writer.name in truth.components for writer in writers])


def _found(circuit: Circuit, level: Level) -> Bool[Tensor, " item"]:
    if level == "edges":
        return circuit.kept.cpu()[circuit.graph.edge_mask]
    found = writing_components(circuit)
    return torch.tensor([writer.name in found for writer in circuit.graph.merged.writers])


def _ranks(scores: EdgeScores, level: Level) -> Float[Tensor, " item"]:
    """Return the size of every edge's score, or of the largest that touches each component."""
    graph = scores.graph
    sizes = scores.values.cpu().double().abs().nan_to_num(0).masked_fill(~graph.edge_mask, 0)
    if level == "edges":
        return sizes[graph.edge_mask]
    sizes = sizes[tuple(map(slice, graph.n_outer))]
    best = sizes.amax(dim=1)
    for reader, writers in enumerate(graph.outer.feeds):
        for writer in writers:
            best[writer] = torch.maximum(best[writer], sizes[:, reader].max())
    return best


def _rates(found: Bool[Tensor, " item"], true: Bool[Tensor, " item"]) -> Point:
    return (
        float((found & ~true).sum() / (~true).sum()),
        float((found & true).sum() / true.sum()),
    )


def ranked_points(sizes: Float[Tensor, " item"], true: Bool[Tensor, " item"]) -> list[Point]:
    """Return the rates of keeping everything of at least each size above 0."""
    order = sizes.argsort(descending=True, stable=True)
    ranked, hit = sizes[order], true[order].double()
    ends = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool)]) & (ranked > 0)
    hits, misses = hit.cumsum(0)[ends], (1 - hit).cumsum(0)[ends]
    return list(zip((misses / (~true).sum()).tolist(), (hits / true.sum()).tolist(), strict=True))


def step_area(points: Iterable[Point]) -> float:
    """Return the pessimistic area under a ROC curve.

    From each false positive rate the curve stays at the best true positive rate so far until the
    next; (0, 0) and (1, 1) are always on it.
    """
    area, before, best = 0.0, 0.0, 0.0
    for false_rate, true_rate in sorted([*points, (1.0, 1.0)]):
        area += (false_rate - before) * best
        before, best = false_rate, max(best, true_rate)
    return area
