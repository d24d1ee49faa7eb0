"""The command `mib`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, interruptible, print_json, print_table, tell
from circuitfind.commands.options import (
    Budget,
    Device,
    Dtype,
    Json,
    Memory,
    Model,
    Prompts,
    Seed,
    limited,
)
from circuitfind.commands.progress import progress_bar


def mib(
    task: Annotated[
        str,
        typer.Argument(
            help="What circuits are measured on: a task, or a .jsonl file, also one of rows of "
            "MIB's data sets."
        ),
    ],
    model: Model = None,
    method: Annotated[
        str | None,
        typer.Option(help="What scores all edges (`circuitfind methods`). [default: eap-ig]"),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="An option of the method, NAME=VALUE; repeatable. See `discover`."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            help="Measure these scores instead: a run directory, or a submission's folder, "
            "importances.json or .pt."
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            help="Task or file whose prompts scores are computed on. [default: other prompts of "
            "TASK; those of a file itself]"
        ),
    ] = None,
    train_prompts: Annotated[
        int | None, limited("prompts", "How many of them.", default="as many as --prompts")
    ] = None,
    level: Annotated[str, typer.Option(help="Rank edges or components.")] = "edges",
    against: Annotated[
        str | None,
        typer.Option(
            help="Also compare with a known circuit, as InterpBench does: `known`, a run directory "
            "or a circuit file."
        ),
    ] = None,
    prompts: Prompts = 64,
    seed: Seed = 0,
    dtype: Dtype = None,
    device: Device = "cpu",
    memory: Memory = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory to write; interrupted, it resumes. [default: runs/mib-NAME]"),
    ] = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Measure a ranking of edges by the protocol of MIB's circuit track: CPR and CMD."""
    from circuitfind.budget import seconds_of, within
    from circuitfind.directories.mib import RESULT, MibConfig, path_of_mib
    from circuitfind.methods.settings import parsed_settings
    from circuitfind.reports.mib import mib_tables
    from circuitfind.store import read_json
    from circuitfind.tasks import model_for
    from circuitfind.verbs.mib import measure_mib

    default = "eap-ig" if scores is None else ""
    config = MibConfig(
        task,
        model_for(task, model),
        default if method is None else method,
        level=level,
        options=parsed_settings(method or "eap-ig", option or []),
        scores=None if scores is None else str(scores),
        train=train,
        n_train=train_prompts,
        against=against,
        n_prompts=prompts,
        seed=seed,
        dtype=dtype,
        device=device,
        memory=memory,
    )
    config.validate()
    path = out or path_of_mib(config)
    with interruptible(path, budget), progress_bar() as on_progress:
        found = measure_mib(
            path, config, tell=tell, on_progress=within(seconds_of(budget), on_progress)
        )
    if as_json:
        print_json(read_json(found.path / RESULT))
        return
    for table in mib_tables(found.result):
        print_table(table)
        emit("\n")
    emit(f"{found.path / RESULT}\n{found.submission}\n")
