"""The commands `benchmark` and `truth`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuitfind.commands.console import emit, interruptible, print_rows
from circuitfind.commands.options import Budget, Json, limited

if TYPE_CHECKING:
    from circuitfind.sweeps.leaderboard import Leaderboard
    from circuitfind.sweeps.running import State
    from circuitfind.sweeps.suite import PlannedRanking

_RETRIES = 2


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
    ] = _RETRIES,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the suite and list the rankings, without any.")
    ] = False,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Benchmark methods on a suite of cases: a leaderboard with intervals, times and memory."""
    path, (planned, runs) = _of_suite(suite, method, out)
    if dry_run:
        print_rows([{"ranking": run.name} for run in runs], as_json=as_json)
        return
    state, board, files = _ranked(path, planned, runs, workers, retries, budget)
    print_rows(board.rows() if as_json else board.shown(), as_json=as_json)
    if not as_json:
        emit("".join(f"{number}. {note}\n" for number, note in enumerate(board.notes(), 1)))
        emit("".join(f"{file}\n" for file in files))
    state.require_success(path)


def truth(
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method, with its defaults; repeatable. [default: acdc]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory; repeating goes on. [default: leaderboards/truth]"),
    ] = None,
    workers: Annotated[
        int | None,
        limited("workers", "How many rankings at a time.", default="what the machine allows"),
    ] = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Try methods on models whose circuits are known: precision, recall and AUROC of each."""
    path, (planned, runs) = _of_suite("truth", method or ["acdc"], out)
    from circuitfind.reports.terminal import filled_columns

    state, board, _ = _ranked(path, planned, runs, workers, _RETRIES, budget)
    if as_json:
        print_rows(board.by_case_and_method(), as_json=True)
    else:
        print_rows(filled_columns(board.by_case_and_method()))
        emit("\n")
        print_rows(board.shown())
        emit("".join(f"{number}. {note}\n" for number, note in enumerate(board.notes(), 1)))
    state.require_success(path)


def _of_suite(
    suite: str, methods: Sequence[str] | None, out: Path | None
) -> "tuple[Path, tuple[Sequence[PlannedRanking], Sequence[PlannedRanking]]]":
    """Return where a leaderboard lies, all rankings of the suite, and those that are wanted."""
    from circuitfind.sweeps.suite import read_suite, suite_file

    file = suite_file(suite)
    path = out or Path("leaderboards") / file.stem
    return path, (read_suite(file), read_suite(file, methods or ()))


def _ranked(
    path: Path,
    planned: "Sequence[PlannedRanking]",
    runs: "Sequence[PlannedRanking]",
    workers: int | None,
    retries: int,
    budget: str | None,
) -> "tuple[State, Leaderboard, list[Path]]":
    """Make the rankings that are wanted, and write the leaderboard of all that are there."""
    from circuitfind.commands.live import watching
    from circuitfind.commands.sweep import launcher
    from circuitfind.sweeps.leaderboard import leaderboard
    from circuitfind.sweeps.rankings import read_rankings, with_finished, write_leaderboard
    from circuitfind.sweeps.running import run_sweep

    with interruptible(path, budget), watching() as watch:
        # One thread each, so that times are those of the work and not of the machine's load.
        state = run_sweep(
            runs, path, launcher(None, workers, 1, runs), retries=retries, watch=watch
        )
        results = read_rankings(planned, path)
        board, written = leaderboard(runs, results), with_finished(runs, planned, results)
        files = write_leaderboard(leaderboard(written, results), written, results, path)
    return state, board, files
