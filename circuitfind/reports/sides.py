"""Lines of two circuits in one diagram: colour for who keeps an edge, width for its effect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from circuitfind.graph import Graph
from circuitfind.reports.picture import MANY_LINES, Entry, Line, Stroke
from circuitfind.reports.strokes import EffectScale, arrow_legend, effect_text, omission, port_arrow


class Ends(NamedTuple):
    """The boxes that a line leads from and to, and the port that it enters."""

    tail: str
    head: str
    port: str | None


@dataclass(frozen=True)
class KeptBy:
    """Edges that are kept by the same circuits.

    Attributes:
        text: By which.
        colour: `#rrggbb`.
        edges: Where each leads, by its name.
        shares: The sizes of their effects, as shares of the largest in the circuit.
    """

    text: str
    colour: str
    edges: Mapping[str, Ends]
    shares: Mapping[str, float | None]


def lines_of(
    classes: Sequence[KeptBy], graph: Graph, max_edges: int
) -> tuple[list[Line], list[list[Entry]]]:
    """Return the lines of two circuits in the order of drawing, and their legend."""
    union = [(edge, each) for each in classes for edge in each.edges]
    drawn = union[:max_edges]
    shares = tuple(each.shares.get(edge) for edge, each in drawn)
    scale = EffectScale(shares, "of the largest in its circuit", len(drawn) > MANY_LINES)
    lines = [
        _line(edge, each, scale.stroke(share, each.colour), effect_text(share, scale.unit))
        for (edge, each), share in zip(drawn, shares, strict=True)
    ]
    counts = [Entry(f"{c.text}: {len(c.edges)}", Stroke(c.colour, width=2.0)) for c in classes]
    remarks = omission(len(drawn), len(union), "shared ones last")
    legend = [
        [*counts, *remarks],
        scale.sizes_legend(),
        arrow_legend((line.port for line in lines), graph),
    ]
    return lines[::-1], legend if lines else []


def _line(edge: str, each: KeptBy, stroke: Stroke, effect: str) -> Line:
    tail, head, port = each.edges[edge]
    stroke = replace(stroke, arrow=port_arrow(port))
    return Line(tail, head, stroke, edge, port, f"{edge}: {each.text}, effect {effect}")
