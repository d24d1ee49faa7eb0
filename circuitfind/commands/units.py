"""The command `units`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, interruptible, print_json, print_rows, tell
from circuitfind.commands.options import Budget, Circuit, Device, Json, limited


def units(
    circuit: Circuit,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A text file that the model reads. [default: the run's clean prompts]",
        ),
    ] = None,
    shown: Annotated[
        int, limited("shown", "How many tokens, and contexts, of each unit at most.")
    ] = 5,
    device: Device = "cpu",
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Describe a circuit's neurons or latents by the tokens and contexts that activate them."""
    from rich.markup import escape

    from circuitfind.records import as_json as plain
    from circuitfind.verbs.units import units_of

    with interruptible(None, budget):
        found = units_of(circuit, text=text, n_shown=shown, device=device, tell=tell)
    if as_json:
        print_json([plain(unit) for unit in found])
        return
    if not found:
        emit("no kept edge touches a neuron or a latent\n")
        return
    print_rows(
        [
            {
                **row,
                "effect": "-" if row["effect"] is None else f"{row['effect']:+.3g}",
                "active": f"{row['active']:.1%}",
                "tokens": escape(row["tokens"]),
                "contexts": escape(row["contexts"]),
            }
            for row in found.records()
        ]
    )
