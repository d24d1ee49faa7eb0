"""The command `draw`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit
from circuitfind.commands.options import Circuit


def draw(
    circuit: Circuit,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write: .svg, .png, .dot or .pdf. [default: beside the circuit]"),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another circuit: draw what is shared and what is not.")
    ] = None,
) -> None:
    """Draw a circuit, or the difference of two."""
    from circuitfind.runs.drawing import draw_run, draw_runs

    diagram, beside = draw_run(circuit) if against is None else draw_runs(circuit, against)
    emit(f"{diagram.save(out or beside)}\n")
