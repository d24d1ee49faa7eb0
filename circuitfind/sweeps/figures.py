"""The figures of a sweep: faithfulness against size, stability over seeds, agreement of methods."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuitfind.reports.charts import Panel, dot_chart, matrix_chart, size_chart
from circuitfind.runs.directory import reported, write_whole
from circuitfind.runs.results import RunResult
from circuitfind.sweeps.agreement import comparison, found_circuits, stabilities
from circuitfind.sweeps.plan import PlannedRun, short_name

FIGURES = "figures"


def write_figures(
    runs: Sequence[PlannedRun], results: Mapping[str, RunResult], path: Path
) -> list[Path]:
    """Write the figures that the finished runs of a sweep allow.

    Raises:
        RunDirectoryError: They cannot be written.
    """
    found = found_circuits(runs, {name: result.circuit for name, result in results.items()})
    figures = {}
    if panels := _panels(runs, results):
        figures["faithfulness"] = size_chart(panels, "Faithfulness against size, mean over seeds")
    if rows := stabilities(found):
        figures["stability"] = dot_chart(
            [(row.label, row.method, row.values) for row in rows],
            "Stability over seeds",
            "Jaccard index of every pair of seeds",
        )
    names, values = comparison(found)
    if len(names) > 1:
        title = "Agreement of circuits: mean Jaccard index"
        figures["comparison"] = matrix_chart(names, values, title)
    files = {path / FIGURES / f"{name}.svg": text for name, text in figures.items()}
    with reported(path):
        (path / FIGURES).mkdir(exist_ok=True)
        for file, text in files.items():
            write_whole(file, text)
    return list(files)


def _panels(runs: Sequence[PlannedRun], results: Mapping[str, RunResult]) -> list[Panel]:
    """Return a panel per model and task, a curve per method, a point per choice of size."""
    points: dict[str, dict[str, dict[object, list[tuple[float, float]]]]] = {}
    for run in runs:
        card = results[run.name].card if run.name in results else None
        if card is None or card.measurements[0].faithfulness is None:
            continue
        config = run.config
        title = f"{short_name(config.task)} in {short_name(config.model)}"
        choice = config.options.get("threshold"), config.options.get("n_edges")
        point = card.n_edges / card.n_edges_full, card.measurements[0].faithfulness
        curve = points.setdefault(title, {}).setdefault(config.method, {})
        curve.setdefault(choice, []).append(point)
    return [
        Panel(title, {method: list(map(_mean, c.values())) for method, c in curves.items()})
        for title, curves in points.items()
    ]


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    n = len(points)
    return sum(x for x, _ in points) / n, sum(y for _, y in points) / n
