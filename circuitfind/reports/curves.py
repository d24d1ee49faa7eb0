"""Curves of lines, as control points of joined cubic Bezier curves, 3 n + 1 of them.

x as a function of y is a monotone cubic interpolation (Fritsch and Carlson 1980), except for lines
across columns: these lead up, across, and up again, with round corners.
"""

from collections.abc import Sequence
from itertools import pairwise

from circuitfind.reports.sizes import Point

_TURN = 5.0
"""Radius of the corners."""


def slopes(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """Return dx/dy at each place so that the cubic interpolation is monotone between places.

    The line enters its head upright.
    """
    rises = [(b - a) / (d - c) for (a, b), (c, d) in zip(pairwise(xs), pairwise(ys), strict=True)]
    inner = [2 * a * b / (a + b) if a * b > 0 else 0.0 for a, b in pairwise(rises)]
    return [rises[0] / 2, *inner, 0.0]


def smooth(points: Sequence[Point]) -> list[Point]:
    """Return the curve through points of rising height."""
    leans = slopes([x for x, _ in points], [y for _, y in points])
    curve = [points[0]]
    for ((ax, ay), (bx, by)), (a, b) in zip(pairwise(points), pairwise(leans), strict=True):
        third = (by - ay) / 3
        curve += [(ax + a * third, ay + third), (bx - b * third, by - third), (bx, by)]
    return curve


def crossing(start: Point, end: Point, lane: float) -> tuple[Point, ...]:
    """Lead a line across columns.

    Args:
        start: Where it begins.
        end: Where it ends, above.
        lane: The height at which it crosses.
    """
    (x, low), (end_x, high) = start, end
    side = 1.0 if end_x >= x else -1.0
    turn = min(_TURN, abs(end_x - x) / 2, lane - low, high - lane)
    before, after = (x, lane - turn), (x + side * turn, lane)
    before_next, after_next = (end_x - side * turn, lane), (end_x, lane + turn)
    return (
        *_straight(start, before),
        *_bend(before, (x, lane), after),
        *_straight(after, before_next),
        *_bend(before_next, (end_x, lane), after_next),
        *_straight(after_next, end),
        end,
    )


def _straight(start: Point, end: Point) -> list[Point]:
    """Return a straight line as a curve without its end."""
    (x, y), (end_x, end_y) = start, end
    return [(x + (end_x - x) * part / 3, y + (end_y - y) * part / 3) for part in range(3)]


def _bend(start: Point, corner: Point, end: Point) -> list[Point]:
    """Return a round corner as a curve without its end."""
    return [start, _straight(start, corner)[2], _straight(end, corner)[2]]
