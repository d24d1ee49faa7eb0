"""Several values for each of some settings: a row each, with a bar to their mean."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle

from circuitfind.reports.canvas import FAINT, LINE, PALETTE, QUIET, Canvas, text_width
from circuitfind.reports.diagram import Diagram

_WIDTH, _ROW, _TOP = 300.0, 22.0, 52.0
_STEP, _MOST_STEPS = 0.25, 8
_LARGEST = 1e300
"""Larger values are not drawn, nor are values that are not finite."""


@dataclass(frozen=True)
class Row:
    """A setting.

    Attributes:
        label: Its name.
        group: What decides the colour.
        values: The values; at least one.
        expected: What chance gives; None if that is not known.
        interval: Ends of an interval of the mean; None if that is not known.
    """

    label: str
    group: str
    values: tuple[float, ...]
    expected: float | None = None
    interval: tuple[float, float] | None = None


def draw_bars(title: str, axis: str, rows: Sequence[Row]) -> Diagram:
    """Draw a dot per value, a bar to their mean, and black marks at chance and intervals.

    The axis goes from 0 to 1, or as far beyond as values are. Values that are not finite are left
    out, but for the mean beside the bar.
    """
    canvas, groups = Canvas("bars"), list(dict.fromkeys(row.group for row in rows))
    canvas.text(0.0, 0.0, title)
    canvas.text(0.0, LINE, axis, colour=QUIET)
    left = 10 + max(text_width(row.label) for row in rows)
    bottom = _TOP + _ROW * len(rows)
    ticks = _ticks([value for row in rows for value in (*row.values, *(row.interval or ()))])
    scale = _WIDTH / (ticks[-1] - ticks[0])

    def place(value: float) -> float:
        return left + scale * (value - ticks[0])

    for tick in ticks:
        canvas.line([(place(tick), _TOP - 6), (place(tick), bottom)], FAINT)
        canvas.text(place(tick), bottom + 10, f"{tick:g}", just="")
    for number, row in enumerate(rows):
        colour = PALETTE[groups.index(row.group) % len(PALETTE)]
        y = _TOP + _ROW * (number + 0.5)
        canvas.text(left - 6, y, row.label, just="r")
        canvas.text(left + _WIDTH + 10, y, _row(canvas, row, colour, y, place))
    return Diagram(canvas.dot)


def _ticks(values: Sequence[float]) -> list[float]:
    """Return the ticks of an axis from 0 to 1, or as far beyond as finite values are."""
    finite = [value for value in values if _is_drawn(value)]
    low, high, step = min([0.0, *finite]), max([1.0, *finite]), _STEP
    for factor in cycle((2, 2, 2.5)):
        first, last = math.floor(low / step), math.ceil(high / step)
        if last - first <= _MOST_STEPS:
            break
        step *= factor
    return [number * step for number in range(first, last + 1)]


def _is_drawn(value: float) -> bool:
    return abs(value) < _LARGEST


def _row(canvas: Canvas, row: Row, colour: str, y: float, place: Callable[[float], float]) -> str:
    """Draw a row, and return what is said beside it."""
    mean, faded = sum(row.values) / len(row.values), f"{colour}55"
    if mean and _is_drawn(mean):
        ends = place(0.0), place(mean)
        size = abs(ends[1] - ends[0]), 12.0
        canvas.box((sum(ends) / 2, y), size, fillcolor=faded, color=faded)
    for value in filter(_is_drawn, row.values):
        at = place(value), y
        canvas.box(at, (6.0, 6.0), shape="circle", color=colour, fillcolor=colour)
    if row.interval is not None and all(map(_is_drawn, row.interval)):
        canvas.line([(place(end), y) for end in row.interval], "#000000")
    said = f"{mean:.2f}"
    if row.expected is not None:
        at = place(row.expected), y
        canvas.box(at, (2.0, 16.0), fillcolor="#000000", tooltip=f"chance: {row.expected:.2f}")
        said += f" (chance {row.expected:.2f})"
    return said
