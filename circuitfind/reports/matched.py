"""Draw two circuits of different models as one, their components matched by what they do.

A box that both circuits use bears both names, `a2.h0 | a1.h1`; `-` stands where a component of one
model has no counterpart at work in the other circuit. Boxes stand at the height of the left model's
component; those of the right model alone at the same relative depth. Colour says who keeps an edge,
the arrowhead what it enters, as in the difference of two circuits of one model.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from circuitfind.comparison.matching import Matched
from circuitfind.graph import Graph
from circuitfind.reports.diagram import MAX_EDGES, Diagram, kind_of
from circuitfind.reports.dot import write_dot
from circuitfind.reports.picture import MANY_LINES, Box, Entry, Line, Picture, Stroke
from circuitfind.reports.strokes import (
    LEFT_COLOUR,
    RIGHT_COLOUR,
    SHARED_COLOUR,
    arrow_legend,
    port_arrow,
)

_PORTS = ("q", "k", "v", "qkv")
_FINENESS = 10
"""Rows between two stages of the left model, for components of the right model alone."""


@dataclass(frozen=True)
class Drawn:
    """One of two circuits that are drawn together.

    Attributes:
        name: What the legend calls it.
        graph: Its graph.
        roles: What components do, by name.
    """

    name: str
    graph: Graph
    roles: Mapping[str, str] = field(default_factory=dict)


def draw_matched(
    matched: Matched,
    left: Drawn,
    right: Drawn,
    *,
    caption: Sequence[str] = (),
    max_edges: int = MAX_EDGES,
) -> Diagram:
    """Draw what two matched circuits share and what they do not.

    Args:
        matched: The match and the edges.
        left: The left circuit.
        right: The right circuit.
        caption: Lines to write under the drawing.
        max_edges: Of a larger union, edges that are not shared are drawn first.
    """
    boxes = _Boxes(matched, left, right)
    classes = (
        _Class(f"only in {left.name}", LEFT_COLOUR, matched.edges.left, boxes.of_left),
        _Class(f"only in {right.name}", RIGHT_COLOUR, matched.edges.right, boxes.of_right),
        _Class("in both", SHARED_COLOUR, matched.edges.both, boxes.of_left),
    )
    union = [(edge, each) for each in classes for edge in each.edges]
    drawn = union[:max_edges]
    width, opacity = (0.7, 0.5) if len(drawn) > MANY_LINES else (1.2, 1.0)
    lines = [_line(edge, each, width, opacity) for edge, each in reversed(drawn)]
    counts = [Entry(f"{c.text}: {len(c.edges)}", Stroke(c.colour, width=2.0)) for c in classes]
    if len(drawn) < len(union):
        counts.append(Entry(f"{len(drawn):,} of {len(union):,} edges are drawn: shared ones last"))
    legend = (counts, arrow_legend(_ends(edge)[2] for edge, _ in drawn))
    shown = {name for line in lines for name in (line.tail, line.head)}
    return Diagram(write_dot(Picture(list(boxes.shown(shown)), lines, legend, caption)))


@dataclass(frozen=True)
class _Class:
    """Edges that are kept by the same circuits."""

    text: str
    colour: str
    edges: tuple[str, ...]
    boxes: Mapping[str, str]


def _line(edge: str, each: _Class, width: float, opacity: float) -> Line:
    tail, head, port = _ends(edge)
    stroke = Stroke(each.colour, width, opacity, arrow=port_arrow(port))
    tooltip = f"{edge}: {each.text}"
    return Line(each.boxes[tail], each.boxes[head], stroke, edge, port, tooltip)


def _ends(edge: str) -> tuple[str, str, str | None]:
    """Split an edge's name into its components and its port."""
    tail, _, reader = edge.partition("->")
    head, dot, port = reader.rpartition(".")
    return (tail, head, port) if dot and port in _PORTS else (tail, reader, None)


class _Boxes:
    """The boxes of two circuits, one for each two components that match.

    Attributes:
        of_left: The box of each component of the left model.
        of_right: The box of each component of the right model.
    """

    def __init__(self, matched: Matched, left: Drawn, right: Drawn) -> None:
        self._sides = left, right
        to_right = {row.left: row.right for row in matched.counterparts}
        to_left = {right_name: name for name, right_name in to_right.items()}
        self.of_left = {name: _joint(name, to_right.get(name)) for name in _ends_of(left.graph)}
        self.of_right = {
            name: self.of_left[to_left[name]] if name in to_left else _joint(None, name)
            for name in _ends_of(right.graph)
        }
        self.of_left["logits"] = self.of_right["logits"] = "logits"

    def shown(self, names: Set[str]) -> Iterator[Box]:
        """Return the boxes of these names, those of the left model first."""
        left, right = self._sides
        scale = left.graph.readers[-1].stage / right.graph.readers[-1].stage
        places: dict[str, Box] = {}
        for side, known, factor in ((left, self.of_left, 1.0), (right, self.of_right, scale)):
            for component, name in known.items():
                if name in names and name not in places:
                    layer, stage = _place(side.graph, component)
                    row = round(_FINENESS * factor * stage), 0
                    places[name] = Box(
                        name, kind_of(component), row, layer if side is left else None
                    )
        yield from (replace(box, role=self._role(name)) for name, box in places.items())

    def _role(self, name: str) -> str:
        """Return what the two components of a box do, once if they do the same."""
        roles = []
        for side, known in zip(self._sides, (self.of_left, self.of_right), strict=True):
            roles += [side.roles.get(c, "") for c, box in known.items() if box == name]
        return "" if not any(roles) else " | ".join(dict.fromkeys(role or "-" for role in roles))


def _joint(left: str | None, right: str | None) -> str:
    return f"{left}" if left == right == "embed" else f"{left or '-'} | {right or '-'}"


def _ends_of(graph: Graph) -> list[str]:
    return [*(writer.name for writer in graph.writers), "logits"]


def _place(graph: Graph, component: str) -> tuple[int | None, int]:
    if component == "logits":
        return None, graph.readers[-1].stage
    writer = graph.writer(component)
    return writer.layer, writer.stage
