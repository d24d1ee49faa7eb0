"""The command `report`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, tell


def report(
    run: Annotated[Path, typer.Argument(help="The directory of a finished run.")],
    against: Annotated[
        Path | None,
        typer.Option(help="Another finished run: show both side by side, and their difference."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write. [default: report.html in the run directory]")
    ] = None,
) -> None:
    """Write a run's report: one HTML file to explore it in any browser, without a network."""
    from circuitfind.runs.report import write_report

    emit(f"{write_report(run, against=against, out=out, tell=tell)}\n")
