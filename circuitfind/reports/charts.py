"""Charts of several runs, in plain SVG: the same values give the same bytes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999",
)  # fmt: skip
"""Colours that stay apart for colour-blind readers (Okabe and Ito 2008); then they repeat, with
other dashes."""

_DASHES = ("", "6 3", "2 3")
_GRID, _TEXT, _QUIET = "#e5e5e5", "#222222", "#777777"
_WIDTH, _HEIGHT, _LEFT, _TOP, _BELOW = 300.0, 220.0, 52.0, 28.0, 44.0
_ACROSS = 3
_LETTER = 6.4
"""Width of a letter, on average, at size 11."""


Point = tuple[float, float]


@dataclass(frozen=True)
class Panel:
    """Curves on common axes.

    Attributes:
        title: What they have in common.
        curves: Points (share of edges, faithfulness) by name.
    """

    title: str
    curves: Mapping[str, Sequence[Point]]


def size_chart(panels: Sequence[Panel], title: str) -> str:
    """Draw faithfulness against the share of edges kept, on a logarithmic axis.

    Points below 0 or above 1 in faithfulness are drawn at the edge, hollow; their figure is in the
    tip of the point.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    shares = [x for panel in panels for points in panel.curves.values() for x, _ in points if x > 0]
    low = math.floor(math.log10(min(shares, default=0.1)))
    low = min(low, -1)
    across = min(_ACROSS, len(panels)) or 1
    legend = 40 + _LETTER * max(map(len, names), default=0)
    width = across * (_WIDTH + _LEFT + 16) + legend
    height = 40 + -(-len(panels) // across) * (_HEIGHT + _TOP + _BELOW)
    parts = [*_opened(width, max(height, 60 + 18 * len(names)), title)]
    for number, panel in enumerate(panels):
        down, right = divmod(number, across)
        x = _LEFT + right * (_WIDTH + _LEFT + 16)
        parts += _panel(panel, names, x, 40 + _TOP + down * (_HEIGHT + _TOP + _BELOW), low)
    for number, name in enumerate(names):
        parts += _key(width - legend + 8, 62.0 + 18 * number, name, number)
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, names: Sequence[str], left: float, top: float, low: int) -> Iterator[str]:
    def place(point: Point) -> Point:
        share = max(math.log10(max(point[0], 10.0**low)), low)
        return left + _WIDTH * (share - low) / -low, top + _HEIGHT * (1 - _inside(point[1]))

    yield _text(left, top - 8, panel.title, weight="bold")
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = place((1.0, tick))[1]
        yield f'<path d="M{left:g} {y:g}h{_WIDTH:g}" stroke="{_GRID}"/>'
        yield _text(left - 6, y + 4, f"{tick:g}", anchor="end")
    for power in range(low, 1):
        x = place((10.0**power, 0.0))[0]
        yield f'<path d="M{x:g} {top:g}v{_HEIGHT:g}" stroke="{_GRID}"/>'
        yield _text(x, top + _HEIGHT + 15, f"{100 * 10.0**power:g}%", anchor="middle")
    yield _text(left + _WIDTH / 2, top + _HEIGHT + 31, "edges kept", "middle", _QUIET)
    turned = f'transform="rotate(-90 {left - 38:g} {top + _HEIGHT / 2:g})"'
    yield _text(left - 38, top + _HEIGHT / 2, "faithfulness", "middle", _QUIET, more=turned)
    for name, points in panel.curves.items():
        yield from _curve(names.index(name), name, sorted(points), place)


def _inside(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _curve(
    number: int, name: str, points: Sequence[Point], place: Callable[[Point], Point]
) -> Iterator[str]:
    colour, dash = _style(number)
    path = "L".join("{:.1f} {:.1f}".format(*place(point)) for point in points)
    yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6" {dash}/>'
    for point in points:
        x, y = place(point)
        fill = colour if 0 <= point[1] <= 1 else "#ffffff"
        tip = f"{name}: {100 * point[0]:.3g}% of edges, faithfulness {point[1]:.3f}"
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{fill}" stroke="{colour}">'
            f"<title>{escape(tip)}</title></circle>"
        )


