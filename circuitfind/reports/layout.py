"""Place the boxes of a picture.

Rows stand above each other in the order in which components run. In each row boxes are sorted by
the mean place of what they are joined to (Sugiyama's barycentre sweeps). Lines that pass a row take
part in this with little room of their own, so that boxes stand beside strong lines and not in their
way; `routes.py` then leads every line around the boxes.

Where a picture has columns, the same is done within each of them.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby, pairwise

from circuitfind.reports.picture import Box, Column, Picture
from circuitfind.reports.sizes import (
    BOX_HEIGHT,
    Point,
    Range,
    box_height,
    box_width,
    columns_of_text,
    places_inside,
)

SWEEPS = 12
SLIMMEST = 0.7  # least width of a drawing, in heights, unless that
LOOSEST = 2.0  # is more than this many times the width of its fullest row
_ARC_WEIGHT = 10.0  # keeps heads above the key/value head that they share,
_MOVE_WEIGHT = 0.3  # and little above what they read in another column
_GAP = {False: 18.0, True: 10.0}  # between boxes; in one of several columns
_LANE = 6.0  # room for a line that passes a row,
_MOST_LANES = {False: 150.0, True: 80.0}  # and for all of them
_EVENNESS = 0.3  # share of even spacing in the place of a box; the rest follows its neighbours
_ROW_GAP = {True: 40.0, False: 26.0}  # between layers, and within one
_TIGHTER = 0.6  # gaps of a deep picture, as a share of those of others
_DEEP = 30  # rows
_WIDEST_MERGED = 500.0  # width of all boxes in rows that are merged
_COLUMN_GAP = 14.0  # between two columns
_CROSSING = 4.0  # between two lines that cross columns,
_CORNER = 9.0  # and between them and the boxes below and above,
_ARROW_ROOM = 6.0  # with room for arrows
TOKEN_COLUMNS = 12  # letters of an example prompt in a line
TOKEN_LINES = 3


@dataclass(frozen=True)
class Layout:
    """Positions of boxes.

    Attributes:
        boxes: The boxes by name, with those that stand in others.
        centres: The middle of each box, in points, upwards from the lower left corner.
        rows: The boxes row by row, from the bottom, without those that stand in others. The middles
            of a row have one height.
        columns: From where to where each column of the picture reaches.
        lanes: For each box that lines leave for other columns, the height at which they cross.
        outer: The box in which each box stands: itself, or the MLP of a unit.
    """

    boxes: Mapping[str, Box]
    centres: Mapping[str, Point]
    rows: Sequence[Sequence[Box]]
    columns: Sequence[Range] = ()
    lanes: Mapping[str, float] = field(default_factory=dict)
    outer: Mapping[str, Box] = field(default_factory=dict)


def place(picture: Picture) -> Layout:
    """Place every box: rows from bottom to top, each sorted to shorten the lines."""
    rows, crossing = picture.rows, _crossing(picture)
    heights = _place_up(rows, crossing)
    slots, neighbours = _slots(picture, rows)
    columns = _columns_of(picture.columns, slots, heights[-1])
    across = _place_across(slots, neighbours, columns)
    centres = {
        box.name: (across[box.name], y) for row, y in zip(rows, heights, strict=True) for box in row
    }
    lanes, outer = _lanes(rows, crossing, centres), picture.outer
    boxes = {one.name: one for box in picture.boxes for one in (box, *box.inner)}
    for box in picture.boxes:
        x, y = centres[box.name]
        centres |= {name: (x + dx, y + dy) for name, (dx, dy) in places_inside(box).items()}
    return Layout(boxes, centres, rows, columns if picture.columns else (), lanes, outer)


def _crossing(picture: Picture) -> frozenset[str]:
    """Return the names of the boxes that lines leave for another column."""
    column = {name: box.column for name, box in picture.outer.items()}
    return frozenset(line.tail for line in picture.lines if column[line.tail] != column[line.head])


def _lanes(
    rows: Sequence[Sequence[Box]], crossing: Set[str], centres: Mapping[str, Point]
) -> dict[str, float]:
    """Return at which height lines cross: the further left a line begins, the higher."""
    found = {}
    for row in rows:
        sources = [box.name for box in row if box.name in crossing]
        sources.sort(key=lambda name: -centres[name][0])
        for number, name in enumerate(sources):
            found[name] = centres[name][1] + BOX_HEIGHT / 2 + _CORNER + number * _CROSSING
    return found


def _columns_of(
    columns: Sequence[Column], slots: Sequence[Sequence["_Slot"]], height: float
) -> list[Range]:
    """Return from where to where columns reach: room for the fullest row of each."""
    needed = [_name_width(column) for column in columns] or [0.0]
    for row in slots:
        taken = [0.0] * len(needed)
        for slot in row:
            taken[slot.column] += 2 * slot.half
        needed = list(map(max, needed, taken))
    fullest = sum(needed)
    width = max(fullest, min(SLIMMEST * height, LOOSEST * fullest))
    ends = [*(width * part / fullest for part in accumulate(needed[:-1])), width]
    return [
        (start + number * _COLUMN_GAP, end + number * _COLUMN_GAP)
        for number, (start, end) in enumerate(pairwise([0.0, *ends]))
    ]


def _name_width(column: Column) -> float:
    letters = min(TOKEN_COLUMNS, max(columns_of_text(column.name), columns_of_text(column.tokens)))
    return 10.0 + 6.0 * letters


def compacted(picture: Picture) -> Picture:
    """Merge rows of a deep picture that no line joins, so that it is not a tall strip.

    Boxes still never stand below one that runs before them.
    """
    if len(picture.rows) <= _DEEP:
        return picture
    outer = picture.outer
    joined = {frozenset((outer[line.tail].name, outer[line.head].name)) for line in picture.lines}
    merged = list[list[Box]]()
    for row in picture.rows:
        together = [*(merged[-1] if merged else []), *row]
        apart = any(frozenset((a.name, b.name)) in joined for a in row for b in together)
        if not merged or apart or sum(map(box_width, together)) > _WIDEST_MERGED:
            merged.append(row)
        else:
            merged[-1] = together
    boxes = [replace(box, row=(index, 0)) for index, row in enumerate(merged) for box in row]
    return replace(picture, boxes=boxes)


def _place_up(rows: Sequence[Sequence[Box]], crossing: Set[str]) -> list[float]:
    heights = [max(map(box_height, row)) for row in rows]
    centre, centres = heights[0] / 2, [heights[0] / 2]
    scale = _TIGHTER if len(rows) > _DEEP else 1.0
    for index, (below, above) in enumerate(pairwise(rows)):
        new_layer = below[0].layer != above[0].layer
        gap, n_crossing = scale * _ROW_GAP[new_layer], sum(box.name in crossing for box in below)
        if n_crossing:
            gap = max(gap, 2 * _CORNER + _ARROW_ROOM + _CROSSING * (n_crossing - 1))
        centre += (heights[index] + heights[index + 1]) / 2 + gap
        centres.append(centre)
    return centres


_Key = str | tuple[str, str, int]
"""A box, or the lines from one box to another where they pass a row."""

_Neighbours = Mapping[_Key, Sequence[tuple[_Key, float]]]
"""Neighbours of each slot in the rows next to it, with the strength of their lines."""


@dataclass(frozen=True)
class _Slot:
    """Room in a row.

    Attributes:
        key: What it is for.
        half: Half of the room.
        column: The column that it is in.
    """

    key: _Key
    half: float
    column: int = 0


def _slots(
    picture: Picture, rows: Sequence[Sequence[Box]]
) -> tuple[list[list[_Slot]], _Neighbours]:
    """Return the slots of each row, and what joins them."""
    number = {box.name: index for index, row in enumerate(rows) for box in row}
    column = {box.name: box.column for box in picture.boxes}
    outer = {name: box.name for name, box in picture.outer.items()}
    strengths: dict[tuple[str, str], float] = defaultdict(float)
    for line in picture.lines:
        ends = sorted((outer[line.tail], outer[line.head]), key=number.__getitem__)
        arc = _ARC_WEIGHT if column[ends[0]] == column[ends[1]] else _MOVE_WEIGHT
        strengths[ends[0], ends[1]] += line.stroke.width if line.name else arc
    passing: list[list[tuple[_Key, int]]] = [[] for _ in rows]
    neighbours: dict[_Key, list[tuple[_Key, float]]] = defaultdict(list)
    for (low, high), strength in strengths.items():
        way: list[_Key] = [low]
        for row in range(number[low] + 1, number[high]):
            way.append((low, high, row))
            passing[row].append((way[-1], column[low]))
        for below, above in pairwise([*way, high]):
            neighbours[below].append((above, strength))
            neighbours[above].append((below, strength))
    gap, most = _GAP[bool(picture.columns)], _MOST_LANES[bool(picture.columns)]
    slots = []
    for boxes, keys in zip(rows, passing, strict=True):
        n_keys = Counter(number for _, number in keys)
        half = {key: min(_LANE, most / n) / 2 for key, n in n_keys.items()}
        own = [_Slot(box.name, (box_width(box) + gap) / 2, box.column) for box in boxes]
        slots.append([*own, *(_Slot(key, half[number], number) for key, number in keys)])
    return slots, neighbours


def _place_across(
    rows: Sequence[Sequence[_Slot]], neighbours: _Neighbours, columns: Sequence[Range]
) -> dict[_Key, float]:
    across: dict[_Key, float] = {}
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wish = {
                slot.key: _mean_place(slot.key, neighbours, across, columns[slot.column])
                for slot in row
            }
            ordered = sorted(row, key=lambda slot: (slot.column, wish[slot.key]))
            for column, slots in groupby(ordered, key=lambda slot: slot.column):
                across |= _spread(list(slots), columns[column], wish)
    return across


def _mean_place(
    key: _Key, neighbours: _Neighbours, across: Mapping[_Key, float], column: Range
) -> float:
    placed = [(across[other], strength) for other, strength in neighbours[key] if other in across]
    total = sum(strength for _, strength in placed)
    return sum(x * strength for x, strength in placed) / total if total else sum(column) / 2


def _spread(row: Sequence[_Slot], column: Range, wish: Mapping[_Key, float]) -> dict[_Key, float]:
    """Place a row in the given order without overlaps, between its wishes and even spacing."""
    halves = [slot.half for slot in row]
    stretch = (column[1] - column[0]) / (2 * sum(halves))
    wanted, left = list[float](), column[0]
    for slot in row:
        even = left + slot.half * stretch
        left += 2 * slot.half * stretch
        wanted.append(_EVENNESS * even + (1 - _EVENNESS) * wish[slot.key])
    places = separated(wanted, halves, column)
    return {slot.key: x for slot, x in zip(row, places, strict=True)}


def separated(
    wanted: Sequence[float], halves: Sequence[float], limits: tuple[float, float]
) -> list[float]:
    """Move things on a line apart, equally far to both sides, and inside limits.

    Args:
        wanted: Where their middles would be; their order is kept.
        halves: Half of the room that each needs.
        limits: Between which they have room enough.
    """
    low, high = limits
    rightwards = _pushed(wanted, halves)
    leftwards = _mirrored(_pushed(_mirrored(wanted), halves[::-1]))
    middle = [(a + b) / 2 for a, b in zip(rightwards, leftwards, strict=True)]
    inside = _pushed([max(x, low + half) for x, half in zip(middle, halves, strict=True)], halves)
    capped = [min(x, high - half) for x, half in zip(inside, halves, strict=True)]
    return _mirrored(_pushed(_mirrored(capped), halves[::-1]))


def _mirrored(places: Sequence[float]) -> list[float]:
    return [-x for x in reversed(places)]


def _pushed(wanted: Sequence[float], halves: Sequence[float]) -> list[float]:
    """Move places to the right until each is clear of the one before it."""
    placed = [wanted[0]]
    for x, before, half in zip(wanted[1:], halves, halves[1:], strict=False):
        placed.append(max(x, placed[-1] + before + half))
    return placed
