"""Draw two circuits of different models as one, their components matched by what they do.

A box that both circuits use bears both names, `a2.h0 | a1.h1`; `-` stands where a component of one
model has no counterpart at work in the other circuit. Boxes stand at the height of the left model's
component or above, so that edges lead upwards; those of the right model alone at the same relative
depth. Colour, width and arrowhead are those of the difference of two circuits of one model.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import networkx as nx

from circuitfind.circuit import Circuit
from circuitfind.comparison.matching import Matched
from circuitfind.graph import Graph
from circuitfind.reports.diagram import MAX_EDGES, Diagram
from circuitfind.reports.dot import write_dot
from circuitfind.reports.picture import DRAWN_AS, Box, Entry, Line, Picture, Row
from circuitfind.reports.sides import Ends, KeptBy, lines_of
from circuitfind.reports.strokes import (
    LEFT_COLOUR,
    RIGHT_COLOUR,
    SHARED_COLOUR,
    shares_of_largest,
    size,
)

_PORTS = ("q", "k", "v", "qkv")
_FINENESS = 10
"""Rows between two stages of the left model, for components of the right model alone."""


@dataclass(frozen=True)
class Drawn:
    """One of two circuits that are drawn together.

    Attributes:
        name: What the legend calls it.
        circuit: The circuit.
        roles: What components do, by name.
    """

    name: str
    circuit: Circuit
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
    ours, theirs = _link_shares(left.circuit), _link_shares(right.circuit)
    edges = matched.edges
    classes = (
        KeptBy(f"only in {left.name}", LEFT_COLOUR, _ends(edges.left, boxes.of_left), ours),
        KeptBy(f"only in {right.name}", RIGHT_COLOUR, _ends(edges.right, boxes.of_right), theirs),
        KeptBy("in both", SHARED_COLOUR, _ends(edges.both, boxes.of_left), ours),
    )
    lines, legend = lines_of(classes, left.circuit.graph, max_edges)
    shown = {name for line in lines for name in (line.tail, line.head)}
    placed, n_down = in_order(list(boxes.shown(shown)), lines)
    if n_down:
        text = f"{n_down} point down: in {right.name} these run in the other order"
        legend[0].append(Entry(text))
    return Diagram(write_dot(Picture(placed, lines, legend, caption)))


def _ends(edges: Sequence[str], boxes: Mapping[str, str]) -> dict[str, Ends]:
    """Return where matched edges lead: `a0.h1->a1.h0.q` into a port, `a0.h1->m1` into none."""
    found = {}
    for edge in edges:
        tail, _, reader = edge.partition("->")
        head, dot, port = reader.rpartition(".")
        known = dot and port in _PORTS
        found[edge] = Ends(boxes[tail], boxes[head if known else reader], port if known else None)
    return found


def _link_shares(circuit: Circuit) -> dict[str, float | None]:
    """Return the shares of the largest effect by the names of matched edges.

    These name heads instead of the key/value heads that they share, and `qkv` where one of two
    models merges the ports: the largest of its edges then counts.
    """
    found: dict[str, float | None] = {}
    shares = shares_of_largest(circuit)
    for edge in sorted(circuit.edges, key=lambda edge: size(shares[edge.name])):
        port = edge.reader.port
        fed = [writer.name for writer in circuit.graph.fed_by(edge.reader)]
        for name in fed or [edge.reader.name]:
            for ending in [f".{port}", ".qkv"] if port else [""]:
                found[f"{edge.writer.name}->{name}{ending}"] = shares[edge.name]
    return found


def in_order(boxes: Sequence[Box], lines: Sequence[Line]) -> tuple[list[Box], int]:
    """Raise boxes until lines lead upwards, and count the lines that cannot.

    Two matched models may run what does the same in opposite orders; of such lines those that rise
    by where boxes stood at first do so in the end.
    """
    rows = {box.name: box.row for box in boxes}
    arcs = nx.DiGraph()
    arcs.add_nodes_from(rows)
    joined = sorted(
        {(line.tail, line.head) for line in lines},
        key=lambda ends: (rows[ends[0]] >= rows[ends[1]], ends),
    )
    for tail, head in joined:
        if not nx.has_path(arcs, head, tail):
            arcs.add_edge(tail, head)
    for name in nx.lexicographical_topological_sort(arcs):
        below = [(row + 1, place) for row, place in (rows[tail] for tail in arcs.pred[name])]
        rows[name] = max([rows[name], *below])
    n_down = sum(not arcs.has_edge(line.tail, line.head) for line in lines)
    return [_raised(box, rows[box.name]) for box in boxes], n_down


def _raised(box: Box, row: Row) -> Box:
    """Move a box; where it stands then is no longer the height of its layer."""
    return box if row == box.row else replace(box, row=row, layer=None)


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
        self.of_left = {
            name: _joint(name, to_right.get(name)) for name in _ends_of(left.circuit.graph)
        }
        self.of_right = {
            name: self.of_left[to_left[name]] if name in to_left else _joint(None, name)
            for name in _ends_of(right.circuit.graph)
        }
        self.of_left["logits"] = self.of_right["logits"] = "logits"

    def shown(self, names: Set[str]) -> Iterator[Box]:
        """Return the boxes of these names, those of the left model first."""
        left, right = self._sides
        scale = left.circuit.graph.readers[-1].stage / right.circuit.graph.readers[-1].stage
        places: dict[str, Box] = {}
        for side, known, factor in ((left, self.of_left, 1.0), (right, self.of_right, scale)):
            for component, name in known.items():
                if name in names and name not in places:
                    graph = side.circuit.graph
                    layer, stage = _place(graph, component)
                    kind = DRAWN_AS[graph.kind_of[component]]
                    row = round(_FINENESS * factor * stage), 0
                    places[name] = Box(name, kind, row, layer if side is left else None)
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