def _style(number: int) -> tuple[str, str]:
    dash = _DASHES[number // len(COLOURS) % len(_DASHES)]
    return COLOURS[number % len(COLOURS)], f'stroke-dasharray="{dash}"' if dash else ""


def _key(x: float, y: float, name: str, number: int) -> Iterator[str]:
    colour, dash = _style(number)
    yield f'<path d="M{x:g} {y - 4:g}h22" stroke="{colour}" stroke-width="2" {dash}/>'
    yield f'<circle cx="{x + 11:g}" cy="{y - 4:g}" r="3.2" fill="{colour}"/>'
    yield _text(x + 28, y, name)


def dot_chart(rows: Sequence[tuple[str, str, Sequence[float]]], title: str, axis: str) -> str:
    """Draw a row per setting: a dot per value from 0 to 1, and a bar to their mean.

    Args:
        rows: A label, what decides the colour, and the values.
        title: What is shown.
        axis: What the values are.
    """
    groups = list(dict.fromkeys(group for _, group, _ in rows))
    left = 24 + _LETTER * max((len(label) for label, *_ in rows), default=0)
    height = 50.0 + 22 * len(rows)
    parts = [*_opened(left + _WIDTH + 70, height + 40, title)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + _WIDTH * tick
        parts.append(f'<path d="M{x:g} 44V{height:g}" stroke="{_GRID}"/>')
        parts.append(_text(x, height + 15, f"{tick:g}", anchor="middle"))
    parts.append(_text(left + _WIDTH / 2, height + 31, axis, "middle", _QUIET))
    for number, (label, group, values) in enumerate(rows):
        y, mean = 60.0 + 22 * number, sum(values) / len(values)
        colour = COLOURS[groups.index(group) % len(COLOURS)]
        parts.append(_text(left - 8, y + 4, label, anchor="end"))
        parts.append(
            f'<rect x="{left:g}" y="{y - 6:g}" width="{_WIDTH * mean:.1f}" height="12" '
            f'fill="{colour}" fill-opacity="0.35"/>'
        )
        parts += [
            f'<circle cx="{left + _WIDTH * value:.1f}" cy="{y:g}" r="3" fill="{colour}"/>'
            for value in values
        ]
        parts.append(_text(left + _WIDTH + 10, y + 4, f"{mean:.2f}"))
    return "\n".join([*parts, "</svg>\n"])


def matrix_chart(names: Sequence[str], values: Mapping[tuple[str, str], float], title: str) -> str:
    """Draw a square per pair of names, darker the closer its value is to 1, with the figure."""
    left, cell = 24 + _LETTER * max(map(len, names), default=0), 40.0
    top, size = 50.0, 40.0 * len(names)
    width = max(left + size + 20, 24 + _LETTER * len(title) * 1.3)
    parts = [*_opened(width, top + size + left, title)]
    for row, name in enumerate(names):
        parts.append(_text(left - 8, top + cell * (row + 0.5) + 4, name, anchor="end"))
        x, y = left + cell * (row + 0.5) + 4, top + size + 8
        turned = f'transform="rotate(-90 {x:g} {y:g})"'
        parts.append(_text(x, y, name, anchor="end", more=turned))
        for column, other in enumerate(names):
            parts += _square(
                left + cell * column, top + cell * row, cell, values.get((name, other))
            )
    return "\n".join([*parts, "</svg>\n"])


def _square(x: float, y: float, cell: float, value: float | None) -> Iterator[str]:
    share = _inside(value or 0.0)
    parts = (round(255 + (end - 255) * share) for end in (0x00, 0x72, 0xB2))
    colour = "#" + "".join(f"{part:02x}" for part in parts)
    yield (
        f'<rect x="{x:g}" y="{y:g}" width="{cell:g}" height="{cell:g}" fill="{colour}" '
        'stroke="#ffffff"/>'
    )
    if value is not None:
        ink = "#ffffff" if share > 0.55 else _TEXT
        yield _text(x + cell / 2, y + cell / 2 + 4, f"{value:.2f}", "middle", ink)


def _opened(width: float, height: float, title: str) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" '
        'font-size="11">'
    )
    yield f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
    yield f'<text x="14" y="22" font-size="14" fill="{_TEXT}">{escape(title)}</text>'


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    colour: str = _TEXT,
    *,
    weight: str = "normal",
    more: str = "",
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}" {more}>{escape(text)}</text>'
    )
