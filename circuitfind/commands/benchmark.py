"""The command `benchmark`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, interruptible, print_rows
from circuitfind.commands.options import Budget, Json, limited


def benchmark(
    suite: Annotated[
        str,
        typer.Argument(
            help="truth, zoo or smollm2, which ship with the package, or a suite file, in TOML "
            "(docs/benchmark.md)."
        ),
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Run and show only this method, as the suite calls it; repeatable. The files "
            "hold every method that was run. [default: all]"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory; repeating the command goes on. [default: leaderboards/NAME]"),
    ] = None,
    workers: Annotated[
        int | None,
        limited("workers", "How many rankings at a time.", default="what the machine allows"),
    ] = None,
    retries: Annotated[
        int, limited("retries", "How often a ranking that crashed is tried again.")
    ] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the suite and list the rankings, without any.")
    ] = False,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Benchmark methods on a suite of cases: a leaderboard with intervals, times and memory."""
    from circuitfind.commands.live import watching
    from circuitfind.commands.sweep import launcher
    from circuitfind.sweeps.leaderboard import leaderboard
    from circuitfind.sweeps.rankings import read_rankings, with_finished, write_leaderboard
    from circuitfind.sweeps.running import run_sweep
    from circuitfind.sweeps.suite import read_suite, suite_file

    file = suite_file(suite)
    planned, runs = read_suite(file), read_suite(file, method or ())
    path = out or Path("leaderboards") / file.stem
    if dry_run:
        print_rows([{"ranking": run.name} for run in runs], as_json=as_json)
        return
    with interruptible(path, budget), watching() as watch:
        # One thread each, so that times are those of the work and not of the machine's load.
        state = run_sweep(
            runs, path, launcher(None, workers, 1, runs), retries=retries, watch=watch
        )
        results = read_rankings(planned, path)
        board, written = leaderboard(runs, results), with_finished(runs, planned, results)
        files = write_leaderboard(leaderboard(written, results), written, results, path)
    print_rows(board.rows() if as_json else board.shown(), as_json=as_json)
    if not as_json:
        emit("".join(f"{number}. {note}\n" for number, note in enumerate(board.notes(), 1)))
        emit("".join(f"{file}\n" for file in files))
    state.require_success(path)
