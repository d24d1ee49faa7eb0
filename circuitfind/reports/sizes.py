"""Sizes of boxes, and where the units of an MLP stand in its box.

The box of an MLP has its name on the left, and beside it rows of small boxes, which stand in its
middle. Lines reach them through its lower and its upper side.
"""

import unicodedata
from collections.abc import Sequence

from circuitfind.reports.picture import Box, BoxKind

Point = tuple[float, float]
Range = tuple[float, float]

BOX_HEIGHT = 20.0
ROLE_HEIGHT = 11.0
UNIT_FONT = 8.0
UNIT_HEIGHT = 13.0
MARGIN = 9.0  # between the sides of an MLP's box and its units, for lines,
SMALL_KINDS: frozenset[BoxKind] = frozenset({"unit", "input", "rest", "error"})
_BETWEEN = 9.0  # between two units,
_BETWEEN_ROWS = 15.0  # and two rows of them
_UNIT_ROLE_HEIGHT = 9.0
_WIDEST = {False: 260.0, True: 130.0}  # a row of units; in one of several columns


def box_width(box: Box) -> float:
    """Return the width in points that the box's text and units need, estimated from above."""
    if box.units:
        return name_width(box) + 2 * MARGIN + max(map(_row_width, box.units))
    label, role = (4.9, 4.6) if box.kind in SMALL_KINDS else (6.0, 5.6)
    edge = 7.0 if box.kind in SMALL_KINDS else 12.0
    return edge + max(label * columns_of_text(box.label), role * columns_of_text(box.role))


def box_height(box: Box) -> float:
    """Return the height in points that the box's text and units need."""
    if box.units:
        rows = map(_row_height, box.units)
        return 2 * MARGIN + sum(rows) + _BETWEEN_ROWS * (len(box.units) - 1)
    if box.kind in SMALL_KINDS:
        return UNIT_HEIGHT + (_UNIT_ROLE_HEIGHT if box.role else 0.0)
    return BOX_HEIGHT + (ROLE_HEIGHT if box.role else 0.0)


def columns_of_text(text: str) -> int:
    """Return how many letters of usual width a text is wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def name_width(box: Box) -> float:
    """Return how much of an MLP's box is for its name and role, on the left of its units."""
    return box_width(Box(box.name, "mlp", box.row, role=box.role, text=box.text))


def in_rows(units: Sequence[Box], *, has_columns: bool) -> tuple[tuple[Box, ...], ...]:
    """Return units in rows of about equal numbers, as many as their widths ask for."""
    n_rows = -int(-_row_width(units) // _WIDEST[has_columns])
    size = -(-len(units) // n_rows)
    return tuple(tuple(units[start : start + size]) for start in range(0, len(units), size))


def places_inside(box: Box) -> dict[str, Point]:
    """Return the middles of the boxes that stand in a box, from its own middle."""
    found, top = dict[str, Point](), box_height(box) / 2 - MARGIN
    for row in box.units:
        left, height = (name_width(box) - _row_width(row)) / 2, _row_height(row)
        for unit in row:
            found[unit.name] = left + box_width(unit) / 2, top - height / 2
            left += box_width(unit) + _BETWEEN
        top -= height + _BETWEEN_ROWS
    return found


def _row_width(row: Sequence[Box]) -> float:
    return sum(map(box_width, row)) + _BETWEEN * (len(row) - 1)


def _row_height(row: Sequence[Box]) -> float:
    return max(map(box_height, row))
