"""Heatmaps of patching: a square per patch, coloured by its effect, with axes that say what it is.

Layers run upwards, as in circuit diagrams. Orange is an effect towards the source run, blue one
away from it, white none; a frame marks what is significant. Colours end at an effect of 1, that of
the whole source run, so that patches that do more do not fade all others. In an SVG, resting the
pointer on a square names the patch and gives its effect in figures. Like circuits, heatmaps are
DOT text, here with every place given, that Graphviz turns into images: the same result gives the
same bytes.
"""

from collections.abc import Sequence
from dataclasses import replace

from circuitfind.errors import require_kind
from circuitfind.patching.result import DEFAULT_THRESHOLD, PatchResult, Row
from circuitfind.reports.canvas import (
    FAINT,
    LINE,
    QUIET,
    Canvas,
    colour_of,
    label_levels,
    text_width,
)
from circuitfind.reports.diagram import Diagram
from circuitfind.reports.panels import Panel, panels_of

_CELL, _GAP = 26.0, 34.0

_MEANINGS = {
    "denoising": "clean activations in the corrupted run: 1 restores the clean metric",
    "noising": "corrupted activations in the clean run: 1 breaks it like the corrupted prompt",
    "interchange": "one prompt's activations in the other of its pair: 1 does as the one",
    "interchange-within": "another prompt's activations in the clean run: 1 does as that prompt",
}
_MOST_WIDE = 1100
_DARK = 0.8
"""From this share of the scale on, figures on a square are white."""


def draw_heatmap(
    result: PatchResult,
    site: str,
    *,
    threshold: float = DEFAULT_THRESHOLD,
    annotate: bool = False,
) -> Diagram:
    """Draw one site of a result.

    Args:
        result: What was measured.
        site: The site.
        threshold: From which size of effect on a patch is significant.
        annotate: Write every effect into its square, in hundredths.

    Raises:
        MethodError: The result has no such site.
    """
    require_kind(result, PatchResult, "a result of patching; give what `patch` returned")
    result = _in_two_axes(result, site)
    rows = list(result.rows(site))
    marked = {row.indices for row in result.significant(threshold) if row.site == site}
    panels, note = panels_of(result, site, rows)
    largest = max((abs(row.effect) for row in rows), default=0.0) or 1.0
    lines = [
        f"{site}, {result.mode}: {_MEANINGS[result.mode]}",
        f"effect on {result.metric}, frames: {threshold:g} or more {_noise(result)}",
    ]
    drawing = _Drawing(panels, marked, largest, annotate=annotate)
    return Diagram(drawing.dot([*lines, *([note] if note else [])]))


def _in_two_axes(result: PatchResult, site: str) -> PatchResult:
    """Return the site as a row, if positions are its only axis."""
    axes = result.axes.get(site, ())
    if len(axes) != 1:
        return result
    return replace(
        result,
        values={site: result.values[site][None]},
        axes={site: ("site", *axes)},
        labels={**result.labels, "site": (site,)},
    )


def _noise(result: PatchResult) -> str:
    if len(result.independent(result.base)) > 1:
        return f"and outside the noise of {result.n_prompts} prompts"
    return f"on {result.n_prompts} prompt{'s' * (result.n_prompts > 1)}"


class _Drawing:
    """Panels side by side, as many as fit, with caption and colour bar; `y` counts downwards."""

    def __init__(
        self,
        panels: Sequence[Panel],
        marked: set[tuple[int, ...]],
        largest: float,
        *,
        annotate: bool,
    ) -> None:
        self._panels, self._marked, self._annotate = panels, marked, annotate
        self._largest, self._scale = largest, min(1.0, largest)
        first = panels[0]
        self._left = max(map(text_width, (*first.rows, first.row_axis))) + 10
        self._below = LINE * (label_levels(first.columns, _CELL) + 1) + 6
        self._width = self._left + _CELL * len(first.columns)
        self._height = _CELL * len(first.rows) + self._below + _GAP
        self._per_line = max(1, int(_MOST_WIDE // (self._width + _GAP)))
        self._canvas = Canvas("heatmap")

    def dot(self, caption: Sequence[str]) -> str:
        """Return the whole drawing as DOT text."""
        for number, line in enumerate(caption):
            self._canvas.text(0.0, LINE * number, line)
        top = LINE * len(caption) + _GAP
        for number, panel in enumerate(self._panels):
            down, right = divmod(number, self._per_line)
            self._panel(panel, right * (self._width + _GAP), top + down * self._height)
        n_lines = -(-len(self._panels) // self._per_line)
        self._bar(top + n_lines * self._height)
        return self._canvas.dot

    def _panel(self, panel: Panel, x: float, y: float) -> None:
        left, bottom = x + self._left, y + _CELL * len(panel.rows)
        if panel.title:
            self._canvas.text(left, y - 12, panel.title)
        self._canvas.text(left - 6, y - 12, panel.row_axis, just="r", colour=QUIET)
        for number, label in enumerate(panel.rows):
            self._canvas.text(left - 6, bottom - _CELL * (number + 0.5), label, just="r")
        self._canvas.column_labels(panel.columns, left, bottom, _CELL)
        self._canvas.text(left, bottom + self._below - 6, panel.column_axis, colour=QUIET)
        marked = []
        for (row, column), patch in panel.cells.items():
            centre = left + _CELL * (column + 0.5), bottom - _CELL * (row + 0.5)
            self._cell(centre, patch)
            marked += [centre] if patch.indices in self._marked else []
        # Frames last, so that no neighbour covers them.
        for centre in marked:
            self._canvas.box(
                centre, (_CELL - 2, _CELL - 2), color="#000000", penwidth="1.6", style=""
            )

    def _cell(self, centre: tuple[float, float], patch: Row) -> None:
        where = ", ".join(f"{axis} {label}" for axis, label in patch.place.items())
        share = patch.effect / self._scale
        number = _hundredths(patch.effect) if self._annotate else ""
        self._canvas.box(
            centre,
            (_CELL, _CELL),
            fillcolor=colour_of(share),
            color=FAINT,
            tooltip=f"{where}: {patch.effect:.3f}",
            label=number,
            fontsize="8",
            fontcolor="#ffffff" if abs(share) > _DARK else "#222222",
        )

    def _bar(self, y: float) -> None:
        steps, size = 41, 5.0
        for step in range(steps):
            colour = colour_of(2 * step / (steps - 1) - 1)
            at = size * (step + 0.5), y
            self._canvas.box(at, (size, 10.0), fillcolor=colour, color=colour)
        for share, value, just in (
            (0.0, -self._scale, "l"),
            (0.5, 0.0, ""),
            (1.0, self._scale, "r"),
        ):
            self._canvas.text(size * steps * share, y + 14, f"{value:.2g}", just=just)
        beyond = f", up to {self._largest:.2g}" if self._largest > self._scale else ""
        self._canvas.text(size * steps + 8, y, f"effect{beyond}")


def _hundredths(effect: float) -> str:
    """Return an effect as short as a square is: .87, -.05, 1.4, 0."""
    if abs(effect) < 0.005:
        return "0"
    if abs(effect) >= 0.995:
        return f"{effect:.1f}"
    return f"{effect:.2f}".replace("0.", ".")
