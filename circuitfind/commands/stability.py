"""The command `stability`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, interruptible, print_json, print_rows, tell
from circuitfind.commands.options import Budget, Json, Memory, limited
from circuitfind.commands.progress import progress_bar


def stability(
    run: Annotated[Path, typer.Argument(help="A finished run's directory.")],
    vary: Annotated[
        str | None,
        typer.Option(
            help="What to vary, separated by commas: resamples, seeds, orders, thresholds. "
            "[default: all that the method depends on]"
        ),
    ] = None,
    repetitions: Annotated[int, limited("repetitions", "Repetitions for each.")] = 5,
    share: Annotated[
        float, limited("share", "Share of the runs that keep an edge of the consensus.")
    ] = 0.8,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the repetitions go. [default: RUN-stability]"),
    ] = None,
    memory: Memory = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Repeat a run under other conditions: how much of its circuit stays?"""
    from dataclasses import asdict

    from circuitfind.budget import seconds_of, within
    from circuitfind.directories.stability import CONSENSUS, DIAGRAM, STABILITY
    from circuitfind.store import read_json
    from circuitfind.verbs.stability import repeat_run

    varied = [name.strip() for name in vary.split(",")] if vary else []
    with interruptible(out or run, budget), progress_bar() as on_progress:
        found = repeat_run(
            run,
            varied=varied,
            n=repetitions,
            share=share,
            out=out,
            memory=memory,
            tell=tell,
            on_progress=within(seconds_of(budget), on_progress),
        )
    figures = found.stability
    if as_json:
        print_json(read_json(found.path / STABILITY))
        return
    rows = [
        {name: round(v, 3) if isinstance(v, float) else v for name, v in asdict(row).items()}
        for row in figures.variations
    ]
    print_rows(rows)
    emit(
        f"consensus: {figures.n_consensus} edges in at least {share:.0%} of {figures.n_runs} runs\n"
    )
    emit("".join(f"{found.path / name}\n" for name in (STABILITY, CONSENSUS, DIAGRAM)))
