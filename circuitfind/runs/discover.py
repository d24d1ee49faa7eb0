"""One run from its configuration to its results: load, search, check, measure, draw.

A run that was interrupted takes up its decisions where they end. A run that is complete is not
computed again: its results are read.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import TaskError
from circuitfind.evaluation.scorecard import Measurement, Scorecard, scorecard
from circuitfind.graph import Graph
from circuitfind.methods import find_method
from circuitfind.methods.base import Progress
from circuitfind.methods.search import Found, search
from circuitfind.metrics import find_metric
from circuitfind.models.base import ResidualModel
from circuitfind.models.loading import load_model
from circuitfind.problem import Problem, assemble
from circuitfind.reports.diagram import draw_circuit
from circuitfind.runs.config import RunConfig
from circuitfind.runs.directory import CIRCUIT, RunDirectory, provenance
from circuitfind.tasks import find_task

_HELD_OUT_SEED = 1_000_003
"""Added to the seed for held-out prompts, so that no seed a user tries meets them."""


@dataclass(frozen=True)
class RunResult:
    """What a run produced.

    Attributes:
        path: The run directory.
        circuit: The circuit.
        card: Its scorecard.
        search: Figures of the search: seconds, edges tested, dead ends, self-check figures.
    """

    path: Path
    circuit: Circuit
    card: Scorecard
    search: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {
            "run": str(self.path),
            "edges": [edge.name for edge in self.circuit.edges],
            "scorecard": asdict(self.card),
            "search": dict(self.search),
        }


def run_discovery(
    path: Path,
    config: RunConfig,
    *,
    model: ResidualModel | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> RunResult:
    """Run, resume, or read a run.

    Args:
        path: The run directory; made if it does not exist.
        config: The run's settings, validated before anything is loaded.
        model: The model, where it is loaded already.
        on_progress: Called as the search proceeds.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    config.validate()
    opened = RunDirectory.open(path, config)
    if opened.is_complete:
        return read_result(opened)
    if model is None:
        model = load_model(config.model, dtype=config.dtype, device=config.device)
    return _run(opened, model, on_progress)


def read_result(run: RunDirectory) -> RunResult:
    """Return what a complete run produced."""
    stored = run.read_json("scorecard.json")
    card = dict(stored["scorecard"])
    card["measurements"] = tuple(Measurement(**row) for row in card["measurements"])
    if card["held_out"] is not None:
        card["held_out"] = Measurement(**card["held_out"])
    return RunResult(run.path, run.circuit(), Scorecard(**card), stored["search"])


def problem_of(config: RunConfig, model: ResidualModel, *, seed: int) -> Problem:
    """Build the problem of a run, with prompts from a seed."""
    prompts = find_task(config.task).write_prompts(model.vocabulary, config.n_prompts, seed)
    graph = Graph(model.shape, config.split_qkv, config.split_embedding)
    metric = find_metric(config.metric)
    return assemble(model, prompts, metric, config.ablation, graph=graph)  # type: ignore[arg-type]


def _run(
    run: RunDirectory, model: ResidualModel, on_progress: Callable[[Progress], None]
) -> RunResult:
    config, started = run.config, time.monotonic()
    method = find_method(config.method)
    engine = IncrementalEngine(problem_of(config, model, seed=config.seed))
    done = run.decisions()
    run.begin()
    with run.recording(done) as log:

        def record(progress: Progress) -> None:
            log.record(progress)
            on_progress(progress)

        options = method.options(**config.options)
        found = search(engine, method, options, resume=done, on_progress=record)
    card = scorecard(engine, found.circuit, _held_out(config, model))
    facts = _facts(engine, found)
    circuit = replace(found.circuit, origin=provenance(config, facts["origin"]))
    facts["search"]["seconds"] = time.monotonic() - started
    result = RunResult(run.path, circuit, card, facts["search"])
    _write_results(run, result)
    return result


def _held_out(config: RunConfig, model: ResidualModel) -> IncrementalEngine | None:
    """Make the same problem with prompts that the search has not seen, where a task can."""
    if Path(config.task).exists():
        return None
    seed = config.seed + _HELD_OUT_SEED
    try:
        return IncrementalEngine(problem_of(config, model, seed=seed))
    except TaskError:
        return None


def _facts(engine: IncrementalEngine, found: Found) -> dict[str, dict[str, Any]]:
    model, prompts = engine.problem.model, engine.problem.prompts
    return {
        "origin": {
            "model_name": model.name,
            "model_fingerprint": model.fingerprint,
            "prompts_fingerprint": prompts.fingerprint,
            "unit": engine.problem.metric.unit,
        },
        "search": {
            "edges_tested": found.n_tested,
            "dead_ends": list(found.dead_ends),
            "dead_ends_removed": found.pruned,
            "full_graph_error": found.limits.full,
            "empty_graph_error": found.limits.empty,
            "drift": found.drift,
        },
    }


def _write_results(run: RunDirectory, result: RunResult) -> None:
    card = {"scorecard": asdict(result.card), "search": dict(result.search)}
    run.write("scorecard.json", json.dumps(card, indent=1) + "\n")
    diagram = draw_circuit(
        result.circuit, caption=caption(run.config, result), unit=result.card.measurements[0].unit
    )
    run.write("diagram.dot", diagram.dot)
    run.write("diagram.svg", diagram.svg())
    # Written last: where it exists, everything else does.
    run.write(CIRCUIT, result.circuit.to_json())


def caption(config: RunConfig, result: RunResult) -> list[str]:
    """Return the lines under a run's diagram: what it is of, and how good it is."""
    card, own = result.card, result.card.measurements[0]
    threshold = config.options.get("threshold")
    settings = config.method if threshold is None else f"{config.method}, threshold {threshold:g}"
    shares = [
        f"{row.faithfulness:.2f} ({row.metric})"
        for row in card.measurements
        if row.faithfulness is not None
    ]
    return [
        f"{Path(config.task).stem} in {result.circuit.origin['model_name']}: {settings}, "
        f"{config.ablation} ablation, {card.n_prompts} prompts",
        f"{card.n_edges} of {card.n_edges_full} edges, "
        f"{own.metric} {own.circuit:.3g} {own.unit} (full {own.full:.3g}, empty {own.empty:.3g}), "
        f"faithfulness {', '.join(shares) or 'undefined'}",
    ]
