"""One run from its configuration to its results: load, search, check, measure, draw.

A run that was interrupted takes up its decisions where they end. A run that is complete is not
computed again: its results are read.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from circuitfind.directories.checkpoints import checkpoints, drop_left_state, drop_state, read_state
from circuitfind.directories.config import RunConfig
from circuitfind.directories.decisions import DecisionLog, text_of
from circuitfind.directories.directory import DECISIONS, SCORECARD, RunDirectory
from circuitfind.directories.results import FORMAT, RunResult, read_result
from circuitfind.directories.work import CIRCUIT
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.environment import environment
from circuitfind.errors import require_kind
from circuitfind.evaluation.scorecard import scorecard
from circuitfind.evaluation.trust import foreword, own_of
from circuitfind.files import path_of, read_text
from circuitfind.graph import Graph
from circuitfind.methods import METHODS
from circuitfind.methods.base import Progress
from circuitfind.methods.search import Found, search
from circuitfind.methods.settings import settled
from circuitfind.models.base import ResidualModel
from circuitfind.notebook import Page
from circuitfind.problem import Problem
from circuitfind.question import Models, Question, fingerprints
from circuitfind.reports.example import seen_of
from circuitfind.verbs.draw import draw_result
from circuitfind.workers.crew import ALONE, Workers


class Run(RunResult):
    """A finished run, which shows its report in a notebook."""

    def show(self, height: int = 800) -> Page:
        """Return the run's report as a page that a notebook shows.

        Args:
            height: Height of its frame in pixels.

        Raises:
            CircuitfindError: The report cannot be written into the run directory.
        """
        # What it needs takes long to import.
        from circuitfind.verbs.report import write_report

        return Page(read_text(write_report(self.path)), height)


def run_discovery(
    path: Path | str,
    config: RunConfig,
    *,
    model: Any = None,
    models: Models | None = None,
    workers: Workers = ALONE,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda message: None,
) -> Run:
    """Run, resume, or read a run.

    Args:
        path: The run directory; made if it does not exist.
        config: The run's settings, validated before anything is loaded.
        model: What `load_model` returned or takes; by default what `config` names, which is then
            only what the model is called.
        models: Loads the model in place of `model`, where it serves several runs.
        workers: Who evaluates cuts. No result depends on it but for rounding.
        on_progress: Called as the search proceeds; first with what an earlier run decided.
        tell: Called with what a user should know.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    path = path_of(path)
    require_kind(config, RunConfig, "a run's settings; give a `RunConfig`")
    config.validate()
    config = config.pinned()
    run = RunDirectory.open(path, config)
    if run.is_complete:
        result = _run(read_result(path))
        tell(f"{path} is finished: its results are read, not computed again")
        drop_left_state(path)
        return result
    asked = time.monotonic()
    model = (models or Models(model, tell)).of(config)
    engine = IncrementalEngine(config.problem(model), config.memory, workers=workers)
    loading = time.monotonic() - asked
    lines = foreword(own_of(engine), engine.problem)
    with run.recording(fingerprints(engine.problem), lines) as log:
        for line in lines:
            tell(line)
        if log.earlier:
            tell(f"{path} resumes after {len(log.earlier)} of {engine.graph.n_edges} edges")
        started = time.monotonic()
        found = _searched(run, engine, log, on_progress)
        checks = time.monotonic() - started - found.seconds
        seconds = {
            "seconds_loading": loading,
            "seconds_search": found.seconds,
            "seconds_checks": checks,
        }
        held_out = _held_out(config, model, engine.graph, tell)
        result = _result(run, found, held_out, seconds)
        if not log.holds(found.decisions):
            # A method that chooses at its end recorded what it measured, before it chose. Replaced
            # in one step, so that no measurement can be lost.
            run.write(DECISIONS, text_of(found.decisions))
        _write_results(run, result)
        drop_state(path)
    return result


def _run(result: RunResult) -> Run:
    return Run(result.path, result.circuit, result.card, result.search)


def _searched(
    run: RunDirectory,
    engine: IncrementalEngine,
    log: DecisionLog,
    on_progress: Callable[[Progress], None],
) -> Found:
    def record(progress: Progress) -> None:
        log.record(progress)
        keep_state(progress.checkpoint)
        on_progress(progress)

    if log.earlier:
        on_progress(Progress(len(log.earlier), engine.graph.n_edges, tuple(log.earlier)))
    method = METHODS.find(run.config.method)
    settings = settled(method, run.config.options, run.config.selection)
    state = read_state(run.path)
    with checkpoints(run.path) as keep_state:
        return search(
            engine, method, *settings, resume=log.earlier, state=state, on_progress=record
        )


def _result(
    run: RunDirectory, found: Found, held_out: IncrementalEngine | None, seconds: dict[str, float]
) -> Run:
    started = time.monotonic()
    card = scorecard(found.engine, found.circuit, held_out)
    seconds = {**seconds, "seconds_scorecard": time.monotonic() - started}
    facts = _facts(found)
    circuit = replace(found.circuit, origin=origin_of(run.config, found.engine.problem))
    # Of this process alone, where an earlier one was interrupted.
    total = sum(seconds.values()) - seconds["seconds_loading"]
    return Run(run.path, circuit, card, facts | {"seconds": total, **seconds})


def _held_out(
    config: RunConfig, model: ResidualModel, graph: Graph, tell: Callable[[str], None]
) -> IncrementalEngine | None:
    problem = config.held_out(model, graph, tell)
    return None if problem is None else IncrementalEngine(problem, config.memory)


def _facts(found: Found) -> dict[str, Any]:
    return {
        "edges_tested": found.n_tested,
        "dead_ends": list(found.dead_ends),
        "dead_ends_removed": found.pruned,
        "full_graph_error": found.limits.full,
        "empty_graph_error": found.limits.empty,
        "drift": found.drift,
        "drift_allowed": found.engine.drift_allowed,
    }


def origin_of(question: Question, problem: Problem) -> dict[str, Any]:
    """Return what the file of a circuit that was found here says of where it comes from."""
    return {
        **question.identity,
        "model_name": problem.model.name,
        **fingerprints(problem),
        "unit": problem.metric.unit,
        **seen_of(problem),
        "versions": environment(),
    }


def _write_results(run: RunDirectory, result: RunResult) -> None:
    content = {"format": FORMAT, **result.measured()}
    run.write(SCORECARD, json.dumps(content, indent=1) + "\n")
    diagram = draw_result(result.circuit, result.card)
    run.write("diagram.dot", diagram.dot)
    run.write("diagram.svg", diagram.svg())
    # Written last: where it exists, everything else does.
    run.write(CIRCUIT, result.circuit.to_json())
