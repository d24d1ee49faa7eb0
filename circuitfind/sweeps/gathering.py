"""The files of a finished sweep: the table and the figures."""

from collections.abc import Sequence
from pathlib import Path

from circuitfind.sweeps.figures import write_figures
from circuitfind.sweeps.planning import PlannedRun
from circuitfind.sweeps.table import Row, read_results, rows_of, write_table


def gather(runs: Sequence[PlannedRun], path: Path) -> tuple[list[Row], list[Path]]:
    """Write the table and the figures of a sweep, and return the rows and the files.

    Raises:
        RunDirectoryError: They cannot be written.
    """
    results = read_results(runs, path)
    rows = rows_of(runs, results)
    return rows, [*write_table(rows, path), *write_figures(runs, results, path)]
