"""The figures of a sweep: faithfulness against size, stability over seeds, agreement of methods."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from circuitfind.reports.bars import draw_bars
from circuitfind.reports.chart import Axis, Plane, Series, colour_of_series, draw_panels
from circuitfind.reports.diagram import Diagram
from circuitfind.reports.matrix import draw_cells
from circuitfind.runs.directory import reported, write_whole
from circuitfind.runs.results import RunResult
from circuitfind.sweeps.agreement import comparison, found_circuits, stabilities
from circuitfind.sweeps.plan import PlannedRun, short_name

FIGURES = "figures"

Point = tuple[float, float]
Curves = Mapping[str, Mapping[str, tuple[Point, ...]]]
"""Shares of edges with the faithfulness, by what is studied and by method."""

_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_POWERS = tuple(10.0**power for power in range(-6, 1))
_CAPTION = (
    "Agreement of circuits: mean Jaccard index of the edges, and what layer profiles give by",
    "chance. Colour: how far of the way from chance to 1.",
)


def write_figures(
    runs: Sequence[PlannedRun], results: Mapping[str, RunResult], path: Path
) -> list[Path]:
    """Write the figures that the finished runs of a sweep allow.

    Raises:
        RunDirectoryError: They cannot be written.
    """
    found = found_circuits(runs, {name: result.circuit for name, result in results.items()})
    figures = {}
    if curves := _curves(runs, results):
        figures["faithfulness"] = _size_chart(curves)
    if rows := stabilities(found):
        axis = "Jaccard index of every pair of seeds; black: expected by layer profile"
        figures["stability"] = draw_bars("Stability over seeds", axis, rows)
    names, cells = comparison(found)
    if len(names) > 1:
        figures["comparison"] = draw_cells(names, cells, _CAPTION)
    with reported(path):
        (path / FIGURES).mkdir(exist_ok=True)
        return [file for name, drawn in figures.items() for file in _write(drawn, path, name)]


def _write(drawn: Diagram, path: Path, name: str) -> list[Path]:
    files: dict[Path, str | bytes] = {
        path / FIGURES / f"{name}.svg": drawn.svg(),
        path / FIGURES / f"{name}.png": drawn.png(),
    }
    for file, content in files.items():
        write_whole(file, content)
    return list(files)


def _size_chart(curves: Curves) -> Diagram:
    """Draw a panel per model and task, a line per method, a point per choice of size."""
    methods = list(dict.fromkeys(method for found in curves.values() for method in found))
    shares = [x for found in curves.values() for line in found.values() for x, _ in line if x > 0]
    lowest = 10.0 ** min(-1, math.floor(math.log10(min(shares, default=0.1))))
    planes = []
    for title, found in curves.items():
        series = []
        for method, points in found.items():
            colour, dashed = colour_of_series(methods.index(method))
            tips = [f"{method}: {x:.3%} of edges, faithfulness {y:.3f}" for x, y in points]
            series.append(Series(method, points, colour, dashed=dashed, tips=tuple(tips)))
        planes.append(Plane(tuple(series), title))
    x_axis = Axis("edges kept", lowest, 1.0, _POWERS, logarithmic=True, percent=True)
    y_axis = Axis("faithfulness", 0.0, 1.0, _TICKS)
    return draw_panels("Faithfulness against size, mean over seeds", x_axis, y_axis, planes)


def _curves(runs: Sequence[PlannedRun], results: Mapping[str, RunResult]) -> Curves:
    """Return the points of every method, by model and task."""
    points: dict[str, dict[str, dict[object, list[Point]]]] = {}
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
    return {
        title: {method: tuple(sorted(map(_mean, c.values()))) for method, c in curves.items()}
        for title, curves in points.items()
    }


def _mean(points: Sequence[Point]) -> Point:
    n = len(points)
    return sum(x for x, _ in points) / n, sum(y for _, y in points) / n
