"""Several values from 0 to 1 for each of some settings: a row each, with a bar to their mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from circuitfind.reports.canvas import FAINT, LINE, PALETTE, QUIET, Canvas, text_width
from circuitfind.reports.diagram import Diagram

_WIDTH, _ROW, _TOP = 300.0, 22.0, 52.0
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Row:
    """A setting.

    Attributes:
        label: Its name.
        group: What decides the colour.
        values: The values; at least one.
        expected: What chance gives; None if that is not known.
    """

    label: str
    group: str
    values: tuple[float, ...]
    expected: float | None = None


def draw_bars(title: str, axis: str, rows: Sequence[Row]) -> Diagram:
    """Draw a dot per value, a bar to their mean, and a black mark at what chance gives."""
    canvas, groups = Canvas("bars"), list(dict.fromkeys(row.group for row in rows))
    canvas.text(0.0, 0.0, title)
    canvas.text(0.0, LINE, axis, colour=QUIET)
    left = 10 + max(text_width(row.label) for row in rows)
    bottom = _TOP + _ROW * len(rows)
    for tick in _TICKS:
        x = left + _WIDTH * tick
        canvas.line([(x, _TOP - 6), (x, bottom)], FAINT)
        canvas.text(x, bottom + 10, f"{tick:g}", just="")
    for number, row in enumerate(rows):
        colour = PALETTE[groups.index(row.group) % len(PALETTE)]
        _row(canvas, row, colour, (left, _TOP + _ROW * (number + 0.5)))
    return Diagram(canvas.dot)


def _row(canvas: Canvas, row: Row, colour: str, start: tuple[float, float]) -> None:
    (left, y), mean = start, sum(row.values) / len(row.values)
    canvas.text(left - 6, y, row.label, just="r")
    length, faded = _WIDTH * mean, f"{colour}55"
    if length:
        canvas.box((left + length / 2, y), (length, 12.0), fillcolor=faded, color=faded)
    for value in row.values:
        at = left + _WIDTH * value, y
        canvas.box(at, (6.0, 6.0), shape="circle", color=colour, fillcolor=colour)
    said = f"{mean:.2f}"
    if row.expected is not None:
        at = left + _WIDTH * row.expected, y
        canvas.box(at, (2.0, 16.0), fillcolor="#000000", tooltip=f"chance: {row.expected:.2f}")
        said += f" (chance {row.expected:.2f})"
    canvas.text(left + _WIDTH + 10, y, said)
