"""Place the boxes of a large picture and bend its lines.

Graphviz's own layered layout gives every line room of its own in each row that it crosses, so a
circuit of 500 edges becomes a strip 8,000 points wide and 600 high. Here lines may pass behind
boxes, and a picture is as wide as its fullest row: each row is sorted by the mean position of its
boxes' neighbours (Sugiyama's barycentre sweeps) and lines are single Bezier curves that leave a box
upwards and enter the next one from below, q on the left, k in the middle and v on the right.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from circuitfind.reports.picture import Box, Line, Picture

Point = tuple[float, float]

SWEEPS = 12
SLIMMEST = 0.7  # least width of a drawing, in heights, unless that
LOOSEST = 1.5  # is more than this many times the width of its fullest row
BOX_HEIGHT = 20.0
ROLE_HEIGHT = 11.0
ARROW_LENGTH = 5.0
_ARC_WEIGHT = 10  # keeps heads above the key/value head that they share
_GAP = 9.0
_ROW_GAP = {True: 40.0, False: 26.0}  # between layers, and within one
_PORT_OFFSET = {"q": -0.3, "k": 0.0, "v": 0.3}  # in box widths


def box_width(box: Box) -> float:
    """Return the width in points that the box's text needs, estimated from above."""
    return 12.0 + max(6.0 * _columns(box.name), 5.6 * _columns(box.role))


def box_height(box: Box) -> float:
    """Return the height in points that the box's text needs."""
    return BOX_HEIGHT + (ROLE_HEIGHT if box.role else 0.0)


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


@dataclass(frozen=True)
class Layout:
    """Where the centre of each box is, in points, upwards from the lower left corner."""

    boxes: Mapping[str, Box]
    centres: Mapping[str, Point]

    def curve(self, line: Line) -> str:
        """Return a line as Graphviz writes splines: the tip of its arrow, four control points."""
        tail, head = self.boxes[line.tail], self.boxes[line.head]
        (tail_x, tail_y), (head_x, head_y) = self.centres[line.tail], self.centres[line.head]
        start_y, tip_y = tail_y + box_height(tail) / 2, head_y - box_height(head) / 2
        start_x = tail_x + _within(0.08 * (head_x - tail_x), box_width(tail) / 3)
        tip_x = head_x + _PORT_OFFSET.get(line.port or "", 0.0) * box_width(head)
        end_y = tip_y if line.stroke.arrow == "none" else tip_y - ARROW_LENGTH
        rise = 0.45 * (end_y - start_y)
        aside = _detour(tip_x - start_x, end_y - start_y)
        points = [
            (start_x, start_y),
            (start_x + aside, start_y + rise),
            (tip_x + aside, end_y - rise),
            (tip_x, end_y),
        ]
        curve = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        return curve if end_y == tip_y else f"e,{tip_x:.1f},{tip_y:.1f} {curve}"


def _within(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))


def _detour(across: float, up: float) -> float:
    """Return how far to bend a steep line aside, so that it does not hide behind a column."""
    steepness = max(0.0, 1.0 - abs(across) / 40.0)
    side = 1.0 if across >= 0 else -1.0
    return side * steepness * min(70.0, 0.22 * max(0.0, up - 60.0))


def place(picture: Picture) -> Layout:
    """Place every box: rows from bottom to top, each sorted to shorten the lines."""
    rows = picture.rows
    heights = _place_up(rows)
    fullest = max(map(_row_width, rows))
    width = max(fullest, min(SLIMMEST * heights[-1], LOOSEST * fullest))
    across = _place_across(rows, _neighbours(picture), width)
    centres = {
        box.name: (across[box.name], y) for row, y in zip(rows, heights, strict=True) for box in row
    }
    return Layout({box.name: box for box in picture.boxes}, centres)


def _place_up(rows: Sequence[Sequence[Box]]) -> list[float]:
    heights = [max(map(box_height, row)) for row in rows]
    centre, centres = heights[0] / 2, [heights[0] / 2]
    for index, (below, above) in enumerate(pairwise(rows)):
        new_layer = below[0].layer != above[0].layer
        centre += (heights[index] + heights[index + 1]) / 2 + _ROW_GAP[new_layer]
        centres.append(centre)
    return centres


def _neighbours(picture: Picture) -> dict[str, list[str]]:
    neighbours: dict[str, list[str]] = {box.name: [] for box in picture.boxes}
    for line in picture.lines:
        weight = 1 if line.name else _ARC_WEIGHT
        neighbours[line.tail] += weight * [line.head]
        neighbours[line.head] += weight * [line.tail]
    return neighbours


def _place_across(
    rows: Sequence[Sequence[Box]], neighbours: Mapping[str, Sequence[str]], width: float
) -> dict[str, float]:
    across: dict[str, float] = {}
    for row in rows:
        across |= _spread(row, width)
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wish = {
                box.name: fmean([across[name] for name in neighbours[box.name]] or [width / 2])
                for box in row
            }
            across |= _spread(sorted(row, key=lambda box: wish[box.name]), width, wish)
    return across


def _row_width(row: Sequence[Box]) -> float:
    return sum(box_width(box) + _GAP for box in row) - _GAP


def _spread(
    row: Sequence[Box], width: float, wish: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Place a row in the given order without overlaps, between its wishes and even spacing."""
    slack = (width - _row_width(row)) / len(row)
    even, left = list[float](), 0.0
    for box in row:
        even.append(left + (box_width(box) + slack) / 2)
        left += box_width(box) + slack + _GAP
    if wish is None:
        return {box.name: x for box, x in zip(row, even, strict=True)}
    wanted = [(wish[box.name] + x) / 2 for box, x in zip(row, even, strict=True)]
    return {box.name: x for box, x in zip(row, _separated(row, wanted, width), strict=True)}


def _separated(row: Sequence[Box], wanted: Sequence[float], width: float) -> list[float]:
    """Move positions apart, equally far to both sides, and inside the width."""
    halves = [box_width(box) / 2 for box in row]
    rightwards = _pushed(wanted, halves)
    leftwards = [-x for x in reversed(_pushed([-x for x in reversed(wanted)], halves[::-1]))]
    middle = [(a + b) / 2 for a, b in zip(rightwards, leftwards, strict=True)]
    inside = _pushed([max(x, half) for x, half in zip(middle, halves, strict=True)], halves)
    mirrored = [min(x, width - half) for x, half in zip(inside, halves, strict=True)]
    return [-x for x in reversed(_pushed([-x for x in reversed(mirrored)], halves[::-1]))]


def _pushed(wanted: Sequence[float], halves: Sequence[float]) -> list[float]:
    """Move positions to the right until each is clear of the one before it."""
    placed = [wanted[0]]
    for x, before, half in zip(wanted[1:], halves, halves[1:], strict=False):
        placed.append(max(x, placed[-1] + before + _GAP + half))
    return placed
