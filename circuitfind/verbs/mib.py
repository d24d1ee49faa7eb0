"""Measure a ranking by the protocol of MIB's circuit track, and write it as a submission."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.directories.mib import SUBMISSION, MibConfig, MibDirectory, scores_file
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.evaluation.mib import (
    MibResult,
    MibScores,
    component_scores,
    mib,
    mib_problem,
    scoring_problem,
    true_edges,
    ungrouped_scores,
)
from circuitfind.evaluation.size_curve import MIB
from circuitfind.files import path_of
from circuitfind.formats.submission import SCORE_FILES, importances, read_importances
from circuitfind.methods import METHODS
from circuitfind.methods.base import Decision, ScoringMethod, circuit_of
from circuitfind.models.base import ResidualModel
from circuitfind.problem import Problem
from circuitfind.progress import Checkpoint
from circuitfind.question import Models, fingerprints
from circuitfind.reports.mib import size_chart
from circuitfind.verbs.against import known_circuit
from circuitfind.verbs.exchange import scored_circuit, submission_name


@dataclass(frozen=True)
class MibFound:
    """Result of a measurement by MIB's protocol.

    Attributes:
        path: The directory.
        result: The figures.
        submission: The folder to submit.
    """

    path: Path
    result: MibResult
    submission: Path


def measure_mib(
    path: Path | str,
    config: MibConfig,
    *,
    model: Any = None,
    tell: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[Any], None] = lambda progress: None,
) -> MibFound:
    """Score all edges, or read scores, and measure the circuits of ten sizes.

    Args:
        path: The directory; made if it does not exist. A finished measurement is read.
        config: The settings.
        model: What `load_model` returned or takes; by default what the settings name.
        tell: Called with what a user should know.
        on_progress: Called as scores are computed and circuits are measured.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    path = path_of(path)
    config.validate()
    directory = MibDirectory.open(path, config)
    config = directory.config
    origin = {"task": config.task, "model": config.model, "method": config.method}
    folder = path / SUBMISSION / submission_name(origin)
    if (there := directory.result()) is not None:
        tell(f"{path} is finished: its results are read, not computed again")
        return MibFound(path, there, folder)
    loaded = Models(model, tell).of(config)
    problem = _measured_problem(config, loaded, tell)
    truth = None if config.against is None else known_circuit(config.against, problem, config.task)
    if truth is not None:
        # Before anything is scored.
        true_edges(truth)
    with directory.measuring(fingerprints(problem), tell) as log:
        scores = _scores(config, loaded, problem, folder, on_progress, tell)
        found = Circuit(problem.graph, problem.graph.edge_mask, scores.edges.values, origin)
        directory.write_scores(folder.name, importances(found, scores.components))
        n_done, n_all = 0, 2 + 2 * len(MIB.shares)

        def count() -> None:
            nonlocal n_done
            n_done += 1
            on_progress(Checkpoint(n_done, n_all, "passes"))

        result = mib(problem, scores, truth=truth, log=log, memory=config.memory, on_pass=count)
        directory.write_result(result, size_chart(result))
    return MibFound(path, result, folder)


_SEEN = "circuits are measured on the prompts that the scores are made from; "


def _measured_problem(
    config: MibConfig, model: ResidualModel, tell: Callable[[str], None]
) -> Problem:
    """Return the question on the prompts that circuits are measured on.

    Those of a named task are others than the scores are computed on.
    """
    elsewhere = config.scores or config.train not in (None, config.task)
    other = None if elsewhere else config.held_out(model, tell=tell)
    if other is None and not elsewhere:
        tell(f"{_SEEN}give others to make them from (--train)")
    return mib_problem(other or config.problem(model))


def _scores(
    config: MibConfig,
    model: ResidualModel,
    problem: Problem,
    folder: Path,
    on_progress: Callable[[Any], None],
    tell: Callable[[str], None],
) -> MibScores:
    """Return the scores: those of a file, those computed earlier, or those of the method."""
    earlier = folder / SCORE_FILES[0]
    if config.scores is None and earlier.is_file():
        edges, components = read_importances(earlier, problem.graph).edges, None
    elif config.scores is None:
        edges, components = _computed(config, model, on_progress), None
        edges = ungrouped_scores(edges, problem.graph)
    else:
        edges, components = _read(Path(config.scores), problem, tell)
    if config.level == "edges":
        return MibScores(edges)
    return MibScores(edges, component_scores(edges) if components is None else components)


def _read(
    path: Path, problem: Problem, tell: Callable[[str], None]
) -> tuple[EdgeScores, torch.Tensor | None]:
    file = scores_file(path)
    if file.name in SCORE_FILES or file.suffix == ".pt":
        return read_importances(file, problem.graph)
    circuit = scored_circuit(path)
    if circuit.effects is None:
        raise MethodError(
            f"{path} has no scores of its edges; give the directory of a run, whose decisions hold "
            "them, or a submission"
        )
    if circuit.origin.get("prompts_fingerprint") == problem.prompts.fingerprint:
        tell(f"{_SEEN}give another --seed to measure on others")
    scores = EdgeScores(circuit.graph, circuit.effects, "", str(circuit.origin.get("method")))
    return ungrouped_scores(scores, problem.graph), None


def _computed(
    config: MibConfig, model: ResidualModel, on_progress: Callable[[Any], None]
) -> EdgeScores:
    """Have the method score all edges of the ungrouped graph."""
    method = METHODS.find(config.method)
    assert isinstance(method, ScoringMethod)
    train = replace(config, n_prompts=config.n_train or config.n_prompts)
    if config.train is not None:
        train = replace(train, task=config.train, task_digest=config.train_digest)
    engine = IncrementalEngine(scoring_problem(train.problem(model)), config.memory)
    decisions = list[Decision]()
    for step in method.run(engine, method.options(**config.options)):
        decisions += step.decisions
        on_progress(step)
    return method.scores_in(engine, circuit_of(engine.graph, decisions))
