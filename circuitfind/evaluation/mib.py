"""The circuit track of the Mechanistic Interpretability Benchmark (MIB), by its own protocol.

Mueller et al. 2025, arXiv 2504.13151; code at https://github.com/hannamw/MIB-circuit-track.

1. Every query head reads its own query, key and value, so a model with shared key/value heads is
   taken ungrouped (`models.ungrouped`). What a cut edge carries comes from the corrupted run.
2. The n edges of the highest scores make a circuit, for ten shares of all edges, each rounded down;
   components to which or from which no edge leads go, until none is left.
3. f = (m(C) - m(empty)) / (m(full) - m(empty)), m being the mean logit difference. The empty graph
   is the corrupted run with the clean answers, and the full graph the clean run.
4. CPR is the area under f and CMD that of |1 - f|, over the shares asked for, from 0.1 % to 100 %.

Edges are ranked by value (`signed`) and by size (`absolute`). The benchmark's tables have CPR from
signed rankings and CMD from absolute ones; a single ranking has both numbers in one curve. By
component instead of by edge, a component of the first n keeps all edges that lead out of it.

InterpBench compares with a known circuit instead: the first n edges of a best-first walk from the
logits, n rounded up, give the rates of ten points, between which the area is taken by trapezoids.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.circuit import EdgeScores, require_same_graph
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.normed_pass import NormedEngine
from circuitfind.errors import GraphError, MethodError
from circuitfind.evaluation.measured import Measured
from circuitfind.evaluation.passes import PassLog
from circuitfind.evaluation.roc import Truth
from circuitfind.evaluation.size_curve import (
    MIB,
    Ranking,
    SizeCurve,
    ranked_by_score,
    ranked_components,
    size_curve,
)
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph
from circuitfind.metrics import LOGIT_DIFFERENCE
from circuitfind.models.raw_heads import has_raw_heads, with_raw_heads
from circuitfind.models.ungrouped import ungrouped
from circuitfind.problem import HasProblem, Problem, as_problem, assemble


@dataclass(frozen=True)
class MibScores:
    """Scores by which edges, or components, are ranked for MIB.

    Attributes:
        edges: A score for each edge of the ungrouped graph; an edge without one counts as 0.
        components: A score for each component that writes; NaN for one that stays in every circuit.
            None ranks edges.
    """

    edges: EdgeScores
    components: Float[Tensor, " writer"] | None = None

    def ranking(self, *, signed: bool) -> Ranking:
        """Return the ranking by value, or by size."""
        scores = self.edges
        if self.components is not None:
            return ranked_components(scores.graph, self.components, signed=signed)
        known = EdgeScores(scores.graph, scores.values.nan_to_num(0), scores.unit, scores.method)
        return ranked_by_score(known, signed=signed)


@dataclass(frozen=True)
class MibResult:
    """What MIB says of a ranking.

    Attributes:
        level: Whether edges or components are ranked.
        n_ranked: How many of them.
        n_edges: Edges of the ungrouped graph.
        n_prompts: Pairs of prompts on which circuits were measured.
        full: Mean logit difference of the clean run.
        empty: Of the corrupted run, with the clean answers.
        signed: The curve of the ranking by value.
        absolute: The curve of the ranking by size.
        auroc: Area under InterpBench's ROC curve, where a circuit is known.
        against: Name of that circuit.
    """

    level: str
    n_ranked: int
    n_edges: int
    n_prompts: int
    full: float
    empty: float
    signed: SizeCurve
    absolute: SizeCurve
    auroc: float | None = None
    against: str | None = None

    @property
    def cpr(self) -> float | None:
        """CPR as the benchmark's tables have it: that of the ranking by value."""
        return self.signed.cpr

    @property
    def cmd(self) -> float | None:
        """CMD as the benchmark's tables have it: that of the ranking by size."""
        return self.absolute.cmd


def mib_problem(asked: HasProblem) -> Problem:
    """Return a question as MIB asks it: ungrouped, by logit difference, under resample ablation.

    Where the sum of a layer's heads is normed before it is added (Gemma 2), edges are cut before
    that norm, so that only `mib` can measure it.

    Raises:
        CircuitfindError: Its prompts have no right and wrong answers, or line up by spans only.
    """
    problem = scoring_problem(asked)
    model = with_raw_heads(problem.model)
    return assemble(
        model, problem.prompts, LOGIT_DIFFERENCE, "resample", graph=heads_and_mlps(model.shape)
    )


def scoring_problem(asked: HasProblem) -> Problem:
    """Return the same question for methods that score edges, with heads as they always write."""
    problem = as_problem(asked)
    problem.prompts.require_one_length("MIB")
    model = ungrouped(problem.model)
    graph = heads_and_mlps(model.shape)
    return assemble(model, problem.prompts, LOGIT_DIFFERENCE, "resample", graph=graph)


