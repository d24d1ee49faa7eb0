"""The command `families`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, interruptible, print_json, print_tables, tell
from circuitfind.commands.options import Budget, Circuit, Device, Json, Memory, limited
from circuitfind.commands.progress import progress_bar


def families(
    circuit: Circuit,
    ranked_by: Annotated[
        str,
        typer.Option(
            help="What scores the edges for each prompt: eap, eap-ig, either with rules for its "
            "gradients (eap:gim), or exact: the effect of cutting each edge alone."
        ),
    ] = "eap-ig",
    families: Annotated[
        int | None,
        limited("families", "How many families.", default="by a test and the silhouette"),
    ] = None,
    target_faithfulness: Annotated[
        float, limited("target_faithfulness", "That of a family's circuit on its prompts.")
    ] = 0.9,
    seed: Annotated[int, limited("seed", "Fixes the halves of the test.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Directory to write to. [default: CIRCUIT-families]")
    ] = None,
    device: Device = "cpu",
    memory: Memory = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Find prompts that share a circuit: is there one circuit, or one for each kind of prompt?"""
    from circuitfind.budget import seconds_of, within
    from circuitfind.directories.families import FamiliesConfig
    from circuitfind.reports.families import families_tables
    from circuitfind.verbs.families import find_families, path_of_families

    settings = FamiliesConfig(ranked_by, families, target_faithfulness, seed, device, memory)
    path = out or path_of_families(circuit, settings)
    with interruptible(path, budget), progress_bar() as on_progress:
        advance = within(seconds_of(budget), on_progress)
        found = find_families(circuit, settings, path, tell=tell, on_progress=advance)
    if as_json:
        print_json(found.families.as_json())
        return
    print_tables(families_tables(found.families))
    emit("".join(f"{file}\n" for file in found.written))
