"""Patching from a configuration to its files: load, measure, report, draw, and find the circuit.

What was interrupted goes on where it was. A measurement that is complete is read, and only what
follows from it is made anew where that is asked for with another threshold (`patch_directory`).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from circuitfind.circuit import Circuit, load_circuit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MetricError, RunDirectoryError
from circuitfind.evaluation.scorecard import Measurement as Measured
from circuitfind.evaluation.scorecard import measure, shown
from circuitfind.metrics import check_metric, find_metric
from circuitfind.models.loading import load_model
from circuitfind.patching.circuits import EdgeSearch
from circuitfind.patching.measurement import Measurement
from circuitfind.patching.pairs import posed
from circuitfind.patching.path import PathPatching
from circuitfind.patching.result import Mode, PatchResult
from circuitfind.patching.sweep import Sweep
from circuitfind.patching.together import Together
from circuitfind.problem import Problem
from circuitfind.progress import Checkpoint, State
from circuitfind.reports.diagram import Diagram, draw_circuit
from circuitfind.reports.heatmap import draw_heatmap
from circuitfind.reports.patching import PatchReport, report
from circuitfind.runs.api import make_problem
from circuitfind.runs.checkpoints import checkpoints, drop_state, read_state
from circuitfind.runs.config import environment
from circuitfind.runs.patch_config import PatchConfig
from circuitfind.runs.patch_directory import CIRCUIT, REPORT, TEXT, PatchDirectory

Observed = Callable[[Checkpoint], None]


@dataclass(frozen=True)
class PatchRun:
    """What patching produced.

    Attributes:
        path: The directory.
        report: What is significant, and the measurements.
        circuit: The circuit of what is significant, if it was asked for.
        measured: How faithful that is.
    """

    path: Path
    report: PatchReport
    circuit: Circuit | None = None
    measured: Measured | None = None

    @property
    def drawings(self) -> list[Path]:
        """The files to look at."""
        names = [f"heatmap-{site}.svg" for site in self.report.result.sites]
        return [self.path / name for name in (*names, *["diagram.svg"] * bool(self.circuit))]

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        found = {"run": str(self.path), **self.report.as_json()}
        if self.circuit is not None and self.measured is not None:
            found["edges"] = [edge.name for edge in self.circuit.edges]
            found["circuit"] = asdict(self.measured)
        return found

    def circuit_line(self) -> str:
        """Say in a line how large and how faithful the circuit is."""
        assert self.circuit is not None and self.measured is not None
        row = self.measured
        share = "undefined" if row.faithfulness is None else f"{row.faithfulness:.3f}"
        return (
            f"circuit: {self.circuit.n_edges} of {self.circuit.graph.n_edges} edges; {row.metric} "
            f"full {shown(row.full)}, circuit {shown(row.circuit)}, empty {shown(row.empty)} "
            f"{row.unit}; faithfulness {share}"
        )


def run_patching(
    path: Path,
    config: PatchConfig,
    *,
    on_progress: Observed = lambda checkpoint: None,
    tell: Callable[[str], None] = lambda message: None,
) -> PatchRun:
    """Measure, go on with a measurement, or read one.

    Args:
        path: The directory; made if it does not exist.
        config: The settings, validated before anything is loaded.
        on_progress: Called as the measurement proceeds.
        tell: Called with what a user should know.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    config.validate()
    directory = PatchDirectory(path, config.identity)
    result = directory.result()
    if result is not None:
        if (stored := directory.report(config.report_settings)) is not None:
            run = _read(directory, config, result, stored)
            tell(f"{path} is finished: its results are read, not computed again")
            return run
        tell(f"{path} is measured: its report is made anew, with other settings")
    work = _Work(directory, config, on_progress, tell)
    return work.reported(work.measured() if result is None else result)


