"""Patching from a configuration to its files: load, measure, report, draw, and find the circuit.

A directory holds `patching.safetensors`, `report.md`, `report.json`, a heatmap per site, if a
circuit was asked for also `circuit.json`, `diagram.svg` and `diagram.dot`, and last
`patching.json`: where that is, everything else is too. Repeating a command reads what is there
instead of measuring again.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit, load_circuit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MetricError, RunDirectoryError
from circuitfind.evaluation.scorecard import Measurement, measure, shown
from circuitfind.metrics import check_metric, find_metric
from circuitfind.models.loading import load_model
from circuitfind.patching.circuits import circuit_of
from circuitfind.patching.files import load_patching, to_bytes, to_json
from circuitfind.patching.pairs import posed
from circuitfind.patching.path import path_patch
from circuitfind.patching.result import PatchResult
from circuitfind.patching.sweep import Swept, patch
from circuitfind.patching.together import patch_together
from circuitfind.problem import Problem
from circuitfind.reports.diagram import Diagram, draw_circuit
from circuitfind.reports.heatmap import draw_heatmap
from circuitfind.reports.patching import PatchReport, report
from circuitfind.runs.api import make_problem
from circuitfind.runs.config import environment
from circuitfind.runs.directory import read_json, reported, write_whole
from circuitfind.runs.patch_config import PatchConfig

RESULT, TENSORS = "patching.json", "patching.safetensors"
REPORT, TEXT, CIRCUIT = "report.json", "report.md", "circuit.json"


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
    measured: Measurement | None = None

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
    on_progress: Callable[[Swept], None] = lambda swept: None,
    tell: Callable[[str], None] = lambda message: None,
) -> PatchRun:
    """Measure, or read what was measured.

    Args:
        path: The directory; made if it does not exist.
        config: The settings, validated before anything is loaded.
        on_progress: Called as the measurement proceeds.
        tell: Called with what a user should know.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    config.validate()
    identity = config.identity
    if _is_finished(path, identity):
        run = _read(path, config)
        tell(f"{path} is finished: its results are read, not computed again")
        return run
    problem = _problem(config)
    result = _measured(config, problem, on_progress)
    origin = {"settings": identity, **_facts(config, problem), "versions": environment()}
    found = report(replace(result, origin=origin), config.threshold)
    run = PatchRun(path, found)
    if config.discover:
        circuit, measured = _circuit(config, problem, found)
        run = replace(run, circuit=circuit, measured=measured)
    _write(run)
    return run


def _is_finished(path: Path, identity: dict[str, Any]) -> bool:
    """Tell whether a directory holds this measurement; refuse one that holds anything else."""
    if not (path / RESULT).is_file():
        with reported(path):
            if path.exists() and not (path.is_dir() and all(map(_is_ours, path.iterdir()))):
                raise RunDirectoryError(
                    f"{path} exists and is no directory of patching; choose another --out"
                )
        return False
    there = dict(load_patching(path / RESULT).origin.get("settings", {}))
    different = [name for name in identity if there.get(name) != identity[name]]
    if different:
        name = different[0]
        raise RunDirectoryError(
            f"{path} holds another measurement ({name} is {there.get(name)!r} there and "
            f"{identity[name]!r} here); choose another --out, or repeat the original settings"
        )
    return True


def _is_ours(file: Path) -> bool:
    """Tell whether a file may be what an interrupted write left."""
    names = {TENSORS, REPORT, TEXT, CIRCUIT, "diagram.svg", "diagram.dot"}
    is_heatmap = file.name.startswith("heatmap-") and file.suffix == ".svg"
    return file.name in names or is_heatmap or (file.name[0] == "." and file.suffix == ".tmp")


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


def _measured(
    config: PatchConfig, problem: Problem, on_progress: Callable[[Swept], None]
) -> PatchResult:
    if config.together:
        return patch_together(
            problem,
            config.senders or (),
            config.receivers or (),
            mode=config.mode,  # type: ignore[arg-type]
        )
    if config.sites is None:
        return path_patch(
            problem,
            config.senders,
            config.receivers,
            via=config.via,
            mode=config.mode,  # type: ignore[arg-type]
            on_progress=on_progress,
        )
    return patch(
        problem,
        config.sites,
        mode=config.mode,  # type: ignore[arg-type]
        positions=config.positions,
        on_progress=on_progress,
    )


def _facts(config: PatchConfig, problem: Problem) -> dict[str, Any]:
    """Return what diagrams and circuit files say of where they come from."""
    return {
        "task": config.task,
        "model_name": problem.model.name,
        "model_fingerprint": problem.model.fingerprint,
        "prompts_fingerprint": problem.prompts.fingerprint,
        "method": f"patching {config.sites}, {config.mode}",
        "ablation": "resample",
        "unit": problem.metric.unit,
    }


def _circuit(
    config: PatchConfig, problem: Problem, found: PatchReport
) -> tuple[Circuit, Measurement]:
    engine = IncrementalEngine(posed(problem, config.mode))  # type: ignore[arg-type]
    circuit = circuit_of(
        engine, found.result, config.threshold, edge_threshold=config.edge_threshold
    )
    circuit = replace(circuit, origin=found.result.origin)
    return circuit, measure(engine, circuit, problem.metric)


def _write(run: PatchRun) -> None:
    result, path = run.report.result, run.path
    with reported(path):
        path.mkdir(parents=True, exist_ok=True)
        write_whole(path / TENSORS, to_bytes(result))
        for site in result.sites:
            heatmap = draw_heatmap(result, site, threshold=run.report.threshold)
            write_whole(path / f"heatmap-{site}.svg", heatmap.svg)
        if run.circuit is not None:
            write_whole(path / CIRCUIT, run.circuit.to_json())
            diagram = _diagram(run, run.circuit)
            write_whole(path / "diagram.dot", diagram.dot)
            write_whole(path / "diagram.svg", diagram.svg())
        write_whole(path / TEXT, run.report.markdown())
        write_whole(path / REPORT, json.dumps(run.as_json(), indent=1) + "\n")
        # Written last: where it exists, everything else does.
        write_whole(path / RESULT, to_json(result))


def _diagram(run: PatchRun, circuit: Circuit) -> Diagram:
    origin = circuit.origin
    title = f"{origin['task']} in {origin['model_name']}: {origin['method']}, resample ablation"
    caption = [title, run.circuit_line()]
    return draw_circuit(circuit, caption=caption, unit=run.report.result.unit)


def _read(path: Path, config: PatchConfig) -> PatchRun:
    run = PatchRun(path, report(load_patching(path / RESULT), config.threshold))
    if not config.discover:
        return run
    try:
        measured = Measurement(**read_json(path / REPORT)["circuit"])
    except (KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"{path / REPORT} is damaged ({type(error).__name__} at {error}); delete "
            f"{path / RESULT} to measure again"
        ) from None
    return replace(run, circuit=load_circuit(path / CIRCUIT), measured=measured)
