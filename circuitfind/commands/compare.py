"""The command `compare`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, print_json, print_table, tell
from circuitfind.commands.options import Json


def compare(
    circuits: Annotated[
        list[Path], typer.Argument(help="Run directories or circuit files, two or more.")
    ],
    out: Annotated[Path, typer.Option(help="Directory to write to.")] = Path("runs/comparison"),
    draws: Annotated[
        int, typer.Option(help="Random circuits to compare with, where not all can be counted.")
    ] = 9_999,
    seed: Annotated[int, typer.Option(help="Fixes what is drawn at random.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare circuits: what they share, and what they would share by chance."""
    from circuitfind.reports.comparison import circuits_table, pairs_table
    from circuitfind.runs.comparing import Settings, compare_files

    found, drawings = compare_files(circuits, out, Settings(seed, draws), tell=tell)
    if as_json:
        print_json(found.as_json())
        return
    print_table(circuits_table(found))
    emit("\n")
    print_table(pairs_table(found))
    emit("".join(f"{file}\n" for file in (out / "comparison.json", *drawings)))
