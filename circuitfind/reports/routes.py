"""Lead the lines of a placed picture around its boxes.

In each row that a line passes it takes a gap between two boxes, or the free space beside the row:

1. Gaps: dynamic programming chooses the gaps through which a line bends least, for the last lines
   first. A crowded gap costs more.
2. Lanes: each line is pulled taut within its gaps, and lines that share a gap are moved apart.
3. Curve: x as a function of y is a monotone cubic interpolation (Fritsch and Carlson 1980). Between
   two places it never leaves their range, and a line enters and leaves a row in one gap, so that
   it cannot touch a box that is not its end.

Lines from one column to another lead to the next row of boxes. They cross the columns between the
two rows, at a height that all lines of one box share.

The units of an MLP stand in its box in rows, and these rows are passed in the same way: a line
leaves the box through its upper side and enters it through its lower one.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from circuitfind.reports.curves import crossing, slopes, smooth
from circuitfind.reports.layout import Layout, separated
from circuitfind.reports.obstacles import Obstacles, Row
from circuitfind.reports.picture import Box, Line
from circuitfind.reports.sizes import Point, Range, box_height, box_width

ARROW_LENGTH = 5.0
_LANE = 4.5  # between two lines in one gap, if there is room,
_BUNDLE = 70.0  # and between the outermost two
_TRIED = 6  # how many gaps of a row are tried for a line
_CROWDED = 40.0  # cost of a gap whose lanes are all taken, in squared points per point of height
_PULLS = 12
_PORT_PLACES = {"q": -0.3, "k": 0.0, "v": 0.3}  # in box widths, from the middle of the box
_PORT_SPREAD, _OPEN_SPREAD = 0.08, 0.36  # in box widths, to either side

_Gap = tuple[int, int, int]
"""A gap between boxes: the numbers of the row, of the column, and of the gap in the row."""


@dataclass(frozen=True)
class Route:
    """The way of a line.

    Attributes:
        points: Control points of joined cubic Bezier curves, 3 n + 1 of them, from tail to head.
        tip: Where the arrowhead ends; None if there is none.
    """

    points: tuple[Point, ...]
    tip: Point | None


@dataclass
class _Path:
    """A line on its way upwards; lines that lead down are turned at the end.

    Attributes:
        line: The line.
        box_below: The box at its lower end.
        box_above: The box at its upper end.
        below: Where it begins.
        above: Where it ends.
        rows: The rows that it passes.
        free: Between which heights it may move sideways.
        gaps: The number of the gap that it takes in each row.
        places: Where it crosses the middle of each row.
    """

    line: Line
    box_below: Box
    box_above: Box
    below: Point
    above: Point
    rows: Sequence[Row]
    free: Range
    gaps: Sequence[int] = ()
    places: Sequence[float] = ()

    @property
    def is_down(self) -> bool:
        return self.line.tail == self.box_above.name

    @property
    def crosses(self) -> bool:
        """Whether it leads from one column to another."""
        return self.box_below.column != self.box_above.column

    def gap(self, index: int, gap: int) -> _Gap:
        """Return a gap in one of the rows that it passes."""
        return self.rows[index].number, self.box_below.column, gap

    @property
    def xs(self) -> list[float]:
        return [self.below[0], *self.places, self.above[0]]

    @property
    def ys(self) -> list[float]:
        return [self.below[1], *(row.middle for row in self.rows), self.above[1]]

    def straight(self, y: float) -> float:
        """Return where the straight line between the ends is at a height."""
        (x, low), (end_x, high) = self.below, self.above
        return x + (end_x - x) * (y - low) / (high - low)


def route(layout: Layout, lines: Sequence[Line]) -> list[Route]:
    """Return the way of each line between boxes of different rows.

    Args:
        layout: Where the boxes are.
        lines: The lines. Later ones, which are drawn over earlier ones, choose first.
    """
    obstacles = Obstacles(layout)
    paths = [_path(line, layout, obstacles) for line in lines]
    loads: dict[_Gap, float] = defaultdict(float)
    for path in reversed(paths):
        _choose_gaps(path, loads)
    for path in paths:
        _pull(path)
    _give_lanes(paths)
    _spread_ends(paths)
    return [
        _crossing(path, layout.lanes[path.line.tail]) if path.crosses else _route(path)
        for path in paths
    ]


def _path(line: Line, layout: Layout, obstacles: Obstacles) -> _Path:
    low, high = sorted((line.tail, line.head), key=obstacles.number.__getitem__)
    below, above = layout.boxes[low], layout.boxes[high]
    (low_x, low_y), (high_x, high_y) = layout.centres[low], layout.centres[high]
    aside = _PORT_PLACES.get(line.port or "", 0.0)
    arrow = 0.0 if line.stroke.arrow == "none" else ARROW_LENGTH
    down = line.tail == high
    low_room, high_room = (arrow, 0.0) if down else (0.0, arrow)
    return _Path(
        line,
        below,
        above,
        (low_x + down * aside * box_width(below), low_y + box_height(below) / 2 + low_room),
        (
            high_x + (not down) * aside * box_width(above),
            high_y - box_height(above) / 2 - high_room,
        ),
        obstacles.between(low, high),
        (obstacles.row(low).high + low_room, obstacles.row(high).low - high_room),
    )


def _choose_gaps(path: _Path, loads: dict[_Gap, float]) -> None:
    """Choose the gaps through which a line bends least, by dynamic programming over the rows."""
    # For each gap tried in the row before: the cost of the way so far, the place, and the gaps.
    ways: list[tuple[float, float, tuple[int, ...]]] = [(0.0, path.below[0], ())]
    y = path.below[1]
    for index, row in enumerate(path.rows):
        rise, y = max(1.0, row.middle - y), row.middle
        straight, reached = path.straight(y), []
        for gap in _nearest(row.gaps, straight):
            low, high = row.gaps[gap]
            place = _within(straight, row.gaps[gap])
            crowding = _CROWDED * (loads[path.gap(index, gap)] / (high - low)) ** 2
            cost, taken = min(
                (before + (place - x) ** 2 / rise + crowding, gaps) for before, x, gaps in ways
            )
            reached.append((cost, place, (*taken, gap)))
        ways = reached
    end_x, rise = path.above[0], max(1.0, path.above[1] - y)
    path.gaps = min((cost + (end_x - x) ** 2 / rise, gaps) for cost, x, gaps in ways)[1]
    for index, gap in enumerate(path.gaps):
        loads[path.gap(index, gap)] += _LANE
    path.places = [
        _within(path.straight(row.middle), row.gaps[gap])
        for row, gap in zip(path.rows, path.gaps, strict=True)
    ]


def _nearest(gaps: Sequence[Range], x: float) -> list[int]:
    """Return the numbers of the gaps nearest to a place that a line can pass."""
    passable = [index for index, (low, high) in enumerate(gaps) if low < high]
    return sorted(passable, key=lambda index: abs(_within(x, gaps[index]) - x))[:_TRIED]


def _within(value: float, limits: Range) -> float:
    return max(limits[0], min(limits[1], value))


def _pull(path: _Path) -> None:
    """Pull a line taut: move each place towards the straight line between its neighbours."""
    xs, ys = path.xs, path.ys
    for _ in range(_PULLS):
        for index, (row, gap) in enumerate(zip(path.rows, path.gaps, strict=True), start=1):
            share = (ys[index] - ys[index - 1]) / (ys[index + 1] - ys[index - 1])
            x = xs[index - 1] + share * (xs[index + 1] - xs[index - 1])
            xs[index] = _within(x, row.gaps[gap])
    path.places = xs[1:-1]


def _give_lanes(paths: Sequence[_Path]) -> None:
    """Move lines apart that pass the same gap."""
    sharing: dict[_Gap, list[tuple[_Path, int]]] = defaultdict(list)
    for path in paths:
        for index, gap in enumerate(path.gaps):
            sharing[path.gap(index, gap)].append((path, index))
    for (*_, gap), members in sharing.items():
        path, index = members[0]
        low, high = path.rows[index].gaps[gap]
        members.sort(key=_lane_order(low))
        half = min(_LANE, min(_BUNDLE, high - low) / len(members)) / 2
        wanted = [path.places[index] for path, index in members]
        lanes = separated(wanted, [half] * len(members), (low, high))
        for (path, index), place in zip(members, lanes, strict=True):
            path.places = [*path.places[:index], place, *path.places[index + 1 :]]


def _lane_order(low: float) -> Callable[[tuple[_Path, int]], tuple[float, float]]:
    """Order lines from left to right; of those that bend around one box, the longest outside."""

    def order(member: tuple[_Path, int]) -> tuple[float, float]:
        path, index = member
        x, length = path.places[index], path.above[1] - path.below[1]
        return round(x, 1), length if x - low < 1.0 else -length

    return order


def _spread_ends(paths: Sequence[_Path]) -> None:
    """Let lines touch a box beside each other, in the order of where they come from or lead to."""
    belows: dict[tuple[str, str | None], list[_Path]] = defaultdict(list)
    aboves: dict[tuple[str, str | None], list[_Path]] = defaultdict(list)
    for path in paths:
        port = path.line.port
        if not path.crosses:
            belows[path.box_below.name, port if path.is_down else None].append(path)
        aboves[path.box_above.name, None if path.is_down else port].append(path)
    for (_, port), members in belows.items():
        shifts = _shifts(members[0].box_below, port, len(members))
        for path, shift in zip(sorted(members, key=lambda path: path.xs[1]), shifts, strict=True):
            path.below = path.below[0] + shift, path.below[1]
    for (_, port), members in aboves.items():
        shifts = _shifts(members[0].box_above, port, len(members))
        for path, shift in zip(sorted(members, key=lambda path: path.xs[-2]), shifts, strict=True):
            path.above = path.above[0] + shift, path.above[1]


def _shifts(box: Box, port: str | None, n: int) -> list[float]:
    half = box_width(box) * (_PORT_SPREAD if port in _PORT_PLACES else _OPEN_SPREAD)
    step = min(_LANE, 2 * half / max(1, n - 1))
    return [step * (index - (n - 1) / 2) for index in range(n)]


def _route(path: _Path) -> Route:
    low, high = path.free
    # Where a neighbour in the row is higher than the box, the line is straight as far as that.
    points = [path.below, *([(path.below[0], low)] if low > path.below[1] else [])]
    inner = slopes(path.xs, path.ys)[1:-1]
    for row, gap, x, slope in zip(path.rows, path.gaps, path.places, inner, strict=True):
        lean = slope * (row.high - row.low) / 2
        points.append((_within(x - lean, row.gaps[gap]), row.low))
        points.append((_within(x + lean, row.gaps[gap]), row.high))
    points += [*([(path.above[0], high)] if high < path.above[1] else []), path.above]
    up = -1.0 if path.is_down else 1.0
    along = [(x, up * y) for x, y in (reversed(points) if path.is_down else points)]
    curve = tuple((x, up * y) for x, y in smooth(along))
    x, y = curve[-1]
    tip = None if path.line.stroke.arrow == "none" else (x, y + up * ARROW_LENGTH)
    return Route(curve, tip)


def _crossing(path: _Path, lane: float) -> Route:
    curve = crossing(path.below, path.above, lane)
    (x, y), pointed = path.above, path.line.stroke.arrow != "none"
    return Route(curve, (x, y + ARROW_LENGTH) if pointed else None)
