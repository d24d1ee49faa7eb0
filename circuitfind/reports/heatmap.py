"""Heatmaps of patching: a square per patch, coloured by its effect, with axes that say what it is.

Layers run upwards, as in circuit diagrams. Orange is an effect towards the source run, blue one
away from it, white none; a frame marks what is significant. In an SVG, resting the pointer on a
square names the patch and gives its effect in figures. The text is ours and deterministic: the same
result gives the same bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from circuitfind.errors import ReportError
from circuitfind.patching.result import DEFAULT_THRESHOLD, PatchResult, Row
from circuitfind.reports.panels import Panel, panels_of

_CELL, _GAP, _MARGIN = 26.0, 34.0, 14.0
_FONT = 11.0
_LETTER = 0.58 * _FONT
"""Width of a letter, on average."""

TOWARDS, AWAY, NOTHING = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2), (0xFF, 0xFF, 0xFF)
"""Colours that stay apart for colour-blind readers (Okabe and Ito 2008)."""

_MEANINGS = {
    "denoising": "clean activations in the corrupted run: 1 restores the clean metric",
    "noising": "corrupted activations in the clean run: 1 breaks it like the corrupted prompt",
    "interchange": "another prompt's activations in the clean run: 1 does as that prompt",
}
_MOST_WIDE = 1100


@dataclass(frozen=True)
class Heatmap:
    """A drawn heatmap.

    Attributes:
        svg: The drawing.
    """

    svg: str

    def save(self, path: Path | str) -> Path:
        """Write the drawing.

        Raises:
            ReportError: The file's name does not end in .svg, or it cannot be written.
        """
        path = Path(path)
        if path.suffix != ".svg":
            raise ReportError(f"a heatmap is drawn as .svg, not {path.suffix!r}; name it so")
        try:
            path.write_text(self.svg, encoding="utf-8")
        except OSError as error:
            raise ReportError(f"cannot write {path}: {error.strerror}") from None
        return path

    def _repr_svg_(self) -> str:
        return self.svg


def draw_heatmap(
    result: PatchResult, site: str, *, threshold: float = DEFAULT_THRESHOLD
) -> Heatmap:
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
    drawing = _Drawing(panels, marked, scale, [*lines, *([note] if note else [])])
    return Heatmap("\n".join(drawing.elements()) + "\n")


def _noise(n_prompts: int) -> str:
    return "on 1 prompt" if n_prompts == 1 else f"and outside the noise of {n_prompts} prompts"


class _Drawing:
    """Panels side by side, as many as fit, with caption and colour bar."""

    def __init__(
        self,
        panels: Sequence[Panel],
        marked: set[tuple[int, ...]],
        scale: float,
        caption: Sequence[str],
    ) -> None:
        self._panels, self._marked, self._scale, self._caption = panels, marked, scale, caption
        first = panels[0]
        self._left = max(map(text_width, (*first.rows, first.row_axis))) + 10
        widest = max(text_width(label) for label in first.columns)
        # Labels that are wider than their column stand upright.
        self._upright = widest > _CELL - 2
        self._below = (widest if self._upright else _FONT) + 26
        self._width = self._left + _CELL * len(first.columns)
        self._height = _CELL * len(first.rows) + self._below + _GAP
        self._per_line = max(1, int((_MOST_WIDE - _MARGIN) // (self._width + _GAP)))

    def elements(self) -> Iterator[str]:
        n_lines = -(-len(self._panels) // self._per_line)
        across = min(len(self._panels), self._per_line)
        top = _MARGIN + 16 * len(self._caption) + _GAP
        drawn = across * (self._width + _GAP) - _GAP
        width = 2 * _MARGIN + max(drawn, max(map(text_width, self._caption)), 320)
        height = top + n_lines * self._height + 30
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" '
            f'font-size="{_FONT:g}">'
        )
        yield f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
        for number, line in enumerate(self._caption):
            yield text_element(_MARGIN, _MARGIN + 12 + 16 * number, line)
        for number, panel in enumerate(self._panels):
            down, right = divmod(number, self._per_line)
            x = _MARGIN + right * (self._width + _GAP)
            yield from self._panel(panel, x, top + down * self._height)
        yield from self._bar(_MARGIN, height - 30)
        yield "</svg>"

    def _panel(self, panel: Panel, x: float, y: float) -> Iterator[str]:
        left, n_rows = x + self._left, len(panel.rows)
        if panel.title:
            yield text_element(left, y - 6, panel.title, weight="bold")
        for number, label in enumerate(panel.rows):
            middle = y + _CELL * (n_rows - number - 0.5) + 4
            yield text_element(left - 6, middle, label, anchor="end")
        yield text_element(left - 6, y - 6, panel.row_axis, anchor="end", colour="#777777")
        bottom = y + _CELL * n_rows
        for number, label in enumerate(panel.columns):
            yield self._column_label(left + _CELL * (number + 0.5), bottom, label)
        yield text_element(left, bottom + self._below - 6, panel.column_axis, colour="#777777")
        for place, patch in panel.cells.items():
            yield self._cell(left, y + _CELL * (n_rows - 1), place, patch)
        # Frames last, so that no neighbour covers them.
        for (at, column), patch in panel.cells.items():
            if patch.indices in self._marked:
                yield (
                    f'<rect x="{left + _CELL * column + 1:g}" '
                    f'y="{y + _CELL * (n_rows - 1 - at) + 1:g}" width="{_CELL - 2:g}" '
                    f'height="{_CELL - 2:g}" fill="none" stroke="#000000" stroke-width="1.6" '
                    'pointer-events="none"/>'
                )

    def _column_label(self, x: float, y: float, label: str) -> str:
        if not self._upright:
            return text_element(x, y + _FONT + 3, label, anchor="middle")
        turned = f'transform="rotate(-90 {x + 4:g} {y + 6:g})"'
        return text_element(x + 4, y + 6, label, anchor="end", more=turned)

    def _cell(self, left: float, lowest: float, place: tuple[int, int], patch: Row) -> str:
        row, column = place
        where = ", ".join(f"{axis} {label}" for axis, label in patch.place.items())
        return (
            f'<rect x="{left + _CELL * column:g}" y="{lowest - _CELL * row:g}" width="{_CELL:g}" '
            f'height="{_CELL:g}" fill="{colour_of(patch.effect / self._scale)}" stroke="#dddddd" '
            f'stroke-width="0.5"><title>{escape(where)}: {patch.effect:.3f}</title></rect>'
        )

    def _bar(self, x: float, y: float) -> Iterator[str]:
        steps, size = 41, 5
        for step in range(steps):
            share = 2 * step / (steps - 1) - 1
            yield (
                f'<rect x="{x + size * step:g}" y="{y:g}" width="{size + 0.5:g}" height="10" '
                f'fill="{colour_of(share)}"/>'
            )
        ends = ((0.0, -self._scale, "start"), (0.5, 0.0, "middle"), (1.0, self._scale, "end"))
        for share, value, anchor in ends:
            at = x + size * steps * share
            yield text_element(at, y + 22, f"{value:.2g}", anchor=anchor)
        yield text_element(x + size * steps + 12, y + 9, "effect")


def colour_of(share: float) -> str:
    """Return the colour of an effect, as a share of the largest from -1 to 1."""
    end, size = (TOWARDS if share >= 0 else AWAY), min(1.0, abs(share))
    parts = (round(n + (e - n) * size) for n, e in zip(NOTHING, end, strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


def text_width(text: str) -> float:
    """Return the width of a line of text, on average."""
    return _LETTER * len(text)


def text_element(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = "#222222",
    weight: str = "normal",
    more: str = "",
) -> str:
    """Return a line of text as an SVG element."""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}" {more}>{escape(text)}</text>'
    )
