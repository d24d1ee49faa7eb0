"""The command `compare`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, interruptible, print_json, print_table, tell
from circuitfind.commands.options import Budget, Device, Json, Memory, limited

MOST_IN_FULL = 3
"""More circuits than these are shown with a row for each two; the file has everything."""


def compare(
    circuits: Annotated[
        list[Path], typer.Argument(help="Run directories or circuit files, two or more.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Directory to write to. [default: runs/comparison-NAMES]"),
    ] = None,
    draws: Annotated[
        int, limited("draws", "Random circuits to compare with, where not all can be counted.")
    ] = 9_999,
    by_name: Annotated[
        bool, typer.Option("--by-name", help="Compare names alone; loads no model.")
    ] = False,
    seed: Annotated[int, limited("seed", "Fixes what is drawn at random.")] = 0,
    device: Device = "cpu",
    memory: Memory = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Compare circuits: what they share, and what they would share by chance."""
    from circuitfind.directories.comparison import COMPARISON, ComparisonConfig
    from circuitfind.reports.comparison import (
        circuits_table,
        pairs_table,
        roles_table,
        summary_table,
    )
    from circuitfind.verbs.compare import compare_files, path_of_comparison

    settings = ComparisonConfig(seed, draws, by_name, device, memory)
    path = out or path_of_comparison(circuits, settings)
    with interruptible(path, budget):
        found, drawings = compare_files(circuits, path, settings, tell=tell)
    if as_json:
        print_json(found.as_json())
        return
    print_table(circuits_table(found))
    emit("\n")
    print_table(pairs_table(found) if len(circuits) <= MOST_IN_FULL else summary_table(found))
    if any(side.roles for side in found.circuits):
        emit("\n")
        print_table(roles_table(found))
    emit("".join(f"{file}\n" for file in (path / COMPARISON, *drawings)))
