"""The search for families of prompts that share a circuit.

1. The edges are scored for each prompt alone.
2. The prompts are clustered by these scores; a test says whether one cluster is enough
   (`comparison.clusters`).
3. Each family has a circuit: as few edges, by their mean score on its prompts, as reach the target
   faithfulness on these. The pooled circuit is chosen in the same way for all prompts.
4. Every circuit, the union of those of the families and the run's own are measured on each family:
   on held-out prompts where there are any, each counted to the family with the nearest centre.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.circuit import Circuit, EdgeScores, require_same_graph
from circuitfind.comparison.attributes import attributes_of, text_of
from circuitfind.comparison.clusters import (
    FEWEST,
    MOST,
    Labels,
    Vectors,
    clusters,
    independent,
    nearest,
    one_cluster_test,
    scaled,
)
from circuitfind.comparison.families import LEVEL, Families, Family, Share, explained, name_of
from circuitfind.directories.families import FamiliesConfig
from circuitfind.errors import PromptError
from circuitfind.evaluation.measured import Mask, Measured
from circuitfind.evaluation.scorecard import measurement
from circuitfind.graph import Graph
from circuitfind.methods.selection import Selection, Walk, smallest
from circuitfind.methods.shortlist import EXACT, scores_by_prompt
from circuitfind.methods.slopes import require_finite_scores
from circuitfind.metrics import Scale
from circuitfind.problem import HasProblem

Scores = Float[Tensor, "prompt edge"]

WALK: Walk = "greedy"
ALL, UNION, POOLED, FOUND = "all", "union", "pooled", "found"


@dataclass(frozen=True)
class Split:
    """Prompts in families.

    Attributes:
        measured: Measures circuits on the prompts.
        scores: Of the graph's edges, for each prompt.
        labels: The number of each prompt's family.
        names: What the families are called.
    """

    measured: Measured
    scores: Scores
    labels: Labels
    names: tuple[str, ...]

    @property
    def groups(self) -> dict[str, list[int]]:
        """The prompts of each family, and all of them."""
        numbers = range(len(self.names))
        rows = [np.flatnonzero(self.labels == number).tolist() for number in numbers]
        return {**dict(zip(self.names, rows, strict=True)), ALL: list(range(len(self.labels)))}

    def circuit(self, rows: list[int], target: float) -> Circuit:
        """Return the smallest circuit found to reach a target on some prompts; see `smallest`.

        Edges are taken by their mean scores there. It has none where there is nothing to explain:
        the full and the empty graph have the same metric.
        """
        problem = self.measured.problem
        values = _table(problem.graph, self.scores[rows].mean(0))
        full, empty = (limit[problem.metric.name][0] for limit in self.measured.limits)
        scale = Scale(float(full[rows].mean()), float(empty[rows].mean()))
        if not scale.has_gap:
            return Circuit(problem.graph, torch.zeros_like(problem.graph.edge_mask))

        def share(circuit: Circuit) -> float:
            (found,) = self.measured.own([circuit.kept])
            return float(scale.faithfulness(found[rows].mean()))

        scores = EdgeScores(problem.graph, values, problem.metric.unit, "")
        found = smallest(scores, Selection(target_faithfulness=target, walk=WALK), share)
        return found.connected() if problem.pruning_is_free else found

    def shares(self, circuits: Mapping[str, Circuit]) -> Iterator[Share]:
        """Yield the faithfulness of each circuit on each family and on all prompts."""
        metric = self.measured.problem.metric
        full, empty = (limit[metric.name][0] for limit in self.measured.limits)
        values = self.measured.own([each.kept for each in circuits.values()])
        for (name, circuit), own in zip(circuits.items(), values, strict=True):
            for on, rows in self.groups.items():
                found = measurement(metric, full[rows], own[rows], empty[rows]) if rows else None
                ends = (None,) * 3 if found is None else (found.faithfulness, found.low, found.high)
                yield Share(name, circuit.n_edges, on, *ends)


@dataclass
class Search:
    """A search for families of prompts.

    Attributes:
        circuit: The circuit that was found on all of them.
        measured: Measures on the prompts of the search, all different.
        held_out: Measures on other prompts, where there are any.
        settings: How to search.
        numbers: What each of the prompts is among those of the search.
    """

    circuit: Circuit
    measured: Measured
    held_out: Measured | None
    settings: FamiliesConfig
    numbers: Sequence[int]

    def __post_init__(self) -> None:
        require_same_graph(self.circuit.graph, self.measured.problem.graph)
        n, wanted = self.measured.problem.prompts.n_prompts, self.settings.families or 1
        if n < max(FEWEST, wanted):
            fewer = ", or ask for fewer families" if n >= FEWEST else ""
            raise PromptError(
                f"there are {n} different prompts; families need at least {max(FEWEST, wanted)}; "
                f"search on more (--prompts){fewer}"
            )

    def run(self) -> tuple[Families, dict[str, Circuit]]:
        """Return the figures, and the circuits of the families and of their union."""
        started, settings = time.monotonic(), self.settings
        scores = scores_of(self.measured, settings.ranked_by)
        vectors, units = scaled(scores.numpy()), self._units()
        tested = one_cluster_test(scores.numpy(), units, settings.seed)
        labels, silhouette = clusters(vectors, self._how_many(tested.p_value))
        names = tuple(map(name_of, range(int(labels.max()) + 1)))
        own = other = Split(self.measured, scores, labels, names)
        if self.held_out is not None:
            found = scores_of(self.held_out, settings.ranked_by)
            near = nearest(vectors, labels, scaled(found.numpy()))
            other = Split(self.held_out, found, near, names)
        target = settings.target_faithfulness
        circuits = {name: own.circuit(own.groups[name], target) for name in names}
        pooled = {POOLED: own.circuit(own.groups[ALL], target)} if len(names) > 1 else {}
        kept = torch.stack([each.kept for each in circuits.values()])
        union = {UNION: replace(circuits[names[0]], kept=kept.any(0), effects=None)}
        problem = self.measured.problem
        known = attributes_of(problem.prompts, problem.model.vocabulary) if pooled else {}
        compared = circuits | (union if pooled else {}) | pooled | {FOUND: self.circuit}
        figures = Families(
            n_prompts=problem.prompts.n_prompts,
            ranked_by=settings.ranked_by,
            target=target,
            tested=_counted(units),
            index=tested.index,
            p_value=tested.p_value,
            gaussian_p_value=tested.gaussian_p_value,
            asked=settings.families,
            silhouette=silhouette if pooled else None,
            families=tuple(self._family(name, circuits, own, other, vectors) for name in names),
            attributes=explained(labels, known, units, settings.seed),
            shared=_edges(circuits[names[0]], kept.all(0)),
            measured_on="discovery" if self.held_out is None else "held-out",
            shares=tuple(other.shares(compared)),
            seconds=time.monotonic() - started,
        )
        return figures, circuits | (union if pooled else {})

    def _units(self) -> Labels:
        """Return which independent draw each prompt belongs to."""
        prompts = self.measured.problem.prompts
        template = prompts.template
        return independent(
            None if template is None else template[:: prompts.n_runs].cpu().numpy(),
            prompts.n_prompts,
        )

    def _how_many(self, p_value: float) -> Sequence[int]:
        """Return how many families there may be."""
        if self.settings.families is not None:
            return [self.settings.families]
        most = min(MOST, self.measured.problem.prompts.n_prompts - 1)
        return range(2, most + 1) if p_value < LEVEL else [1]

    def _family(
        self, name: str, circuits: Mapping[str, Circuit], own: Split, other: Split, vectors: Vectors
    ) -> Family:
        problem, rows = self.measured.problem, own.groups[name]
        prompts = problem.prompts
        nearest_row = rows[int((vectors[rows] @ vectors[rows].mean(0)).argmax())]
        n_have = torch.stack([each.kept for each in circuits.values()]).sum(0)
        alone = circuits[name].kept & (n_have == 1) & (n_have < len(circuits))
        return Family(
            name,
            tuple(self.numbers[row] for row in rows),
            len(other.groups[name]),
            text_of(prompts, nearest_row, problem.model.vocabulary),
            _edges(circuits[name], circuits[name].kept),
            _edges(circuits[name], alone),
            tuple(prompts.sources[row * prompts.n_runs] for row in rows) if prompts.sources else (),
        )


def _counted(units: Labels) -> str:
    n = len(set(units.tolist()))
    return f"{n} {'prompts' if n == len(units) else 'templates'}"


def scores_of(measured: Measured, ranked_by: str) -> Scores:
    """Return the score of each edge for each prompt: positive where cutting it raises the loss.

    Raises:
        MethodError: The metric's gradient says nothing, or a score became NaN or infinite.
    """
    if ranked_by == EXACT:
        found = _effects(measured)
    else:
        compute = partial(scores_by_prompt, measured.engine, ranked_by)
        found = measured.by_prompt(ranked_by, compute)
    # Of their squares, which the length of a prompt's scores is made of.
    graph = measured.problem.graph
    require_finite_scores(graph, _table(graph, found.square().sum(0)))
    return found


def _effects(measured: Measured) -> Scores:
    """Return how much the loss of each prompt rises when an edge is cut alone."""
    everything = measured.problem.graph.edge_mask
    changes = measured.without_each_edge(everything) - measured.own([everything])
    by_column = torch.zeros(len(changes[0]), *everything.shape, dtype=torch.float64)
    # In the order of `without_each_edge`: reader by reader.
    by_column.mT[:, everything.T.cpu()] = measured.problem.metric.sign * changes.T
    return by_column[:, everything.cpu()]


def _table(graph: Graph, values: Float[Tensor, " edge"]) -> Float[Tensor, "writer reader"]:
    table = torch.zeros(graph.edge_mask.shape, dtype=torch.float64)
    table[graph.edge_mask.cpu()] = values
    return table


def distinct(asked: HasProblem) -> tuple[HasProblem, Sequence[int]]:
    """Return a question without prompts that repeat others, and the numbers of those it has.

    Equal prompts would be a family.
    """
    prompts, numbers = asked.problem.prompts, asked.problem.prompts.distinct
    if len(numbers) == prompts.n_prompts:
        return asked, numbers
    return replace(asked.problem, prompts=prompts.select(prompts.rows_of(numbers))), numbers


def _edges(circuit: Circuit, kept: Mask) -> tuple[str, ...]:
    return tuple(edge.name for edge in circuit.graph.edges(kept))
