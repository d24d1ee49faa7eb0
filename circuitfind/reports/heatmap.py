"""Heatmaps of patching: a square per patch, coloured by its effect, with axes that say what it is.

Layers run upwards, as in circuit diagrams. Orange is an effect towards the source run, blue one
away from it, white none; a frame marks what is significant. In an SVG, resting the pointer on a
square names the patch and gives its effect in figures. Like circuits, heatmaps are DOT text, here
with every place given, that Graphviz turns into images: the same result gives the same bytes.
"""

from collections.abc import Sequence

import graphviz

from circuitfind.patching.result import DEFAULT_THRESHOLD, PatchResult, Row
from circuitfind.reports.diagram import Diagram
from circuitfind.reports.dot import FONT, plain
from circuitfind.reports.panels import Panel, panels_of

_CELL, _GAP, _LINE = 26.0, 34.0, 16.0
_FONT = 11.0
_LETTER = 0.58 * _FONT
"""Width of a letter, on average."""

_MOST_LEVELS = 4
"""Labels of columns that are wider than a column stand on several levels, at most so many."""

TOWARDS, AWAY, NOTHING = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2), (0xFF, 0xFF, 0xFF)
"""Colours that stay apart for colour-blind readers (Okabe and Ito 2008)."""

_DARK, _QUIET, _FAINT = "#222222", "#777777", "#dddddd"

_MEANINGS = {
    "denoising": "clean activations in the corrupted run: 1 restores the clean metric",
    "noising": "corrupted activations in the clean run: 1 breaks it like the corrupted prompt",
    "interchange": "another prompt's activations in the clean run: 1 does as that prompt",
}
_MOST_WIDE = 1100


def draw_heatmap(
    result: PatchResult, site: str, *, threshold: float = DEFAULT_THRESHOLD
) -> Diagram:
    """Draw one site of a result.

    Args:
        result: What was measured.
        site: The site.
        threshold: From which size of effect on a patch is significant.

    Raises:
        MethodError: The result has no such site.
    """
    rows = list(result.rows(site))
    marked = {row.indices for row in result.significant(threshold) if row.site == site}
    panels, note = panels_of(result, site, rows)
    scale = max((abs(row.effect) for row in rows), default=0.0) or 1.0
    lines = [
        f"{site}, {result.mode}: {_MEANINGS[result.mode]}",
        f"effect on {result.metric}, frames: {threshold:g} or more {_noise(result.n_prompts)}",
    ]
    drawing = _Drawing(panels, marked, scale)
    return Diagram(drawing.dot([*lines, *([note] if note else [])]))


def _noise(n_prompts: int) -> str:
    return "on 1 prompt" if n_prompts == 1 else f"and outside the noise of {n_prompts} prompts"


