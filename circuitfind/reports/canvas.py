"""Boxes, lines and text at given places, as DOT text that Graphviz turns into images.

Charts, heatmaps and matrices are drawn by the program that draws circuits: one way to SVG, PNG and
PDF, and the same bytes for the same result. Lengths are in points, and `y` counts downwards. Lines
lie below boxes and text; otherwise what comes later lies above.
"""

from collections.abc import Sequence
from itertools import pairwise

import graphviz

from circuitfind.reports.dot import FONT, plain, shortened

FONT_SIZE = 11.0
LINE = 16.0
"""From one line of text to the next."""

LETTER = 0.58 * FONT_SIZE
"""Width of a letter, on average."""

LONGEST = 120
"""Characters of a text that are shown; of a longer one, an ellipsis stands for the middle."""

DARK, QUIET, FAINT = "#222222", "#777777", "#dddddd"

TOWARDS, AWAY, NOTHING = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2), (0xFF, 0xFF, 0xFF)
"""Ends of a scale that stay apart for colour-blind readers (Okabe and Ito 2008)."""

PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999",
)  # fmt: skip
"""Colours of things that are told apart, from the same source."""

Point = tuple[float, float]

_ANCHOR = "anchor"
_MOST_LEVELS = 4
"""Labels of columns that are wider than a column stand on several levels, at most so many."""


class Canvas:
    """A drawing in progress."""

    def __init__(self, name: str) -> None:
        self._n_shapes, self._n_lines = 0, 0
        self._graph = graphviz.Graph(
            name,
            graph_attr={
                "layout": "nop2",
                "bgcolor": "white",
                "pad": "0.15",
                "outputorder": "edgesfirst",
            },
            node_attr={
                "shape": "box",
                "fixedsize": "true",
                "label": "",
                "margin": "0",
                "fontname": FONT,
                "fontsize": f"{FONT_SIZE:g}",
                "style": "filled",
                "penwidth": "0.5",
            },
        )

    @property
    def dot(self) -> str:
        """The whole drawing as DOT text."""
        return str(self._graph.source)

    def text(self, x: float, y: float, text: str, *, just: str = "l", colour: str = DARK) -> None:
        """Write text that begins at x, or ends there (`r`), or has its middle there."""
        text = shortened(text, LONGEST)
        width = text_width(text) + 4
        middle = {"l": x + width / 2, "r": x - width / 2, "": x}[just]
        end = f"\\{just}" if just else ""
        self.box(
            (middle, y),
            (width, FONT_SIZE + 3),
            shape="plaintext",
            style="",
            label=plain(text) + end,
            fontcolor=colour,
        )

    def box(
        self,
        centre: tuple[float, float],
        size: tuple[float, float],
        *,
        tooltip: str = "",
        **look: str,
    ) -> None:
        """Draw a box; `look` are attributes of DOT, `tooltip` is shown under the pointer."""
        self._graph.node(
            f"n{self._n_shapes}",
            pos=f"{centre[0]:.1f},{-centre[1]:.1f}",
            width=f"{size[0] / 72:.4f}",
            height=f"{size[1] / 72:.4f}",
            **({"tooltip": plain(tooltip)} if tooltip else {}),
            **look,
        )
        self._n_shapes += 1

    def line(
        self, points: Sequence[Point], colour: str, *, width: float = 1.0, dashed: bool = False
    ) -> None:
        """Draw straight lines from each point to the next."""
        if not self._n_lines:
            self._graph.node(_ANCHOR, pos="0,0", width="0", height="0", style="invis")
        self._n_lines += 1
        look = {"style": "dashed"} if dashed else {}
        self._graph.edge(
            _ANCHOR, _ANCHOR, pos=_curve(points), color=colour, penwidth=f"{width:g}", **look
        )

    def column_labels(self, labels: Sequence[str], left: float, top: float, width: float) -> None:
        """Write a label below each column, on another level than its neighbours' where it is wide.

        Args:
            labels: The labels.
            left: Where the first column begins.
            top: Where the columns end.
            width: How wide a column is.
        """
        n_levels = label_levels(labels, width)
        room = int(n_levels * width / LETTER)
        for number, label in enumerate(labels):
            x, level = left + width * (number + 0.5), number % n_levels
            if level:
                length = LINE * level
                self.box((x, top + length / 2), (0.5, length), color=FAINT, fillcolor=FAINT)
            shown = label if len(label) <= room else f"{label[: room - 1]}\u2026"
            self.text(x, top + 10 + LINE * level, shown, just="")


def label_levels(labels: Sequence[str], width: float) -> int:
    """Return on how many levels labels stand below columns of a width."""
    # With room for a letter between them, so that neighbours do not read as one word.
    widest = max(map(text_width, labels)) + LETTER
    return max(1, min(_MOST_LEVELS, len(labels), -int(-widest // width)))


def _curve(points: Sequence[Point]) -> str:
    """Return straight lines as what Graphviz draws: a cubic curve from each point to the next."""
    places = [f"{points[0][0]:.1f},{-points[0][1]:.1f}"]
    for (x, y), (end_x, end_y) in pairwise(points):
        for share in (1 / 3, 2 / 3, 1):
            places.append(f"{x + share * (end_x - x):.1f},{-y - share * (end_y - y):.1f}")
    return " ".join(places)


def colour_of(share: float) -> str:
    """Return the colour of an effect, as a share of the largest from -1 to 1."""
    end, size = (TOWARDS if share >= 0 else AWAY), min(1.0, abs(share))
    parts = (round(n + (e - n) * size) for n, e in zip(NOTHING, end, strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


def text_width(text: str) -> float:
    """Return about how wide a line of text is."""
    return LETTER * min(len(text), LONGEST)
