"""The command `rivals`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, interruptible, print_json, print_tables, tell
from circuitfind.commands.options import Budget, Circuit, Device, Json, Memory, limited
from circuitfind.commands.progress import progress_bar


def rivals(
    circuit: Circuit,
    restarts: Annotated[
        int, limited("restarts", "Searches, where there are too many circuits to measure all.")
    ] = 12,
    threshold: Annotated[
        float | None, limited("restart_threshold", "Threshold of these.", default="that of the run")
    ] = None,
    tolerance: Annotated[
        float, limited("tolerance", "How much less faithful than the circuit a rival may be.")
    ] = 0.0,
    seed: Annotated[int, limited("seed", "Fixes the orders of the searches.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Directory to write to. [default: CIRCUIT-rivals]")
    ] = None,
    device: Device = "cpu",
    memory: Memory = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Find circuits that do as well with other edges: is it the circuit, or a circuit?"""
    from circuitfind.budget import seconds_of, within
    from circuitfind.directories.rivals import RivalsConfig
    from circuitfind.reports.rivals import rivals_tables
    from circuitfind.verbs.rivals import find_rivals, path_of_rivals

    settings = RivalsConfig(restarts, threshold, tolerance, seed, device, memory)
    path = out or path_of_rivals(circuit, settings)
    with interruptible(path, budget), progress_bar() as on_progress:
        advance = within(seconds_of(budget), on_progress)
        found = find_rivals(circuit, settings, path, tell=tell, on_progress=advance)
    if as_json:
        print_json(found.rivals.as_json())
        return
    print_tables(rivals_tables(found.rivals))
    emit("".join(f"{file}\n" for file in found.written))
