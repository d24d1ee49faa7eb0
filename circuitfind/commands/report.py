"""The command `report`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, interruptible, tell
from circuitfind.commands.options import Budget, Memory


def report(
    run: Annotated[Path, typer.Argument(help="A finished run's directory, or a circuit file.")],
    against: Annotated[
        Path | None,
        typer.Option(help="Another one: show both side by side, and their difference."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write. [default: report.html in the run directory]")
    ] = None,
    memory: Memory = None,
    budget: Budget = None,
) -> None:
    """Write a run's report: one HTML file to explore it in any browser, without a network."""
    from circuitfind.verbs.report import write_report

    with interruptible(run, budget):
        written = write_report(run, against=against, out=out, memory=memory, tell=tell)
    emit(f"{written}\n")
