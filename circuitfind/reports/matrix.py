"""A matrix of how alike circuits are, two by two.

The colour and the upper number of a square are the Jaccard index of two circuits' edges, by name in
one model and by matched components across models. The lower number is what chance gives; a frame
marks what it gives with a probability below 0.05.
"""

from circuitfind.comparison.chance import EXCHANGED_HEADS, Statistic
from circuitfind.comparison.result import Comparison, Pair
from circuitfind.reports.canvas import DARK, FAINT, LETTER, LINE, Canvas, colour_of, text_width
from circuitfind.reports.diagram import Diagram

SIGNIFICANT = 0.05

_CELL = 58.0
_ON_DARK = "#ffffff"
_CAPTION = (
    "Jaccard index of the edges: by name in one model, matched across models.",
    f"Below: expected with heads exchanged at random; frames: p < {SIGNIFICANT:g}.",
)


def draw_matrix(found: Comparison) -> Diagram:
    """Draw a comparison of three or more circuits."""
    canvas, names = Canvas("matrix"), [side.name for side in found.circuits]
    for number, line in enumerate(_CAPTION):
        canvas.text(0.0, LINE * number, line)
    left = max(map(text_width, names)) + 8
    top = LINE * len(_CAPTION) + 12
    for number, name in enumerate(names):
        at = left + _CELL * (number + 0.5), top + _CELL * (number + 0.5)
        canvas.text(left - 6, at[1], name, just="r")
        _column_label(canvas, at[0], top + _CELL * len(names), name, number)
        _square(canvas, at, 1.0, name, "1.00", "")
    for pair in found.pairs:
        for row, column in ((pair.left, pair.right), (pair.right, pair.left)):
            centre = left + _CELL * (column + 0.5), top + _CELL * (row + 0.5)
            _cell(canvas, centre, pair, names)
    return Diagram(canvas.dot)


def likeness(pair: Pair) -> Statistic:
    """Return how alike the edges of two circuits are: matched, or by name in one model."""
    part = pair.matched or pair.overlap
    return Statistic(None) if part is None else part.edges.jaccard


def _column_label(canvas: Canvas, x: float, bottom: float, name: str, number: int) -> None:
    """Write a name below its column; names wider than a column stand on two levels."""
    level = number % 2 if len(name) * LETTER > _CELL else 0
    canvas.text(x, bottom + 10 + LINE * level, name, just="")


def _cell(canvas: Canvas, centre: tuple[float, float], pair: Pair, names: list[str]) -> None:
    statistic = likeness(pair)
    title = f"{names[pair.left]} and {names[pair.right]}"
    if statistic.value is None:
        _square(canvas, centre, 0.0, title, "-", "")
        return
    chance = statistic.chance[EXCHANGED_HEADS]
    said = f"{title}: {statistic.value:.3f}, expected {chance.expected:.3f}, p {chance.p_value:.3g}"
    value, expected = f"{statistic.value:.2f}", f"{chance.expected:.2f}"
    _square(canvas, centre, statistic.value, said, value, expected)
    if chance.p_value < SIGNIFICANT:
        canvas.box(centre, (_CELL - 4, _CELL - 4), color="#000000", penwidth="2", style="")


def _square(
    canvas: Canvas,
    centre: tuple[float, float],
    share: float,
    title: str,
    value: str,
    expected: str,
) -> None:
    colour, (x, y) = colour_of(-share), centre
    canvas.box(centre, (_CELL, _CELL), fillcolor=colour, color=FAINT, tooltip=title)
    ink = _ON_DARK if share > 0.6 else DARK
    canvas.text(x, y - 6 if expected else y, value, just="", colour=ink)
    if expected:
        canvas.text(x, y + 12, expected, just="", colour=ink)
