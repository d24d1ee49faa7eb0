"""Several values for each of some settings: a row each, with a bar to their mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from circuitfind.reports.canvas import FAINT, LINE, PALETTE, QUIET, Canvas, text_width
from circuitfind.reports.diagram import Diagram

_WIDTH, _ROW, _TOP = 300.0, 22.0, 52.0
_STEP = 0.25


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

    The axis goes from 0 to 1, or as far beyond as values are.
    """
    canvas, groups = Canvas("bars"), list(dict.fromkeys(row.group for row in rows))
    canvas.text(0.0, 0.0, title)
    canvas.text(0.0, LINE, axis, colour=QUIET)
    left = 10 + max(text_width(row.label) for row in rows)
    bottom = _TOP + _ROW * len(rows)
    most = max(1.0, *(value for row in rows for value in (*row.values, *(row.interval or ()))))
    scale = _WIDTH / (math.ceil(most / _STEP) * _STEP)
    for number in range(math.ceil(most / _STEP) + 1):
        tick = number * _STEP
        x = left + scale * tick
        canvas.line([(x, _TOP - 6), (x, bottom)], FAINT)
        canvas.text(x, bottom + 10, f"{tick:g}", just="")
    for number, row in enumerate(rows):
        colour = PALETTE[groups.index(row.group) % len(PALETTE)]
        _row(canvas, row, colour, (left, _TOP + _ROW * (number + 0.5)), scale)
    return Diagram(canvas.dot)


def _row(canvas: Canvas, row: Row, colour: str, start: tuple[float, float], scale: float) -> None:
    (left, y), mean = start, sum(row.values) / len(row.values)
    canvas.text(left - 6, y, row.label, just="r")
    length, faded = scale * max(0.0, mean), f"{colour}55"
    if length:
        canvas.box((left + length / 2, y), (length, 12.0), fillcolor=faded, color=faded)
    for value in row.values:
        at = left + scale * value, y
        canvas.box(at, (6.0, 6.0), shape="circle", color=colour, fillcolor=colour)
    if row.interval is not None:
        canvas.line([(left + scale * end, y) for end in row.interval], "#000000")
    said = f"{mean:.2f}"
    if row.expected is not None:
        at = left + scale * row.expected, y
        canvas.box(at, (2.0, 16.0), fillcolor="#000000", tooltip=f"chance: {row.expected:.2f}")
        said += f" (chance {row.expected:.2f})"
    canvas.text(left + _WIDTH + 10, y, said)