class _Drawing:
    """Panels side by side, as many as fit, with caption and colour bar; `y` counts downwards."""

    def __init__(self, panels: Sequence[Panel], marked: set[tuple[int, ...]], scale: float) -> None:
        self._panels, self._marked, self._scale = panels, marked, scale
        first = panels[0]
        self._left = max(map(_text_width, (*first.rows, first.row_axis))) + 10
        widest = max(_text_width(label) for label in first.columns)
        self._levels = min(_MOST_LEVELS, len(first.columns), -int(-widest // _CELL))
        self._below = _LINE * (self._levels + 1) + 6
        self._width = self._left + _CELL * len(first.columns)
        self._height = _CELL * len(first.rows) + self._below + _GAP
        self._per_line = max(1, int(_MOST_WIDE // (self._width + _GAP)))
        self._n_shapes = 0
        self._canvas = graphviz.Graph(
            "heatmap",
            graph_attr={"layout": "nop2", "bgcolor": "white", "pad": "0.15"},
            node_attr={
                "shape": "box",
                "fixedsize": "true",
                "label": "",
                "margin": "0",
                "fontname": FONT,
                "fontsize": f"{_FONT:g}",
                "style": "filled",
                "penwidth": "0.5",
            },
        )

    def dot(self, caption: Sequence[str]) -> str:
        """Return the whole drawing as DOT text."""
        for number, line in enumerate(caption):
            self._text(0.0, _LINE * number, line)
        top = _LINE * len(caption) + _GAP
        for number, panel in enumerate(self._panels):
            down, right = divmod(number, self._per_line)
            self._panel(panel, right * (self._width + _GAP), top + down * self._height)
        n_lines = -(-len(self._panels) // self._per_line)
        self._bar(top + n_lines * self._height)
        return str(self._canvas.source)

    def _panel(self, panel: Panel, x: float, y: float) -> None:
        left, bottom = x + self._left, y + _CELL * len(panel.rows)
        if panel.title:
            self._text(left, y - 12, panel.title)
        self._text(left - 6, y - 12, panel.row_axis, just="r", colour=_QUIET)
        for number, label in enumerate(panel.rows):
            self._text(left - 6, bottom - _CELL * (number + 0.5), label, just="r")
        for number, label in enumerate(panel.columns):
            self._column_label(left + _CELL * (number + 0.5), bottom, label, number)
        self._text(left, bottom + self._below - 6, panel.column_axis, colour=_QUIET)
        marked = []
        for (row, column), patch in panel.cells.items():
            centre = left + _CELL * (column + 0.5), bottom - _CELL * (row + 0.5)
            self._cell(centre, patch)
            marked += [centre] if patch.indices in self._marked else []
        # Frames last, so that no neighbour covers them.
        for centre in marked:
            self._box(centre, (_CELL - 2, _CELL - 2), color="#000000", penwidth="1.6", style="")

    def _cell(self, centre: tuple[float, float], patch: Row) -> None:
        where = ", ".join(f"{axis} {label}" for axis, label in patch.place.items())
        self._box(
            centre,
            (_CELL, _CELL),
            fillcolor=colour_of(patch.effect / self._scale),
            color=_FAINT,
            tooltip=plain(f"{where}: {patch.effect:.3f}"),
        )

    def _column_label(self, x: float, bottom: float, label: str, number: int) -> None:
        """Write a label below its column, each on another level than its neighbours."""
        level, room = number % self._levels, int(self._levels * _CELL / _LETTER)
        if level:
            length = _LINE * level
            self._box((x, bottom + length / 2), (0.5, length), color=_FAINT, fillcolor=_FAINT)
        shown = label if len(label) <= room else f"{label[: room - 1]}\u2026"
        self._text(x, bottom + 10 + _LINE * level, shown, just="")

    def _bar(self, y: float) -> None:
        steps, size = 41, 5.0
        for step in range(steps):
            colour = colour_of(2 * step / (steps - 1) - 1)
            at = size * (step + 0.5), y
            self._box(at, (size, 10.0), fillcolor=colour, color=colour)
        for share, value, just in (
            (0.0, -self._scale, "l"),
            (0.5, 0.0, ""),
            (1.0, self._scale, "r"),
        ):
            self._text(size * steps * share, y + 14, f"{value:.2g}", just=just)
        self._text(size * steps + 8, y, "effect")

    def _text(self, x: float, y: float, text: str, *, just: str = "l", colour: str = _DARK) -> None:
        """Write text that begins at x, or ends there (`r`), or has its middle there."""
        width = _text_width(text) + 4
        middle = {"l": x + width / 2, "r": x - width / 2, "": x}[just]
        end = f"\\{just}" if just else ""
        self._box(
            (middle, y),
            (width, _FONT + 3),
            shape="plaintext",
            style="",
            label=plain(text) + end,
            fontcolor=colour,
        )

    def _box(self, centre: tuple[float, float], size: tuple[float, float], **look: str) -> None:
        self._canvas.node(
            f"n{self._n_shapes}",
            pos=f"{centre[0]:.1f},{-centre[1]:.1f}",
            width=f"{size[0] / 72:.4f}",
            height=f"{size[1] / 72:.4f}",
            **look,
        )
        self._n_shapes += 1


def colour_of(share: float) -> str:
    """Return the colour of an effect, as a share of the largest from -1 to 1."""
    end, size = (TOWARDS if share >= 0 else AWAY), min(1.0, abs(share))
    parts = (round(n + (e - n) * size) for n, e in zip(NOTHING, end, strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


def _text_width(text: str) -> float:
    return _LETTER * len(text)
