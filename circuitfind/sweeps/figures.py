"""The figures of a sweep: faithfulness against size, stability over seeds, agreement of methods."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from circuitfind.directories.results import RunResult
from circuitfind.files import write_whole
from circuitfind.reports.bars import draw_bars
from circuitfind.reports.chart import Axis, Plane, Series, colour_of_series, draw_panels
from circuitfind.reports.diagram import Diagram
from circuitfind.reports.matrix import draw_cells
from circuitfind.store import reported
from circuitfind.sweeps.agreement import comparison, found_circuits, stabilities
from circuitfind.sweeps.planning import PlannedRun, short_name

FIGURES = "figures"

Point = tuple[float, float]


@dataclass(frozen=True)
class Mean:
    """Results of the runs of one setting.

    Attributes:
        share: Mean share of edges kept.
        faithfulness: Mean faithfulness.
        lowest: The lowest faithfulness.
        highest: The highest.
        n_runs: How many runs.
    """

    share: float
    faithfulness: float
    lowest: float
    highest: float
    n_runs: int


Curves = Mapping[str, Mapping[str, tuple[Mean, ...]]]
"""By what is studied and by method, in the order of the shares."""

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
        figures["faithfulness"] = draw_curves(curves)
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


def draw_curves(curves: Curves) -> Diagram:
    """Draw a panel per model and task, a line per method, a point per choice of size."""
    methods = list(dict.fromkeys(method for found in curves.values() for method in found))
    every = [mean for found in curves.values() for line in found.values() for mean in line]
    shares = [mean.share for mean in every if mean.share > 0]
    lowest = 10.0 ** min(-1, math.floor(math.log10(min(shares, default=0.1))))
    planes = []
    for title, found in curves.items():
        series = []
        for method, means in found.items():
            colour, dashed = colour_of_series(methods.index(method))
            series.append(
                Series(
                    method,
                    tuple((mean.share, mean.faithfulness) for mean in means),
                    colour,
                    dashed=dashed,
                    tips=tuple(f"{method}: {_said(mean)}" for mean in means),
                    ranges=tuple((mean.lowest, mean.highest) for mean in means),
                )
            )
        planes.append(Plane(tuple(series), title))
    x_axis = Axis("edges kept", lowest, 1.0, _POWERS, logarithmic=True, percent=True)
    y_axis = _faithfulness_axis([y for mean in every for y in (mean.lowest, mean.highest)])
    title = "Faithfulness against size, mean over seeds"
    if any(mean.n_runs > 1 for mean in every):
        title += "; bars from the lowest to the highest"
    return draw_panels(title, x_axis, y_axis, planes)


def _faithfulness_axis(values: Sequence[float]) -> Axis:
    """Return an axis from 0 to 1, or as far beyond as values are, up to 1 on either side."""
    low = max(-1.0, min(0.0, math.floor(4 * min(values)) / 4))
    high = min(2.0, max(1.0, math.ceil(4 * max(values)) / 4))
    ticks = tuple(low + 0.25 * step for step in range(round(4 * (high - low)) + 1))
    return Axis("faithfulness", low, high, ticks)


def _said(mean: Mean) -> str:
    said = f"{mean.share:.3%} of edges, faithfulness {mean.faithfulness:.3f}"
    if mean.n_runs == 1:
        return said
    return f"{said} ({mean.lowest:.3f} to {mean.highest:.3f} in {mean.n_runs} runs)"


def _curves(runs: Sequence[PlannedRun], results: Mapping[str, RunResult]) -> Curves:
    """Return the points of every method, by model and task."""
    points: dict[str, dict[str, dict[object, list[Point]]]] = {}
    for run in runs:
        card = results[run.name].card if run.name in results else None
        if card is None or card.measurements[0].faithfulness is None:
            continue
        config = run.config
        title = f"{short_name(config.task)} in {short_name(config.model)}"
        choice = config.threshold, config.n_edges
        point = card.n_edges / card.n_edges_full, card.measurements[0].faithfulness
        curve = points.setdefault(title, {}).setdefault(config.method, {})
        curve.setdefault(choice, []).append(point)
    return {
        title: {
            method: tuple(sorted(map(_mean, curve.values()), key=lambda mean: mean.share))
            for method, curve in curves.items()
        }
        for title, curves in points.items()
    }


def _mean(points: Sequence[Point]) -> Mean:
    shares, values = zip(*points, strict=True)
    return Mean(fmean(shares), fmean(values), min(values), max(values), len(points))
