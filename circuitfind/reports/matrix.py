"""A matrix of how alike things are, two by two, with what chance gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuitfind.comparison.chance import EXCHANGED_HEADS, Statistic
from circuitfind.comparison.result import Comparison, Pair
from circuitfind.reports.canvas import DARK, FAINT, LINE, Canvas, colour_of, text_width
from circuitfind.reports.diagram import Diagram

SIGNIFICANT = 0.05

_CELL = 58.0
_ON_DARK = "#ffffff"
_CAPTION = (
    "Jaccard index of the edges: by name in one model, matched across models.",
    f"Below: expected with heads exchanged at random; frames: p < {SIGNIFICANT:g}.",
)


@dataclass(frozen=True)
class Cell:
    """A square.

    Attributes:
        value: How alike the two are, from 0 to 1: the upper number. None if that is undefined.
        expected: The lower number: what chance gives; None if that is not known.
        tip: What an SVG shows when the pointer rests on it.
        framed: Whether it is marked.
        shade: How dark it is, from 0 to 1; None for as much as the value.
    """

    value: float | None
    expected: float | None = None
    tip: str = ""
    framed: bool = False
    shade: float | None = None


def draw_matrix(found: Comparison) -> Diagram:
    """Draw a comparison of three or more circuits.

    The number is the Jaccard index of two circuits' edges, by name in one model and by matched
    components across models; a frame marks what chance gives with a probability below 0.05.
    """
    names = [side.name for side in found.circuits]
    cells = {(number, number): Cell(1.0, tip=name) for number, name in enumerate(names)}
    for pair in found.pairs:
        cells[pair.left, pair.right] = cells[pair.right, pair.left] = _cell(pair, names)
    return draw_cells(names, cells, _CAPTION)


def draw_cells(
    names: Sequence[str],
    cells: Mapping[tuple[int, int], Cell],
    caption: Sequence[str],
    columns: Sequence[str] | None = None,
) -> Diagram:
    """Draw a matrix.

    Args:
        names: Of the rows.
        cells: What stands in a row and column; where there is nothing, a dash.
        caption: Lines above it.
        columns: Names of the columns; by default those of the rows.
    """
    columns = names if columns is None else columns
    canvas = Canvas("matrix")
    for number, line in enumerate(caption):
        canvas.text(0.0, LINE * number, line)
    left = max(map(text_width, names)) + 8
    top = LINE * len(caption) + 12
    for number, name in enumerate(names):
        canvas.text(left - 6, top + _CELL * (number + 0.5), name, just="r")
    canvas.column_labels(columns, left, top + _CELL * len(names), _CELL)
    for row in range(len(names)):
        for column in range(len(columns)):
            centre = left + _CELL * (column + 0.5), top + _CELL * (row + 0.5)
            _square(canvas, centre, cells.get((row, column), Cell(None)))
    return Diagram(canvas.dot)


def likeness(pair: Pair) -> Statistic:
    """Return how alike the edges of two circuits are: matched, or by name in one model."""
    part = pair.matched or pair.overlap
    return Statistic(None) if part is None else part.edges.jaccard


def _cell(pair: Pair, names: Sequence[str]) -> Cell:
    statistic = likeness(pair)
    title = f"{names[pair.left]} and {names[pair.right]}"
    if statistic.value is None:
        return Cell(None, tip=title)
    chance = statistic.chance[EXCHANGED_HEADS]
    tip = f"{title}: {statistic.value:.3f}, expected {chance.expected:.3f}, p {chance.p_value:.3g}"
    return Cell(statistic.value, chance.expected, tip, chance.p_value < SIGNIFICANT)


def _square(canvas: Canvas, centre: tuple[float, float], cell: Cell) -> None:
    share = (cell.value or 0.0) if cell.shade is None else max(0.0, cell.shade)
    colour, (x, y) = colour_of(-share), centre
    canvas.box(centre, (_CELL, _CELL), fillcolor=colour, color=FAINT, tooltip=cell.tip)
    ink = _ON_DARK if share > 0.6 else DARK
    value = "-" if cell.value is None else f"{cell.value:.2f}"
    canvas.text(x, y if cell.expected is None else y - 6, value, just="", colour=ink)
    if cell.expected is not None:
        canvas.text(x, y + 12, f"{cell.expected:.2f}", just="", colour=ink)
    if cell.framed:
        canvas.box(centre, (_CELL - 4, _CELL - 4), color="#000000", penwidth="2", style="")
