"""A matrix of how alike circuits are, two by two, as SVG.

The colour and the upper number of a square are the Jaccard index of two circuits' edges, by name in
one model and by matched components across models. The lower number is what chance gives; a frame
marks what it gives with a probability below 0.05.
"""

from collections.abc import Iterator
from html import escape

from circuitfind.comparison.chance import EXCHANGED_HEADS, Statistic
from circuitfind.comparison.result import Comparison, Pair
from circuitfind.reports.heatmap import Heatmap, colour_of, text_element, text_width

SIGNIFICANT = 0.05

_CELL, _MARGIN, _LINE = 58.0, 14.0, 16.0
_CAPTION = (
    "Jaccard index of the edges: by name in one model, matched across models.",
    f"Below: expected with heads exchanged at random; frames: p < {SIGNIFICANT:g}.",
)


def draw_matrix(found: Comparison) -> Heatmap:
    """Draw a comparison of three or more circuits."""
    return Heatmap("\n".join(_elements(found)) + "\n")


def likeness(pair: Pair) -> Statistic:
    """Return how alike the edges of two circuits are: matched, or by name in one model."""
    part = pair.matched or pair.overlap
    return Statistic(None) if part is None else part.edges.jaccard


def _elements(found: Comparison) -> Iterator[str]:
    names = [side.name for side in found.circuits]
    left = _MARGIN + max(map(text_width, names)) + 8
    top = _MARGIN + _LINE * len(_CAPTION) + 12
    size = _CELL * len(names)
    below = max(map(text_width, names)) + 12
    width = max(left + size, _MARGIN + max(map(text_width, _CAPTION))) + _MARGIN
    height = top + size + below + _MARGIN
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" '
        'font-size="11">'
    )
    yield f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
    for number, line in enumerate(_CAPTION):
        yield text_element(_MARGIN, _MARGIN + 12 + _LINE * number, line)
    for number, name in enumerate(names):
        middle = _CELL * (number + 0.5)
        yield text_element(left - 6, top + middle + 4, name, anchor="end")
        x, y = left + middle + 4, top + size + 8
        turned = f'transform="rotate(-90 {x:g} {y:g})"'
        yield text_element(x, y, name, anchor="end", more=turned)
        yield _square(left + _CELL * number, top + _CELL * number, 1.0, names[number], "1.00", "")
    for pair in found.pairs:
        for row, column in ((pair.left, pair.right), (pair.right, pair.left)):
            yield from _cell(left + _CELL * column, top + _CELL * row, pair, names)
    yield "</svg>"


def _cell(x: float, y: float, pair: Pair, names: list[str]) -> Iterator[str]:
    statistic = likeness(pair)
    title = f"{names[pair.left]} and {names[pair.right]}"
    if statistic.value is None:
        yield _square(x, y, 0.0, title, "-", "")
        return
    chance = statistic.chance[EXCHANGED_HEADS]
    said = f"{title}: {statistic.value:.3f}, expected {chance.expected:.3f}, p {chance.p_value:.3g}"
    yield _square(x, y, statistic.value, said, f"{statistic.value:.2f}", f"{chance.expected:.2f}")
    if chance.p_value < SIGNIFICANT:
        yield (
            f'<rect x="{x + 2:g}" y="{y + 2:g}" width="{_CELL - 4:g}" height="{_CELL - 4:g}" '
            'fill="none" stroke="#000000" stroke-width="2" pointer-events="none"/>'
        )


def _square(x: float, y: float, share: float, title: str, value: str, expected: str) -> str:
    middle = x + _CELL / 2
    colour = "#ffffff" if share > 0.6 else "#222222"
    texts = text_element(middle, y + 26, value, anchor="middle", colour=colour, weight="bold")
    if expected:
        texts += text_element(middle, y + 43, expected, anchor="middle", colour=colour)
    return (
        f'<g><title>{escape(title)}</title><rect x="{x:g}" y="{y:g}" width="{_CELL:g}" '
        f'height="{_CELL:g}" fill="{colour_of(-share)}" stroke="#dddddd"/>{texts}</g>'
    )
