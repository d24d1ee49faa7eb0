"""Draw lines and points in a plane, with axes and a legend, as SVG.

The text is ours and deterministic: the same values give the same bytes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")
"""Colours that stay apart for colour-blind readers (Okabe and Ito 2008)."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 60, 190, 40, 50


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: What it shows.
        low: Where it begins.
        high: Where it ends; values beyond either end are drawn at the end.
        ticks: Which values are marked.
        logarithmic: Whether equal ratios are equally wide.
        percent: Whether ticks are written as percentages.
    """

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False
    percent: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, from 0 at the low end to 1 at the high end."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def text(self, tick: float) -> str:
        """Return a tick in words."""
        return f"{100 * tick:g} %" if self.percent else f"{tick:g}"


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Attributes:
        name: What the legend calls them.
        points: The points.
        colour: `#rrggbb`.
        line: How they are joined: straight, by pessimistic steps, or not at all.
        dots: Whether each is marked.
        dashed: Whether the line is dashed.
        tips: What an SVG shows when the pointer rests on each point.
    """

    name: str
    points: tuple[Point, ...]
    colour: str
    line: str = "straight"
    dots: bool = True
    dashed: bool = False
    tips: tuple[str, ...] = ()


def draw_lines(title: str, x_axis: Axis, y_axis: Axis, series: Sequence[Series]) -> str:
    """Return a chart as SVG."""
    return "\n".join([*_Chart(x_axis, y_axis).elements(title, series), "</svg>\n"])


class _Chart:
    def __init__(self, x_axis: Axis, y_axis: Axis) -> None:
        self._x_axis, self._y_axis = x_axis, y_axis

    def elements(self, title: str, series: Sequence[Series]) -> Iterator[str]:
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="Helvetica, Arial, sans-serif" font-size="13">'
        )
        yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        yield f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>'
        yield from self._axes()
        for row, one in enumerate(series):
            yield from self._series(one)
            yield from _legend(one, TOP + 14.0 + 24 * row)

    def _x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * self._x_axis.place(value)

    def _y(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - self._y_axis.place(value))

    def _axes(self) -> Iterator[str]:
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        for tick in self._y_axis.ticks:
            y, label = self._y(tick), self._y_axis.text(tick)
            yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#e5e5e5"/>'
            yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        for tick in self._x_axis.ticks:
            if tick >= self._x_axis.low:
                x, label = self._x(tick), self._x_axis.text(tick)
                yield f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#e5e5e5"/>'
                yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>'
        middle, label = (LEFT + right) / 2, escape(self._x_axis.label)
        yield f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{label}</text>'
        yield (
            f'<text transform="translate(16 {(TOP + bottom) / 2}) rotate(-90)" '
            f'text-anchor="middle">{escape(self._y_axis.label)}</text>'
        )

    def _series(self, series: Series) -> Iterator[str]:
        places = [(self._x(x), self._y(y)) for x, y in series.points]
        if series.line != "none" and places:
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in _joined(places, series.line))
            dashes = ' stroke-dasharray="5 4"' if series.dashed else ""
            yield (
                f'<polyline points="{line}" fill="none" stroke="{series.colour}" '
                f'stroke-width="1.6"{dashes}/>'
            )
        for number, (x, y) in enumerate(places if series.dots else []):
            tip = escape(series.tips[number]) if series.tips else ""
            title = f"<title>{tip}</title>" if tip else ""
            yield (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{series.colour}">{title}</circle>'
            )


def _joined(places: Sequence[Point], how: str) -> Iterator[Point]:
    for number, (x, y) in enumerate(places):
        if number and how == "steps":
            yield x, places[number - 1][1]
        yield x, y


def _legend(series: Series, y: float) -> Iterator[str]:
    start = WIDTH - RIGHT + 20
    if series.line == "none":
        yield f'<circle cx="{start + 10}" cy="{y - 4}" r="4" fill="{series.colour}"/>'
    else:
        dashes = ' stroke-dasharray="5 4"' if series.dashed else ""
        yield f'<path d="M{start} {y - 4}h20" stroke="{series.colour}" stroke-width="3"{dashes}/>'
    yield f'<text x="{start + 28}" y="{y}">{escape(series.name)}</text>'