class _Work:
    """One directory being worked in."""

    def __init__(
        self,
        directory: PatchDirectory,
        config: PatchConfig,
        on_progress: Observed,
        tell: Callable[[str], None],
    ) -> None:
        self._directory, self._config = directory, config
        self._on_progress, self._tell = on_progress, tell

    @cached_property
    def _problem(self) -> Problem:
        return _problem(self._config)

    @property
    def _fingerprints(self) -> dict[str, str]:
        problem = self._problem
        return {
            "model_fingerprint": problem.model.fingerprint,
            "prompts_fingerprint": problem.prompts.fingerprint,
        }

    def measured(self) -> PatchResult:
        """Measure, from where an earlier process was interrupted, and write that down."""
        config, problem, directory = self._config, self._problem, self._directory
        measurement = _measurement(config, problem)
        with directory.working():
            directory.begin(self._fingerprints)
            whole = {"belongs_to": torch.tensor([])}
            result = measurement.result(self._finished(measurement.steps, whole))
            facts = {**_facts(config, problem), **self._fingerprints}
            origin = {"settings": config.identity, **facts, "versions": environment()}
            result = replace(result, origin=origin)
            directory.write_result(result)
            drop_state(directory.path)
        return result

    def reported(self, result: PatchResult) -> PatchRun:
        """Make what follows from a measurement, and write that down."""
        config, directory = self._config, self._directory
        run = PatchRun(directory.path, report(result, config.threshold))
        with directory.working():
            if config.discover:
                directory.begin(self._fingerprints)
                run = self._with_circuit(run)
            _write(directory, run, config)
            drop_state(directory.path)
        return run

    def _with_circuit(self, run: PatchRun) -> PatchRun:
        config, result = self._config, run.report.result
        engine = IncrementalEngine(posed(self._problem, config.mode))  # type: ignore[arg-type]
        search = EdgeSearch(engine, result, config.threshold, edge_threshold=config.edge_threshold)
        settings = (config.threshold, config.edge_threshold or 0.0)
        wanted = {"belongs_to": torch.tensor(settings, dtype=torch.float64)}
        circuit = search.circuit(self._finished(search.steps, wanted))
        circuit = replace(circuit, origin=result.origin)
        return replace(
            run, circuit=circuit, measured=measure(engine, circuit, engine.problem.metric)
        )

    def _finished(
        self, steps: Callable[[State | None], Iterator[Checkpoint]], mark: State
    ) -> State:
        """Take all steps of a computation, and return its last state.

        Args:
            steps: Takes an earlier state, if there is one, and yields checkpoints.
            mark: What an earlier state must hold in order to belong to this computation.
        """
        path = self._directory.path
        state = read_state(path)
        if state is not None and not all(
            name in state and torch.equal(state[name], value) for name, value in mark.items()
        ):
            state = None
        last: State = {}
        with checkpoints(path) as keep:
            for checkpoint in steps(state):
                if state is not None and not last:
                    self._tell(f"{path} resumes: {checkpoint}")
                last = {**(checkpoint.state or {}), **mark}
                keep(replace(checkpoint, state=last))
                self._on_progress(checkpoint)
        return last


def _problem(config: PatchConfig) -> Problem:
    model = load_model(config.model, dtype=config.dtype, device=config.device)
    problem = make_problem(
        model, config.task, n_prompts=config.n_prompts, seed=config.seed, metric=config.metric
    )
    if config.metric is None:
        default = find_metric("logit-difference")
        with suppress(MetricError):
            check_metric(default, problem.prompts)
            problem = replace(problem, metric=default)
    return problem


def _measurement(config: PatchConfig, problem: Problem) -> Measurement:
    mode: Mode = config.mode  # type: ignore[assignment]
    senders, receivers = config.senders, config.receivers
    if config.together:
        return Together(problem, senders or (), receivers or (), mode)
    if config.sites is None:
        return PathPatching(problem, senders, receivers, mode, via=config.via)
    return Sweep(problem, config.sites, mode, positions=config.positions)


def _facts(config: PatchConfig, problem: Problem) -> dict[str, Any]:
    """Return what diagrams and circuit files say of where they come from."""
    return {
        "task": config.task,
        "model_name": problem.model.name,
        "method": f"patching {config.sites}, {config.mode}",
        "ablation": "resample",
        "unit": problem.metric.unit,
    }


def _write(directory: PatchDirectory, run: PatchRun, config: PatchConfig) -> None:
    result = run.report.result
    directory.drop_report()
    for site in result.sites:
        heatmap = draw_heatmap(result, site, threshold=run.report.threshold)
        directory.write(f"heatmap-{site}.svg", heatmap.svg())
        directory.write(f"heatmap-{site}.png", heatmap.png())
    if run.circuit is not None:
        directory.write(CIRCUIT, run.circuit.to_json())
        diagram = _diagram(run, run.circuit)
        directory.write("diagram.dot", diagram.dot)
        directory.write("diagram.svg", diagram.svg())
    directory.write(TEXT, run.report.markdown())
    content = {**run.as_json(), "made_with": config.report_settings}
    # Written last: where it exists, everything else does.
    directory.write(REPORT, json.dumps(content, indent=1) + "\n")


def _diagram(run: PatchRun, circuit: Circuit) -> Diagram:
    origin = circuit.origin
    title = f"{origin['task']} in {origin['model_name']}: {origin['method']}, resample ablation"
    caption = [title, run.circuit_line()]
    return draw_circuit(circuit, caption=caption, unit=run.report.result.unit)


def _read(
    directory: PatchDirectory, config: PatchConfig, result: PatchResult, stored: Mapping[str, Any]
) -> PatchRun:
    run = PatchRun(directory.path, report(result, config.threshold))
    if not config.discover:
        return run
    try:
        measured = Measured(**stored["circuit"])
    except (KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"{directory.path}/report.json is damaged ({type(error).__name__} at {error}); "
            "delete it to make it anew"
        ) from None
    return replace(run, circuit=load_circuit(directory.path / CIRCUIT), measured=measured)
