"""Boxes and lines of text at given places, as DOT text that Graphviz turns into images.

Heatmaps and matrices are drawn by the program that draws circuits: one way to SVG, PNG and PDF, and
the same bytes for the same result. Lengths are in points, and `y` counts downwards.
"""

import graphviz

from circuitfind.reports.dot import FONT, plain

FONT_SIZE = 11.0
LINE = 16.0
"""From one line of text to the next."""

LETTER = 0.58 * FONT_SIZE
"""Width of a letter, on average."""

DARK, QUIET, FAINT = "#222222", "#777777", "#dddddd"

TOWARDS, AWAY, NOTHING = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2), (0xFF, 0xFF, 0xFF)
"""Colours that stay apart for colour-blind readers (Okabe and Ito 2008)."""


class Canvas:
    """A drawing in progress."""

    def __init__(self, name: str) -> None:
        self._n_shapes = 0
        self._graph = graphviz.Graph(
            name,
            graph_attr={"layout": "nop2", "bgcolor": "white", "pad": "0.15"},
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


def colour_of(share: float) -> str:
    """Return the colour of an effect, as a share of the largest from -1 to 1."""
    end, size = (TOWARDS if share >= 0 else AWAY), min(1.0, abs(share))
    parts = (round(n + (e - n) * size) for n, e in zip(NOTHING, end, strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


def text_width(text: str) -> float:
    """Return about how wide a line of text is."""
    return LETTER * len(text)
