"""Lines and points in a plane, with axes and a legend; several planes side by side as panels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from circuitfind.reports.canvas import (
    FAINT,
    LINE,
    PALETTE,
    QUIET,
    Canvas,
    Point,
    text_width,
)
from circuitfind.reports.diagram import Diagram

Mark = Literal["circle", "diamond"]

_SIZE, _SIZE_OF_MANY = (460.0, 300.0), (280.0, 200.0)
_MOST_ACROSS = 3
_ABOVE, _BELOW, _GAP = 44.0, 42.0, 30.0
_SIZES: Mapping[Mark, float] = {"circle": 6.0, "diamond": 11.0}
_BEYOND = "hollow: beyond the axes, drawn at their end"


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: What it shows.
        low: Where it begins.
        high: Where it ends; points beyond either end are drawn at the end, hollow.
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

    def holds(self, value: float) -> bool:
        """Return whether a value lies between the ends."""
        return self.low <= value <= self.high

    def text(self, tick: float) -> str:
        """Return a tick in words."""
        return f"{100 * tick:g} %" if self.percent else f"{tick:g}"


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Attributes:
        name: What the legend calls them; series of one name look alike in all panels.
        points: The points.
        colour: `#rrggbb`.
        line: How they are joined: `straight`, by pessimistic `steps`, or not at all (`none`).
        dots: Whether each is marked.
        mark: How it is marked.
        ranges: From which y to which a bar at each point reaches.
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
    mark: Mark = "circle"
    ranges: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Plane:
    """A panel of a chart.

    Attributes:
        series: What is drawn in it.
        title: What these have in common; may be empty.
    """

    series: tuple[Series, ...]
    title: str = ""


def colour_of_series(number: int) -> tuple[str, bool]:
    """Return the colour of one of many series, and whether its line is dashed."""
    return PALETTE[number % len(PALETTE)], bool(number // len(PALETTE) % 2)


def draw_lines(title: str, x_axis: Axis, y_axis: Axis, series: Sequence[Series]) -> Diagram:
    """Draw a chart of one panel."""
    return draw_panels(title, x_axis, y_axis, [Plane(tuple(series))])


def draw_panels(title: str, x_axis: Axis, y_axis: Axis, planes: Sequence[Plane]) -> Diagram:
    """Draw panels with common axes and one legend."""
    canvas = Canvas("chart")
    canvas.text(0.0, 0.0, title)
    size = _SIZE if len(planes) == 1 else _SIZE_OF_MANY
    left = 8 + max(text_width(y_axis.text(tick)) for tick in y_axis.ticks)
    across = min(_MOST_ACROSS, len(planes))
    for number, plane in enumerate(planes):
        down, right = divmod(number, across)
        corner = (
            left + right * (size[0] + left + _GAP),
            _ABOVE + 8 + down * (size[1] + _ABOVE + _BELOW),
        )
        _Panel(canvas, x_axis, y_axis, corner, size).draw(plane)
    known = {series.name: series for plane in planes for series in plane.series}
    start = across * (size[0] + left + _GAP)
    for row, series in enumerate(known.values()):
        _legend(canvas, series, (start, _ABOVE + 16 + LINE * 1.25 * row))
    drawn = (series for plane in planes for series in plane.series if series.dots)
    if any(not _inside(point, x_axis, y_axis) for series in drawn for point in series.points):
        at = start + 11, _ABOVE + 16 + LINE * 1.25 * len(known)
        _mark(canvas, at, "circle", QUIET, filled=False)
        canvas.text(at[0] + 17, at[1], _BEYOND, colour=QUIET)
    return Diagram(canvas.dot)


def _inside(point: Point, x_axis: Axis, y_axis: Axis) -> bool:
    return x_axis.holds(point[0]) and y_axis.holds(point[1])


@dataclass(frozen=True)
class _Panel:
    canvas: Canvas
    x_axis: Axis
    y_axis: Axis
    corner: Point
    size: Point

    def draw(self, plane: Plane) -> None:
        left, top = self.corner
        if plane.title:
            self.canvas.text(left, top - 26, plane.title)
        self._axes()
        for series in plane.series:
            self._series(series)

    def _place(self, point: Point) -> Point:
        (left, top), (width, height) = self.corner, self.size
        return (
            left + width * self.x_axis.place(point[0]),
            top + height * (1 - self.y_axis.place(point[1])),
        )

    def _axes(self) -> None:
        (left, top), (width, height) = self.corner, self.size
        right, bottom = left + width, top + height
        for tick in filter(self.y_axis.holds, self.y_axis.ticks):
            y = self._place((self.x_axis.low, tick))[1]
            self.canvas.line([(left, y), (right, y)], FAINT)
            self.canvas.text(left - 4, y, self.y_axis.text(tick), just="r")
        for tick in filter(self.x_axis.holds, self.x_axis.ticks):
            x = self._place((tick, self.y_axis.low))[0]
            self.canvas.line([(x, top), (x, bottom)], FAINT)
            self.canvas.text(x, bottom + 10, self.x_axis.text(tick), just="")
        self.canvas.text(left, top - 10, self.y_axis.label, colour=QUIET)
        self.canvas.text(left + width / 2, bottom + 26, self.x_axis.label, just="", colour=QUIET)

    def _series(self, series: Series) -> None:
        places = [self._place(point) for point in series.points]
        if series.line != "none" and len(places) > 1:
            points = list(_joined(places, series.line))
            self.canvas.line(points, series.colour, width=1.6, dashed=series.dashed)
        for (x, _), ends in zip(series.points, series.ranges, strict=False):
            self.canvas.line([self._place((x, end)) for end in ends], series.colour, width=1.0)
        for number, place in enumerate(places if series.dots else []):
            x, y = series.points[number]
            inside = _inside((x, y), self.x_axis, self.y_axis)
            tip = series.tips[number] if series.tips else f"{series.name}: {x:.3g}, {y:.3f}"
            _mark(self.canvas, place, series.mark, series.colour, tip, filled=inside)


def _mark(
    canvas: Canvas, place: Point, mark: Mark, colour: str, tip: str = "", *, filled: bool = True
) -> None:
    fill, size = colour if filled else "#ffffff", _SIZES[mark]
    canvas.box(place, (size, size), shape=mark, color=colour, fillcolor=fill, tooltip=tip)


def _joined(places: Sequence[Point], how: str) -> Iterator[Point]:
    for number, (x, y) in enumerate(places):
        if number and how == "steps":
            yield x, places[number - 1][1]
        yield x, y


def _legend(canvas: Canvas, series: Series, at: Point) -> None:
    x, y = at
    if series.line != "none":
        canvas.line([(x, y), (x + 22, y)], series.colour, width=2.0, dashed=series.dashed)
    if series.dots:
        _mark(canvas, (x + 11, y), series.mark, series.colour)
    canvas.text(x + 28, y, series.name)
