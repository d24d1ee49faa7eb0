"""What lines lead around: the rows of boxes, and the rows of units in the boxes of MLPs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from circuitfind.reports.layout import Layout
from circuitfind.reports.picture import Box
from circuitfind.reports.sizes import Range, box_height, box_width, name_width

_ASIDE = 4.0  # how far outside its column a line may pass
_CLEAR = 4.0  # least distance between a box and the middle of a line,
_CLEAR_OF_UNIT = 2.5  # and between a unit and the middle of a line
_BESIDE = 1e5  # width of the free space beside a row
_SIDE = 2.0  # height of the sides of an MLP's box


@dataclass(frozen=True)
class Row:
    """A row of boxes as an obstacle: its number, from y to y, and the gaps from x to x."""

    number: int
    low: float
    high: float
    gaps: tuple[Range, ...]

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class _Inside:
    """The rows of units in a box, from the bottom, as obstacles.

    Attributes:
        rows: The units; before and after them the sides of the box.
        row_of: The number of each unit's row among `rows`, by name.
    """

    rows: Sequence[Row]
    row_of: Mapping[str, int]


class Obstacles:
    """All rows of boxes, and those of units in them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.rows = [_row(layout, number, boxes) for number, boxes in enumerate(layout.rows)]
        self.number = {
            one.name: index
            for index, boxes in enumerate(layout.rows)
            for box in boxes
            for one in (box, *box.inner)
        }
        self._inside = dict[str, _Inside]()
        n_rows = len(self.rows)
        for box in layout.boxes.values():
            if box.units:
                outside = self.rows[self.number[box.name]]
                self._inside[box.name] = _inside_of(box, layout, outside, n_rows)
                n_rows += len(self._inside[box.name].rows)

    def row(self, name: str) -> Row:
        """Return the row that a box stands in."""
        outer = self._layout.outer[name].name
        if outer == name:
            return self.rows[self.number[name]]
        inside = self._inside[outer]
        return inside.rows[inside.row_of[name]]

    def between(self, low: str, high: str) -> list[Row]:
        """Return the rows between two boxes: in the box of the first, outside, in the other's."""
        layout = self._layout
        outer_low, outer_high = layout.outer[low], layout.outer[high]
        rows = [
            _in_column(row, layout, outer_low.column)
            for row in self.rows[self.number[low] + 1 : self.number[high]]
        ]
        if low != outer_low.name:
            inside = self._inside[outer_low.name]
            rows = [*inside.rows[inside.row_of[low] + 1 :], *rows]
        if high != outer_high.name:
            inside = self._inside[outer_high.name]
            rows = [*rows, *inside.rows[: inside.row_of[high]]]
        return rows


def _row(layout: Layout, number: int, boxes: Sequence[Box]) -> Row:
    y = layout.centres[boxes[0].name][1]
    half = max(map(box_height, boxes)) / 2
    return Row(number, y - half, y + half, _gaps(layout, boxes, (-_BESIDE, _BESIDE), _CLEAR))


def _gaps(layout: Layout, boxes: Sequence[Box], limits: Range, clear: float) -> tuple[Range, ...]:
    """Return the gaps between boxes of a row, and those beside them, within limits."""
    middles = [(layout.centres[box.name][0], box_width(box) / 2 + clear) for box in boxes]
    sides = sorted((x - room, x + room) for x, room in middles)
    lows = [limits[0], *(right for _, right in sides)]
    highs = [*(left for left, _ in sides), limits[1]]
    return tuple(zip(lows, highs, strict=True))


def _inside_of(box: Box, layout: Layout, outside: Row, first: int) -> _Inside:
    """Return the rows of units in a box.

    Args:
        box: The box.
        layout: Where it is.
        outside: The row that it stands in.
        first: The number of the first row.
    """
    (x, y), half = layout.centres[box.name], box_width(box) / 2
    left, right = x - half + name_width(box), x + half - _CLEAR_OF_UNIT
    bottom, top = y - box_height(box) / 2, y + box_height(box) / 2
    rows, row_of = [Row(first, outside.low, bottom + _SIDE, ((left, right),))], dict[str, int]()
    for units in reversed(box.units):
        row_of |= {unit.name: len(rows) for unit in units}
        middle, high = layout.centres[units[0].name][1], max(map(box_height, units)) / 2
        gaps = _gaps(layout, units, (left, right), _CLEAR_OF_UNIT)
        rows.append(Row(first + len(rows), middle - high, middle + high, gaps))
    rows.append(Row(first + len(rows), top - _SIDE, outside.high, ((left, right),)))
    return _Inside(rows, row_of)


def _in_column(row: Row, layout: Layout, column: int) -> Row:
    """Return a row with its gaps inside a column."""
    if not layout.columns:
        return row
    left, right = layout.columns[column]
    limits = left - _ASIDE, right + _ASIDE
    gaps = [(max(limits[0], low), min(limits[1], high)) for low, high in row.gaps]
    return replace(row, gaps=tuple(gaps))
