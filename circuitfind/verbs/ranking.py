"""Have a method rank all edges of a question, and measure the ranking."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.directories.ranking import RankingConfig, RankingDirectory, RankingResult
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import CircuitfindError, MethodError, MetricError, ModelError
from circuitfind.evaluation.cost import with_cost
from circuitfind.evaluation.mib import (
    MibScores,
    interp_bench_area,
    mib,
    mib_problem,
    scoring_problem,
    true_edges,
)
from circuitfind.evaluation.roc import roc_curves
from circuitfind.evaluation.trust import foreword, own_of
from circuitfind.methods import METHODS
from circuitfind.methods.base import ScoringMethod, StepwiseMethod, circuit_of, without_dead_ends
from circuitfind.methods.settings import settled, threshold_name
from circuitfind.models.base import ResidualModel
from circuitfind.problem import Problem
from circuitfind.question import Models, fingerprints
from circuitfind.verbs.against import KNOWN, known_circuit

_STEPS_COUNTED = 20
"""Of a training, for its peak memory."""


@dataclass(frozen=True)
class Ranked:
    """A method's ranking of all edges.

    Attributes:
        scores: What they are ranked by, by size.
        circuits: Of a method that decides edge by edge, its circuit at every threshold.
    """

    scores: EdgeScores
    circuits: tuple[Circuit, ...] = ()


@dataclass(frozen=True)
class _Asked:
    """What a method is asked, and what is measured of its ranking."""

    problem: Problem
    figures: Callable[[Ranked], Mapping[str, float | None]]
    n_true: int | None = None
    best: float | None = None
    held_out: bool | None = None


class _RefusedError(CircuitfindError):
    """Says why a method ranks no edges."""


def measure_ranking(
    path: Path, config: RankingConfig, *, models: Models | None = None
) -> RankingResult:
    """Have a method rank all edges, measure the ranking, and write it down; or read it.

    Args:
        path: The directory; made if it does not exist.
        config: The settings, validated before.
        models: Loads the model, where it serves several.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    directory = RankingDirectory.open(path, config)
    config = directory.config
    if (there := directory.result()) is not None:
        return there
    asked = _asked(config, (models or Models()).of(config))
    with directory.working():
        lines = foreword(own_of(asked.problem), asked.problem)
        directory.begin(fingerprints(asked.problem), lines)
        found = _measured(config, asked)
        directory.write_result(found)
    return found


def _measured(config: RankingConfig, asked: _Asked) -> RankingResult:
    problem, n_edges = asked.problem, asked.problem.graph.n_edges
    found = RankingResult({}, n_edges, asked.n_true, asked.best, held_out=asked.held_out)
    few = _of_few_steps(config)
    counted = (lambda: _ranked_or_refused(problem, few)) if config.counts_memory else None
    try:
        ranked, cost = with_cost(problem, lambda: _ranked_or_refused(problem, config), counted)
    except _RefusedError as error:
        return replace(found, refused=str(error))
    return replace(found, figures=asked.figures(ranked), cost=cost)


def _ranked_or_refused(problem: Problem, config: RankingConfig) -> Ranked:
    try:
        return ranked_edges(problem, config)
    except (MethodError, MetricError, ModelError) as error:
        raise _RefusedError(str(error)) from None


def _of_few_steps(config: RankingConfig) -> RankingConfig:
    """Return the same settings with so many steps that more would take no more memory."""
    name = METHODS.find(config.method).option_for("steps")
    if name is None:
        return config
    steps = min(_STEPS_COUNTED, config.options[name])
    return replace(config, options={**config.options, name: steps})


def _asked(config: RankingConfig, model: ResidualModel) -> _Asked:
    own = config.problem(model)
    if config.measure == "auroc":
        return _against_truth(config, own)
    # A task file has no other prompts than its own.
    others = config.held_out(model)
    measured = mib_problem(others or own)

    def figures(ranked: Ranked) -> Mapping[str, float | None]:
        found = mib(measured, MibScores(ranked.scores), memory=config.memory)
        return {"cpr": found.cpr, "cmd": found.cmd, "acc_auc": found.signed.acc_auc}

    return _Asked(scoring_problem(own), figures, held_out=others is not None)


def _against_truth(config: RankingConfig, problem: Problem) -> _Asked:
    truth = known_circuit(config.against or KNOWN, problem, config.task)
    true, graph = true_edges(truth), problem.graph

    def figures(ranked: Ranked) -> Mapping[str, float | None]:
        whole, *others = ranked.circuits or (Circuit(graph, graph.edge_mask),)
        scores = None if ranked.circuits else ranked.scores
        curve, *_ = roc_curves(truth, whole, others=others, scores=scores)
        precision, recall = curve.best or (None, 0.0)
        return {
            "auroc": interp_bench_area(ranked.scores, truth),
            "steps": curve.area,
            "precision": precision,
            "recall": recall,
        }

    best = interp_bench_area(EdgeScores(graph, true.double(), "", truth.name), truth)
    return _Asked(problem, figures, int(true.sum()), best)


def ranked_edges(problem: Problem, config: RankingConfig) -> Ranked:
    """Have a method rank all edges.

    Raises:
        MethodError: It cannot.
        MetricError: The metric has no value that it needs.
        ModelError: The model lacks what it needs.
    """
    engine, method = IncrementalEngine(problem, config.memory), METHODS.find(config.method)
    if isinstance(method, ScoringMethod):
        found = method.scores(engine, method.options(**config.options))
        return Ranked(EdgeScores(problem.graph, found.values.cpu(), found.unit, found.method))
    assert isinstance(method, StepwiseMethod)
    values = torch.zeros(problem.graph.edge_mask.shape, dtype=torch.float64)
    circuits = []
    for number, threshold in enumerate(sorted(config.thresholds), 1):
        name = threshold_name(method) or "threshold"
        options, _ = settled(method, {**config.options, name: threshold})
        decisions = [each for step in method.run(engine, options) for each in step.decisions]
        decided = circuit_of(problem.graph, decisions)
        circuits.append(without_dead_ends(engine, decided, prune=True).circuit)
        values[circuits[-1].kept] = number
    return Ranked(EdgeScores(problem.graph, values, "thresholds", method.name), tuple(circuits))
