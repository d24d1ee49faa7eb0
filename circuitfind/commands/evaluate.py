"""The command `evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import (
    emit,
    interruptible,
    print_json,
    print_tables,
    tell,
)
from circuitfind.commands.options import Budget, Circuit, Device, Json, Memory, limited
from circuitfind.commands.progress import progress_bar


def evaluate(
    circuit: Circuit,
    quick: Annotated[
        bool, typer.Option("--quick", help="Faithfulness, size curve, random circuits.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="More random circuits, knock-outs and sets.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            help="Compare with a run directory, a circuit file, or `known`: the circuit that is "
            "published for the task, or that the model states."
        ),
    ] = None,
    constants: Annotated[
        bool,
        typer.Option(
            "--constants",
            help="Train constants for what the circuit cuts (optimal ablation), and compare "
            "ablations.",
        ),
    ] = False,
    task: Annotated[
        str | None, typer.Option(help="Task, where the file does not say, or another.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model, where the file does not say, or another.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Another metric than the run's.")] = None,
    ablation: Annotated[str | None, typer.Option(help="Another ablation than the run's.")] = None,
    prompts: Annotated[int | None, limited("prompts", "Another number of prompts.")] = None,
    seed: Annotated[int, limited("seed", "Fixes random circuits and sets.")] = 0,
    device: Device = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write. [default: the run directory, or one beside it that is named by "
            "settings]"
        ),
    ] = None,
    memory: Memory = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Measure how good a circuit is: on prompts, against chance, and part by part."""
    from circuitfind.reports.evaluation import assessment_tables
    from circuitfind.verbs.evaluate import effort_of, evaluate_run
    from circuitfind.verbs.wish import Wish, path_of_evaluation

    given = {
        "task": task, "model": model, "metric": metric, "ablation": ablation, "n_prompts": prompts,
    }  # fmt: skip
    settings = tuple((name, value) for name, value in given.items() if value is not None)
    effort = effort_of(quick=quick, full=full)
    wish = Wish(effort, against, settings, out, seed, device, memory, constants)
    path = out or path_of_evaluation(circuit, wish)
    with interruptible(path, budget), progress_bar() as on_progress:
        found = evaluate_run(circuit, wish, tell=tell, on_progress=on_progress)
    if as_json:
        print_json(found.assessment.as_json())
        return
    print_tables(assessment_tables(found.assessment))
    emit("".join(f"{path}\n" for path in found.written))
