"""The results of a sweep as one table: a row per planned run.

Everything in it is read from the run directories and is the same for the same runs, whatever order
they ran in and however often they were interrupted.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from circuitfind.directories.results import RunResult, read_result
from circuitfind.errors import CircuitfindError
from circuitfind.store import write
from circuitfind.sweeps.planning import PlannedRun
from circuitfind.sweeps.running import RUNS

TABLE = "table"
Row = Mapping[str, Any]


def read_results(runs: Sequence[PlannedRun], path: Path) -> dict[str, RunResult]:
    """Return the results of the finished runs of a sweep, by name."""
    found = {}
    for run in runs:
        try:
            found[run.name] = read_result(path / RUNS / run.name)
        except CircuitfindError:
            continue
    return found


def rows_of(runs: Sequence[PlannedRun], results: Mapping[str, RunResult]) -> list[Row]:
    """Return a row per planned run; what a run has no result for is None."""
    return [_row(run, results.get(run.name)) for run in runs]


def _row(run: PlannedRun, result: RunResult | None) -> Row:
    config = run.config
    asked = {
        "run": run.name,
        "model": config.model,
        "task": config.task,
        "method": config.method,
        "threshold": config.threshold,
        "n_edges_asked": config.n_edges,
        "seed": config.seed,
        "n_prompts": config.n_prompts,
        "ablation": config.ablation,
        "metric": config.metric,
        "finished": result is not None,
    }
    return {**asked, **_figures(result)}


def _figures(result: RunResult | None) -> Row:
    card = result.card if result else None
    own = card.measurements[0] if card else None
    held_out = card.held_out if card else None
    return {
        "n_edges": card and card.n_edges,
        "n_edges_full": card and card.n_edges_full,
        "n_components": card and card.n_components,
        "unit": own and own.unit,
        "full": own and own.full,
        "circuit": own and own.circuit,
        "empty": own and own.empty,
        "faithfulness": own and own.faithfulness,
        "held_out_faithfulness": held_out and held_out.faithfulness,
        "model_accuracy": card and card.own and card.own.accuracy,
        "edges_tested": result.search.get("edges_tested") if result else None,
    }


def write_table(rows: Sequence[Row], path: Path) -> list[Path]:
    """Write a table as CSV, and as Parquet where pyarrow is installed.

    Raises:
        RunDirectoryError: It cannot be written.
    """
    files = {path / f"{TABLE}.csv": csv_text(rows).encode()}
    if find_spec("pyarrow") is not None:
        files[path / f"{TABLE}.parquet"] = _parquet(rows)
    for file, content in files.items():
        write(file, content)
    return list(files)


def csv_text(rows: Sequence[Row]) -> str:
    """Return a table as CSV, with numbers that read back as the same numbers."""
    file = io.StringIO()
    table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: _cell(value) for name, value in row.items()})
    return file.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parquet(rows: Sequence[Row]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()
