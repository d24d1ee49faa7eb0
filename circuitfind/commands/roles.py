"""The command `roles`."""

from circuitfind.commands.console import emit, interruptible, print_json, print_rows, tell
from circuitfind.commands.options import Budget, Circuit, Device, Json


def roles(
    circuit: Circuit, device: Device = "cpu", budget: Budget = None, as_json: Json = False
) -> None:
    """Name what heads do (previous-token, induction, mover, ...) and draw the circuit with it."""
    from dataclasses import asdict

    from circuitfind.verbs.draw import draw_run
    from circuitfind.verbs.roles import roles_of

    with interruptible(circuit, budget):
        of, found = roles_of(circuit, device=device, tell=tell)
        diagram, beside = draw_run(circuit)
        drawing = diagram.save(beside.with_name(f"{beside.stem.removeprefix('diagram')}roles.svg"))
    used = of.heads_and_mlps
    rows = [{**asdict(role), "in the circuit": role.component in used} for role in found]
    if as_json:
        print_json(rows)
        return
    if rows:
        print_rows([{**row, "number": f"{row['number']:.3f}"} for row in rows])
    else:
        emit("no head of this model earns a role on these prompts\n")
    emit(f"{drawing}\n")
