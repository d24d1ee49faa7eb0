"""The command `dissociate`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, interruptible, print_json, print_tables, tell
from circuitfind.commands.options import Budget, Device, Json, Memory, limited
from circuitfind.commands.progress import progress_bar


def dissociate(
    circuits: Annotated[
        list[Path],
        typer.Argument(help="Run directories or circuit files of one model, two or more."),
    ],
    text: Annotated[
        Path | None,
        typer.Option(help="A file of unrelated text: the loss of its next tokens is a column too."),
    ] = None,
    own_edges: Annotated[
        bool,
        typer.Option("--own-edges", help="Cut the edges of a circuit that no other one has."),
    ] = False,
    draws: Annotated[int, limited("draws", "Random circuits that each is compared with.")] = 20,
    seed: Annotated[int, limited("seed", "Fixes the random circuits.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory to write to. [default: runs/dissociation-NAMES]"),
    ] = None,
    device: Device = "cpu",
    memory: Memory = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Knock each circuit out of the model and measure every task: which does which need?"""
    from circuitfind.budget import seconds_of, within
    from circuitfind.directories.dissociation import DissociationConfig
    from circuitfind.reports.dissociation import dissociation_tables
    from circuitfind.verbs.dissociate import dissociate_runs, path_of_dissociation

    given = None if text is None else str(text)
    settings = DissociationConfig(given, own_edges, draws, seed, device, memory)
    path = out or path_of_dissociation(circuits, settings)
    with interruptible(path, budget), progress_bar() as on_progress:
        advance = within(seconds_of(budget), on_progress)
        found = dissociate_runs(circuits, settings, path, tell=tell, on_progress=advance)
    if as_json:
        print_json(found.dissociation.as_json())
        return
    print_tables(dissociation_tables(found.dissociation))
    emit("".join(f"{file}\n" for file in found.written))
