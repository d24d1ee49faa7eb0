"""The rankings of a benchmark, read from their directories, and the files of its leaderboard."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuitfind.directories.ranking import FIGURES, RankingDirectory, RankingResult
from circuitfind.errors import CircuitfindError
from circuitfind.reports.bars import Row as Bar
from circuitfind.reports.bars import draw_bars
from circuitfind.store import reported, write
from circuitfind.sweeps.figures import FIGURES as FOLDER
from circuitfind.sweeps.leaderboard import Leaderboard, Mean
from circuitfind.sweeps.running import RUNS
from circuitfind.sweeps.suite import PlannedRanking
from circuitfind.sweeps.table import Row, csv_text

TABLE, RANKINGS = "leaderboard", "rankings.csv"


def read_rankings(runs: Sequence[PlannedRanking], path: Path) -> dict[str, RankingResult]:
    """Return the results of finished rankings, by name; not those of other settings."""
    found = {}
    for run in runs:
        try:
            directory = RankingDirectory(path / RUNS / run.name, run.config)
            directory.require_same()
            result = directory.result()
        except CircuitfindError:
            continue
        if result is not None:
            found[run.name] = result
    return found


def with_finished(
    runs: Sequence[PlannedRanking],
    planned: Sequence[PlannedRanking],
    results: Mapping[str, RankingResult],
) -> list[PlannedRanking]:
    """Return rankings, and those of every method of the suite of which any is finished.

    Args:
        runs: Those that are wanted.
        planned: All of the suite.
        results: The results of the finished ones.
    """
    methods = {run.label for run in runs} | {run.label for run in planned if run.name in results}
    return [run for run in planned if run.label in methods]


def write_leaderboard(
    board: Leaderboard,
    runs: Sequence[PlannedRanking],
    results: Mapping[str, RankingResult],
    path: Path,
) -> list[Path]:
    """Write the tables, as Markdown and CSV, and a figure for each kind of figures.

    Raises:
        RunDirectoryError: They cannot be written.
    """
    files = {
        path / f"{TABLE}.md": board.markdown(),
        path / f"{TABLE}.csv": csv_text(board.rows()),
        path / RANKINGS: csv_text([ranking_row(run, results.get(run.name)) for run in runs]),
    }
    for name, called in board.names.items():
        with_it = [each for each in board.standings if name in each.figures]
        bars = [_bar(each.method, each.figures[name]) for each in with_it]
        if bars:
            axis = "a dot per case, a bar to their mean, a line over its 95 % interval"
            files[path / FOLDER / f"{name}.svg"] = draw_bars(called, axis, bars).svg()
    with reported(path):
        (path / FOLDER).mkdir(exist_ok=True)
    for file, content in files.items():
        write(file, content)
    return list(files)


def ranking_row(run: PlannedRanking, result: RankingResult | None) -> Row:
    """Return a row of plain values about one ranking; what has no value is None."""
    config, cost = run.config, result and result.cost
    figures = result.figures if result else {}
    return {
        "run": run.name,
        "case": run.case,
        "model": config.model,
        "task": config.task,
        "ablation": config.ablation,
        "method": run.label,
        "seed": config.seed,
        "finished": result is not None,
        **{name: figures.get(name) for name in FIGURES[config.measure]},
        "n_edges": result and result.n_edges,
        "n_true": result and result.n_true,
        "best": result and result.best,
        "held_out": result and result.held_out,
        "seconds": cost and cost.seconds,
        "seconds_plain": cost and cost.seconds_plain,
        "bytes": cost and cost.bytes,
        "bytes_plain": cost and cost.bytes_plain,
        "refused": result and result.refused,
    }


def _bar(method: str, figure: Mean) -> Bar:
    ends = None if figure.low is None or figure.high is None else (figure.low, figure.high)
    return Bar(method, method, tuple(figure.by_case.values()), interval=ends)
