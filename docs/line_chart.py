"""Draw faithfulness against size, a line per method, as SVG."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

COLOURS = {
    "acdc": "#000000",
    "exact": "#7f7f7f",
    "eap": "#ff7f0e",
    "eap-ig": "#d62728",
    "hisp": "#8c564b",
    "information-flow": "#bcbd22",
    "subnetwork-probing": "#9467bd",
    "edge-pruning": "#1f77b4",
    "hybrid": "#2ca02c",
    "random": "#c7c7c7",
}

Point = tuple[float, float]
"""A share of edges and a faithfulness; or a false and a true positive rate."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 60, 190, 40, 50
X_TICKS = (0.001, 0.01, 0.1, 1.0)
Y_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def drawn(curves: Mapping[str, Sequence[Point]], title: str) -> str:
    """Return a figure of all curves: a line and a dot per circuit, in SVG."""
    x, y = scales(min(size for points in curves.values() for size, _ in points if size > 0))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">Faithfulness against size: {title}</text>',
        *axes(x, y),
    ]
    for row, (name, points) in enumerate(curves.items()):
        parts += curve(name, [(x(s), y(f)) for s, f in points if s > 0], row)
    return "\n".join([*parts, "</svg>\n"])


def scales(smallest: float) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Return the places of a share of edges, on a logarithmic axis, and of a faithfulness."""
    low, width, height = math.log10(smallest), WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(size: float) -> float:
        return LEFT + width * (math.log10(size) - low) / -low

    def y(share: float) -> float:
        return TOP + height * (1 - (min(max(share, -0.1), 1.1) + 0.1) / 1.2)

    return x, y


def axes(x: Callable[[float], float], y: Callable[[float], float]) -> Iterable[str]:
    """Yield the grid, its numbers and the names of the axes."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in Y_TICKS:
        yield f'<path d="M{LEFT} {y(tick):.1f}H{right}" stroke="#e5e5e5"/>'
        yield f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>'
    for tick in (tick for tick in X_TICKS if x(tick) >= LEFT):
        yield f'<path d="M{x(tick):.1f} {TOP}V{bottom}" stroke="#e5e5e5"/>'
        label = f"{100 * tick:g} %"
        yield f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>'
    middle = (LEFT + right) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">edges left</text>'
    yield (
        f'<text transform="translate(16 {(TOP + bottom) / 2}) rotate(-90)" '
        'text-anchor="middle">faithfulness (KL)</text>'
    )


def curve(name: str, points: Sequence[Point], row: int) -> Iterable[str]:
    """Yield one method's line, dots and entry in the legend."""
    colour, place = COLOURS[name], TOP + 14 + 24 * row
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
    for a, b in points:
        yield f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>'
    start = WIDTH - RIGHT + 20
    yield f'<path d="M{start} {place - 4}h20" stroke="{colour}" stroke-width="3"/>'
    yield f'<text x="{start + 28}" y="{place}">{name}</text>'
