"""Patching from a configuration to its files: load, measure, report, draw, and find the circuit.

An interrupted measurement is continued from its checkpoint. A complete one is read, and only its
report is made again if another threshold is asked for (`patch_directory`). The report is written
before the circuit is searched, and stays if that search fails.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from circuitfind.circuit import Circuit
from circuitfind.directories.checkpoints import checkpoints, drop_left_state, drop_state, read_state
from circuitfind.directories.patch_config import PatchConfig
from circuitfind.directories.patch_directory import PatchDirectory
from circuitfind.environment import environment
from circuitfind.errors import MethodError
from circuitfind.evaluation.scorecard import Measurement as Measured
from circuitfind.evaluation.scorecard import measure
from circuitfind.evaluation.trust import doubts_about_model, foreword, own_of
from circuitfind.patching.circuits import EdgeSearch
from circuitfind.patching.measurement import Measurement
from circuitfind.patching.path import Norm, PathPatching
from circuitfind.patching.result import Mode, PatchResult
from circuitfind.patching.sweep import Sweep
from circuitfind.patching.together import Together
from circuitfind.problem import Problem
from circuitfind.progress import Checkpoint, State
from circuitfind.question import Models, fingerprints
from circuitfind.reports.patching import PatchReport, own_facts, patch_report
from circuitfind.verbs.patch_run import (
    PatchRun,
    read_run,
    write_circuit,
    write_figures,
    write_report,
)

Observed = Callable[[Checkpoint], None]


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
    directory = PatchDirectory.open(path, config)
    result = directory.result()
    if result is not None:
        if (stored := directory.report(config.report_settings)) is not None:
            run = read_run(directory, config, result, stored)
            tell(f"{path} is finished: its results are read, not computed again")
            drop_left_state(path)
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
        return self._config.problem(Models(tell=self._tell).of(self._config))

    def measured(self) -> PatchResult:
        """Measure, from where an earlier process was interrupted, and write that down."""
        config, problem, directory = self._config, self._problem, self._directory
        measurement, own = _measurement(config, problem), own_of(problem)
        for line in foreword(own, problem):
            self._tell(line)
        with directory.working():
            directory.begin(fingerprints(problem))
            # What a batch holds follows from the memory, and a checkpoint counts batches.
            whole = {"belongs_to": torch.tensor([measurement.rows])}
            state = self._finished(measurement.steps, whole)
            result = measurement.result(state)
            facts = {
                **_facts(config, problem.model.name, result.unit),
                **own_facts(own, problem),
                **fingerprints(problem),
            }
            origin = {"settings": directory.config.identity, **facts, "versions": environment()}
            result = replace(result, origin=origin)
            directory.write_environment(config.device, float(state["seconds"]))
            directory.write_result(result)
            drop_state(directory.path)
        return result

    def reported(self, result: PatchResult) -> PatchRun:
        """Make what follows from a measurement, and write that down."""
        config, directory = self._config, self._directory
        run = PatchRun(directory.path, patch_report(result, config.threshold))
        with directory.working():
            write_report(directory, run, replace(config, discover=False))
            if config.discover:
                directory.begin(fingerprints(self._problem))
                run = self._with_circuit(run)
            drop_state(directory.path)
        return run

    def _with_circuit(self, run: PatchRun) -> PatchRun:
        """Search the circuit and write it down; where there is none, say why."""
        config = self._config
        try:
            self._require_behaviour(run.report)
            circuit, measured = self._circuit(run.report.result)
        except MethodError as error:
            return replace(run, failure=error)
        run = replace(run, circuit=circuit, measured=measured)
        write_circuit(self._directory, run, circuit)
        write_figures(self._directory, run, config)
        return run

    def _require_behaviour(self, report: PatchReport) -> None:
        """Refuse to search the circuit of what the model does not do, unless it is asked for.

        Raises:
            MethodError: The model does not do the task, or the two runs differ by chance alone.
        """
        reasons = [*doubts_about_model(own_of(self._problem)), *report.chance_gap]
        if reasons and self._config.edge_threshold is None:
            raise MethodError(
                f"no circuit is searched: {reasons[0]}; or search for edges of any size that you "
                "give, such as --edge-threshold 0.01"
            )

    def _circuit(self, result: PatchResult) -> tuple[Circuit, Measured]:
        config = self._config
        search = EdgeSearch(
            self._problem,
            result,
            config.threshold,
            edge_threshold=config.edge_threshold,
            target_faithfulness=config.target_faithfulness,
            memory=config.memory,
        )
        settings = (config.threshold, config.edge_threshold or 0.0, config.target_faithfulness)
        wanted = {"belongs_to": torch.tensor(settings, dtype=torch.float64)}
        circuit = search.circuit(self._finished(search.steps, wanted))
        return circuit, measure(search.engine, circuit, search.engine.problem.metric)

    def _finished(
        self, steps: Callable[[State | None], Iterator[Checkpoint]], mark: State
    ) -> State:
        """Take all steps of a computation, and return its last state.

        Args:
            steps: Takes an earlier state, if there is one, and yields checkpoints.
            mark: What an earlier state must hold in order to belong to this computation.
        """
        path, started = self._directory.path, time.monotonic()
        state = read_state(path)
        if state is not None and not all(
            name in state and torch.equal(state[name], value) for name, value in mark.items()
        ):
            state = None
        earlier = float(state["seconds"]) if state is not None and "seconds" in state else 0.0
        last: State = {}
        with checkpoints(path) as keep:
            for checkpoint in steps(state):
                if state is not None and not last:
                    self._tell(f"{path} resumes: {checkpoint}")
                seconds = torch.tensor(earlier + time.monotonic() - started, dtype=torch.float64)
                last = {**(checkpoint.state or {}), **mark, "seconds": seconds}
                keep(replace(checkpoint, state=last))
                self._on_progress(checkpoint)
        return last


def _measurement(config: PatchConfig, problem: Problem) -> Measurement:
    mode: Mode = config.mode  # type: ignore[assignment]
    senders, receivers = config.senders, config.receivers
    if config.together:
        return Together(problem, senders or (), receivers or (), mode, memory=config.memory)
    if config.sites is None:
        norm: Norm = config.norm  # type: ignore[assignment]
        return PathPatching(
            problem,
            senders,
            receivers,
            mode,
            via=config.via,
            norm=norm,
            memory=config.memory,
        )
    return Sweep(
        problem,
        config.sites,
        mode,
        positions=config.positions,
        layers=config.layers,
        heads=config.heads,
        memory=config.memory,
    )


def _facts(config: PatchConfig, model: str, unit: str) -> dict[str, Any]:
    """Return what diagrams and circuit files say of where they come from."""
    return {
        "task": config.task,
        "model_name": model,
        "method": f"patching {config.sites}, {config.mode}",
        "ablation": "resample",
        "unit": unit,
    }