def ungrouped_scores(scores: EdgeScores, graph: Graph) -> EdgeScores:
    """Return scores for the edges of an ungrouped graph.

    An edge into what several query heads share, or into q, k and v at once, stands for as many
    ungrouped edges. Each has an equal part of its score, so that the sum stays the same.

    Args:
        scores: Scores of the edges of the grouped graph, or of the ungrouped one.
        graph: The ungrouped graph.

    Raises:
        MethodError: The scores are of another model, or have writers that MIB does not know.
    """
    own = scores.graph
    if own == graph:
        return scores
    here, there = (heads_and_mlps(each.shape.heads_apart) for each in (graph, own))
    try:
        require_same_graph(there, here)
    except GraphError as error:
        raise MethodError(f"these scores cannot be used: {error}") from None
    if [writer.name for writer in own.writers] != [writer.name for writer in graph.writers]:
        raise MethodError(
            "MIB knows one embedding, heads and MLPs, and these scores have other writers; search "
            "without neurons, latents and --split-embedding"
        )
    if own.places:
        raise MethodError("MIB knows no places, and these scores have some; search without them")
    columns, parts = [], []
    for reader in graph.readers:
        column = own.reader_index.get(reader.name)
        if column is None:
            assert reader.port in ("q", "k", "v") and reader.layer is not None
            column = own.input_of(reader.layer, reader.index or 0, reader.port)
        columns.append(column)
    for column in columns:
        parts.append(columns.count(column))
    values = scores.values.cpu()[:, columns] / torch.tensor(parts)
    return EdgeScores(graph, values, scores.unit, scores.method)


def component_scores(scores: EdgeScores) -> Float[Tensor, " writer"]:
    """Return the sum of the scores of the edges that lead out of each component.

    By `eap` and `eap-ig` it is the attribution of the component itself: its output is added to the
    stream, so the slope of the loss there is the sum of the slopes at all readers.
    """
    return scores.values.nan_to_num(0).where(scores.graph.edge_mask, 0).sum(dim=1)


def mib(
    asked: HasProblem,
    scores: MibScores,
    *,
    truth: Truth | None = None,
    log: PassLog | None = None,
    memory: int | None = None,
    on_pass: Callable[[], None] = lambda: None,
) -> MibResult:
    """Measure the circuits of ten sizes of a ranking by value and of one by size.

    Args:
        asked: The question as MIB asks it (`mib_problem`).
        scores: What edges or components are ranked by.
        truth: A known circuit of the same graph to compare with, whose edges are known.
        log: Circuits that were measured already, and where more are kept.
        memory: How many bytes may be taken beside the model; by default what it takes.
        on_pass: Called after each circuit.
    """
    problem = as_problem(asked)
    engine = NormedEngine if has_raw_heads(problem.model) else IncrementalEngine
    measured = Measured(engine(problem, memory), on_pass=on_pass, log=log)
    rankings = [scores.ranking(signed=signed) for signed in (True, False)]
    signed, absolute = (size_curve(measured, ranking, MIB) for ranking in rankings)
    return MibResult(
        rankings[0].of,
        len(rankings[0].order),
        problem.graph.n_edges,
        problem.prompts.n_prompts,
        measured.scale.full,
        measured.scale.empty,
        signed,
        absolute,
        None if truth is None else interp_bench_area(scores.edges, truth),
        None if truth is None else truth.name,
    )


def true_edges(truth: Truth) -> Bool[Tensor, "writer reader"]:
    """Return the edges of a known circuit.

    Raises:
        MethodError: It has no edges, or all, so that no ranking can tell them from others.
    """
    n_edges = truth.graph.n_edges
    true = truth.edges if truth.edges is not None else torch.zeros_like(truth.graph.edge_mask)
    if not 0 < (n_true := int(true.sum())) < n_edges:
        raise MethodError(
            f"of the known circuit {truth.name} {n_true} of {n_edges} edges are known, so "
            "nothing can be told apart; give another one"
        )
    return true


def interp_bench_area(scores: EdgeScores, truth: Truth) -> float:
    """Return the area under the ROC curve of a ranking of edges by size, as InterpBench has it.

    False positive rates are divided by the last one; the curve has no point at the origin.

    Raises:
        MethodError: The known circuit has no edges, or all.
    """
    graph = scores.graph
    require_same_graph(truth.graph, graph)
    true = true_edges(truth)
    n_true = int(true.sum())
    ranked = EdgeScores(graph, scores.values.nan_to_num(0), scores.unit, scores.method)
    rates = []
    for share in MIB.shares:
        kept = ranked.greedy(math.ceil(share * graph.n_edges)).connected().kept
        hits = int((kept & true).sum())
        rates.append(((int(kept.sum()) - hits) / (graph.n_edges - n_true), hits / n_true))
    false_rates, true_rates = np.array(rates).T
    return float(np.trapezoid(true_rates, false_rates / false_rates[-1]))
