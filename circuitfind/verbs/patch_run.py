"""Result of patching: its values, its files, and reading them back."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit, load_circuit
from circuitfind.directories.patch_config import PatchConfig
from circuitfind.directories.patch_directory import REPORT, TABLE, TEXT, PatchDirectory
from circuitfind.directories.work import CIRCUIT
from circuitfind.errors import MethodError, RunDirectoryError
from circuitfind.evaluation.scorecard import Measurement as Measured
from circuitfind.evaluation.scorecard import shown
from circuitfind.patching.result import PatchResult
from circuitfind.reports.diagram import Diagram, draw_circuit
from circuitfind.reports.heatmap import draw_heatmap
from circuitfind.reports.patching import PatchReport, patch_report


@dataclass(frozen=True)
class PatchRun:
    """Result of patching.

    Attributes:
        path: The directory.
        report: What is significant, and the measurements.
        circuit: The circuit of what is significant, if it was asked for and found.
        measured: How faithful that is.
        failure: Why there is no circuit although it was asked for.
    """

    path: Path
    report: PatchReport
    circuit: Circuit | None = None
    measured: Measured | None = None
    failure: MethodError | None = None

    @property
    def drawings(self) -> list[Path]:
        """The files to look at."""
        names = [f"heatmap-{site}.svg" for site in self.report.result.sites]
        return [self.path / name for name in (*names, *["diagram.svg"] * bool(self.circuit))]

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {"run": str(self.path), **self.content()}

    def content(self) -> dict[str, Any]:
        """Return what `report.json` holds; it is the same for equal measurements."""
        found = self.report.as_json()
        if self.circuit is not None and self.measured is not None:
            found["edges"] = [edge.name for edge in self.circuit.edges]
            found["circuit"] = asdict(self.measured)
        if self.failure is not None:
            found["no_circuit"] = str(self.failure)
        return found

    def circuit_line(self) -> str:
        """Return size and faithfulness of the circuit in a line."""
        assert self.circuit is not None and self.measured is not None
        row = self.measured
        share = "undefined" if row.faithfulness is None else f"{row.faithfulness:.3f}"
        return (
            f"circuit: {self.circuit.n_edges} of {self.circuit.graph.n_edges} edges; {row.metric} "
            f"full {shown(row.full)}, circuit {shown(row.circuit)}, empty {shown(row.empty)} "
            f"{row.unit}; faithfulness {share}"
        )

    def circuit_warning(self, wanted: float) -> str:
        """Return a warning if the circuit is less faithful than asked for, or an empty text."""
        assert self.circuit is not None and self.measured is not None
        found = self.measured.faithfulness
        if found is not None and found >= wanted:
            return ""
        return (
            f"the circuit's faithfulness is below the wanted {wanted:g}: the edges between the "
            f"components with an effect of {self.report.threshold:g} or more do not suffice; "
            "choose a smaller --threshold, another --mode or more --sites, or search all edges "
            "with `circuitfind discover`"
        )


def write_report(directory: PatchDirectory, run: PatchRun, config: PatchConfig) -> None:
    """Write the report, with a heatmap of each site, in place of an earlier one."""
    result = run.report.result
    directory.drop_report()
    for site in result.sites:
        heatmap = draw_heatmap(
            result, site, threshold=run.report.threshold, annotate=config.annotate
        )
        directory.write(f"heatmap-{site}.svg", heatmap.svg())
        directory.write(f"heatmap-{site}.png", heatmap.png())
    directory.write(TEXT, run.report.markdown())
    directory.write(TABLE, run.report.csv())
    write_figures(directory, run, config)


def write_circuit(directory: PatchDirectory, run: PatchRun, circuit: Circuit) -> None:
    """Write the circuit and its drawing."""
    directory.write(CIRCUIT, circuit.to_json())
    diagram = _diagram(run, circuit)
    directory.write("diagram.dot", diagram.dot)
    directory.write("diagram.svg", diagram.svg())


def write_figures(directory: PatchDirectory, run: PatchRun, config: PatchConfig) -> None:
    """Write `report.json`."""
    content = {**run.content(), "made_with": config.report_settings}
    # Written last: where it exists, everything that it speaks of does.
    directory.write(REPORT, json.dumps(content, indent=1) + "\n")


def _diagram(run: PatchRun, circuit: Circuit) -> Diagram:
    origin = circuit.origin
    title = f"{origin['task']} in {origin['model_name']}: {origin['method']}, resample ablation"
    caption = [title, run.circuit_line()]
    return draw_circuit(circuit, caption=caption, unit=run.report.result.unit)


def read_run(
    directory: PatchDirectory, config: PatchConfig, result: PatchResult, stored: Mapping[str, Any]
) -> PatchRun:
    """Return what an earlier process produced.

    Args:
        directory: Where it is.
        config: The settings, which are those of the report.
        result: The measurement.
        stored: The content of `report.json`.

    Raises:
        RunDirectoryError: The report lacks the circuit.
    """
    run = PatchRun(directory.path, patch_report(result, config.threshold))
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
