"""The command `certify`."""

from typing import Annotated

import typer

from circuitfind.commands.console import emit, interruptible, print_json, tell
from circuitfind.commands.options import Budget, Circuit, Device, Json, Memory, limited
from circuitfind.commands.progress import progress_bar


def certify(
    circuit: Circuit,
    cases: Annotated[
        int,
        limited("cases", "Inputs, or pairs of inputs, to check at most; of more, random ones."),
    ] = 100_000,
    tries: Annotated[
        int, limited("tries", "Circuits to try at most for each level of minimality.")
    ] = 20_000,
    tolerance: Annotated[
        float, limited("tolerance", "How far numerical outputs may differ.")
    ] = 1e-6,
    device: Device = "cpu",
    memory: Memory = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Check a circuit on every input, and whether it can be smaller; exit with 1 if it differs.

    Of too many inputs random ones are checked, and of a language model held-out prompts: these
    bound how often the circuit differs.
    """
    from circuitfind.budget import seconds_of, within
    from circuitfind.reports.certificate import certificate_text
    from circuitfind.store import read_json
    from circuitfind.verbs.certify import certify_run

    with interruptible(None, budget), progress_bar() as on_progress:
        file, found = certify_run(
            circuit,
            cases=cases,
            tries=tries,
            tolerance=tolerance,
            device=device,
            memory=memory,
            tell=tell,
            on_progress=within(seconds_of(budget), on_progress),
        )
    if as_json:
        print_json(read_json(file))
    else:
        emit(certificate_text(found))
        emit(f"{file}\n")
    if not found.equal:
        raise typer.Exit(1)
