"""Layout of a heatmap: a result with any number of axes as two-dimensional panels.

Two axes make one panel. Heads at several positions make a panel of layers and heads for each
position, and single entries of attention patterns one of positions for each head. Where that is
more than a page shows, those with the largest effects are drawn and the caption says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from circuitfind.granularity import head_name
from circuitfind.patching.result import PatchResult, Row

MOST_PANELS = 12
MOST_ROWS = 48
MOST_COLUMNS = 64

Place = tuple[int, int]

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Panel:
    """One grid of squares.

    Attributes:
        title: What all its patches have in common; may be empty.
        row_axis: Name of the upward axis.
        column_axis: Name of the other one.
        rows: Labels of the rows, from the bottom.
        columns: Labels of the columns.
        cells: The patch at each row and column; not all places have one.
    """

    title: str
    row_axis: str
    column_axis: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[Place, Row]


def panels_of(result: PatchResult, site: str, rows: Sequence[Row]) -> tuple[list[Panel], str]:
    """Arrange the patches of one site, and say what is left out."""
    axes = result.axes[site]
    upward, across, apart = _arranged(axes)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.place[axis] for axis in apart), []).append(row)
    chosen = _largest(groups, MOST_PANELS)
    shown = [row for title in chosen for row in groups[title]]
    # One and the same choice for all panels, so that they can be compared.
    kept = [
        _largest(_by(shown, axes.index(axis)), most)
        for axis, most in ((upward, MOST_ROWS), (across, MOST_COLUMNS))
    ]
    panels = [
        _panel(result, (upward, across), kept, _title(apart, title, axes), groups[title], axes)
        for title in chosen
    ]
    return panels, _note(result, (upward, across), kept, len(chosen), len(groups))


def _arranged(axes: tuple[str, ...]) -> tuple[str, str, tuple[str, ...]]:
    """Return which axis runs upward, which across, and which tell panels apart."""
    if "source_position" in axes:
        return "position", "source_position", ("layer", "head")
    if len(axes) == 2:
        return axes[0], axes[1], ()
    return "layer", axes[2], ("position",)


def _title(apart: tuple[str, ...], labels: tuple[str, ...], axes: tuple[str, ...]) -> str:
    if apart == ("layer", "head"):
        return head_name(*labels)
    return f"at {labels[0]}" if labels else ""


def _by(rows: Sequence[Row], axis: int) -> dict[int, list[Row]]:
    grouped: dict[int, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.indices[axis], []).append(row)
    return grouped


def _largest(groups: Mapping[_Key, Sequence[Row]], most: int) -> list[_Key]:
    """Return the keys of the groups with the largest effects, in their own order."""
    if len(groups) <= most:
        return list(groups)
    sizes = {key: max(abs(row.effect) for row in rows) for key, rows in groups.items()}
    kept = set(sorted(groups, key=lambda key: -sizes[key])[:most])
    return [key for key in groups if key in kept]


def _panel(
    result: PatchResult,
    named: tuple[str, str],
    kept: Sequence[Sequence[int]],
    title: str,
    patches: Sequence[Row],
    axes: tuple[str, ...],
) -> Panel:
    places = [{index: place for place, index in enumerate(sorted(indices))} for indices in kept]
    upward, across = (axes.index(axis) for axis in named)
    cells = {
        (places[0][patch.indices[upward]], places[1][patch.indices[across]]): patch
        for patch in patches
        if patch.indices[upward] in places[0] and patch.indices[across] in places[1]
    }
    rows, columns = (
        tuple(result.labels[axis][index] for index in places[at]) for at, axis in enumerate(named)
    )
    shown = [axis.replace("_", " ") for axis in named]
    return Panel(title, shown[0], shown[1], rows, columns, cells)


def _note(
    result: PatchResult,
    named: tuple[str, str],
    kept: Sequence[Sequence[int]],
    n_panels: int,
    n_groups: int,
) -> str:
    parts = [
        f"{len(indices)} of {len(result.labels[axis])} {axis.replace('_', ' ')}s"
        for axis, indices in zip(named, kept, strict=True)
        if len(indices) in (MOST_ROWS, MOST_COLUMNS) and len(indices) < len(result.labels[axis])
    ]
    if n_panels < n_groups:
        parts.insert(0, f"{n_panels} of {n_groups} panels")
    return f"shown: the {', '.join(parts)} with the largest effects" if parts else ""
