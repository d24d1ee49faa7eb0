"""The command `draw`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit
from circuitfind.commands.options import Circuit, limited


def draw(
    circuit: Circuit,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write: .svg, .png, .dot or .pdf. [default: beside the circuit]"),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another circuit: draw what is shared and what is not.")
    ] = None,
    top: Annotated[
        int | None,
        limited(
            "top", "Draw this many edges at most, those with the largest effects.", default="1500"
        ),
    ] = None,
    merge_qkv: Annotated[
        bool,
        typer.Option("--merge-qkv", help="Draw edges of one writer into one head as one line."),
    ] = False,
    layers: Annotated[
        str | None,
        typer.Option(help="Draw the edges of these layers alone, such as 3-5,8. [default: all]"),
    ] = None,
    title: Annotated[str, typer.Option(help="A line to write under the drawing.")] = "",
    scale: Annotated[float, limited("scale", "Size of a .png; 1 is 2 pixels a point.")] = 1.0,
    width: Annotated[
        int | None,
        limited("width", "Width of a .png, instead of --scale.", default="as --scale says"),
    ] = None,
    cm: Annotated[
        float | None,
        limited("cm", "Width on paper of an .svg or .pdf.", default="what 10-point names need"),
    ] = None,
    style: Annotated[
        str,
        typer.Option(help="colour (which colour-blind readers can tell apart), greyscale or dark."),
    ] = "colour",
) -> None:
    """Draw a circuit, or the difference of two."""
    from circuitfind.errors import ReportError
    from circuitfind.reports.rendering import Pixels
    from circuitfind.verbs.draw import Look, draw_run, draw_runs

    if cm is not None and (out or Path("x.svg")).suffix.lower() == ".png":
        raise ReportError("--cm is for .svg and .pdf files; give --width or --scale for a .png")
    look = Look(title, top, merge_qkv, layers, style, cm)
    diagram, beside = (
        draw_run(circuit, look) if against is None else draw_runs(circuit, against, look)
    )
    emit(f"{diagram.save(out or beside, Pixels(scale, width))}\n")
