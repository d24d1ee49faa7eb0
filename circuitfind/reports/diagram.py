"""Draw circuits, and the difference of two circuits, as Graphviz diagrams.

Components stand in rows, bottom to top in the order in which they run. The colour of a line is the
input that it enters (q, k, v), its style the sign of the effect, its width the effect's size. In
the drawing of a difference the colour says which circuit keeps the edge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from circuitfind.circuit import as_circuit, require_same_graph
from circuitfind.errors import ReportError
from circuitfind.files import write_whole
from circuitfind.graph import Edge, Graph
from circuitfind.limits import require
from circuitfind.reports.dot import write_dot
from circuitfind.reports.picture import DRAWN_AS, MANY_LINES, Box, Entry, Line, Picture, Stroke
from circuitfind.reports.rendering import USUAL_SIZE, ImageFormat, Pixels, draw_png, render
from circuitfind.reports.sides import KeptBy, lines_of
from circuitfind.reports.strokes import (
    LEFT_COLOUR,
    PORT_COLOURS,
    RIGHT_COLOUR,
    SHARED_COLOUR,
    STRUCTURE,
    EffectScale,
    effect_text,
    omission,
    port_legend,
    shares_of_largest,
    size,
)

MAX_EDGES = 1500
_IMAGE_FORMATS: dict[str, ImageFormat] = {".svg": "svg", ".pdf": "pdf"}


@dataclass(frozen=True)
class Diagram:
    """A drawing as Graphviz DOT text.

    Attributes:
        dot: The same bytes for the same circuit, caption and roles, on every machine.
    """

    dot: str

    def svg(self) -> str:
        """Draw as SVG."""
        return render(self.dot, "svg").decode()

    def png(self, size: Pixels = USUAL_SIZE) -> bytes:
        """Draw as PNG.

        Raises:
            ReportError: The picture would be too large.
        """
        return draw_png(self.dot, size)

    def save(self, path: Path | str, size: Pixels = USUAL_SIZE) -> Path:
        """Write a file of the kind that its suffix names: .dot, .gv, .svg, .png or .pdf.

        Args:
            path: The file.
            size: How large a PNG is.

        Raises:
            ReportError: The suffix is none of these, PDF is asked for without Graphviz's `dot`,
                the size is not possible or not for this kind, or the file cannot be written.
        """
        path = Path(path)
        content = self._encoded(path, size)
        try:
            write_whole(path, content)
        except OSError as error:
            raise ReportError(f"cannot write the diagram {path}: {error.strerror}") from None
        return path

    def _encoded(self, path: Path, size: Pixels) -> bytes:
        suffix = path.suffix.lower()
        if suffix == ".png":
            return self.png(size)
        if size != USUAL_SIZE:
            raise ReportError(
                f"{path.name!r} has no size in pixels: scale and width are for .png files alone"
            )
        if suffix in (".dot", ".gv"):
            return self.dot.encode()
        if suffix in _IMAGE_FORMATS:
            return render(self.dot, _IMAGE_FORMATS[suffix])
        raise ReportError(
            f"cannot tell from {path.name!r} what to draw; "
            "name a file that ends in .dot, .gv, .svg, .png or .pdf"
        )

    def _repr_svg_(self) -> str:
        return self.svg()


def draw_circuit(
    circuit: object,
    *,
    caption: Sequence[str] = (),
    roles: Mapping[str, str] | None = None,
    unit: str = "",
    max_edges: int = MAX_EDGES,
    merge_qkv: bool = False,
) -> Diagram:
    """Draw a circuit.

    Args:
        circuit: What to draw: a circuit, what a search found, or a run directory or circuit file.
        caption: Lines to write under the drawing.
        roles: What components do, by component name; written under their names.
        unit: Unit of the effects, for the legend.
        max_edges: Of a larger circuit only the edges with the largest effects are drawn, or the
            first to run if no effect was measured, and the legend says so.
        merge_qkv: Whether edges of one writer into one head are one line, drawn as the one with
            the largest effect.

    Raises:
        ReportError: A role is given for a component that the model does not have.
        LimitError: `max_edges` is outside its range.
    """
    require(max_edges=max_edges)
    circuit = as_circuit(circuit)
    effects = {edge: circuit.effect(edge) for edge in circuit.edges}
    drawn = sorted(effects, key=lambda edge: size(effects[edge]), reverse=True)[:max_edges]
    merged = _merged(drawn) if merge_qkv else {edge: [edge] for edge in drawn}
    scale = EffectScale(tuple(effects[edge] for edge in merged), unit, len(merged) > MANY_LINES)
    lines = []
    for edge, members in reversed(merged.items()):
        port = "qkv" if edge.reader.port and merge_qkv else edge.reader.port
        texts = [f"{member.name}: {effect_text(effects[member], unit)}" for member in members]
        stroke = scale.stroke(effects[edge], PORT_COLOURS[port])
        lines.append(replace(_line(edge, stroke, "; ".join(texts)), port=port))
    measured = any(effect is not None for effect in scale.effects)
    which = "those with the largest effects" if measured else "the first to run"
    remarks = omission(len(drawn), len(effects), which)
    if len(merged) < len(drawn):
        remarks.append(Entry("a line of several edges: the largest effect"))
    legend = (port_legend(line.port for line in lines), [*scale.legend(), *remarks])
    return _diagram(circuit.graph, lines, legend, caption, roles or {})


def _merged(edges: Sequence[Edge]) -> dict[Edge, list[Edge]]:
    """Return the edges that have the same ends by the first of them."""
    found: dict[tuple[str, str], list[Edge]] = {}
    for edge in edges:
        found.setdefault((edge.writer.component, edge.reader.component), []).append(edge)
    return {members[0]: members for members in found.values()}


def draw_difference(
    left: object,
    right: object,
    *,
    names: tuple[str, str] = ("left", "right"),
    caption: Sequence[str] = (),
    roles: Mapping[str, str] | None = None,
    max_edges: int = MAX_EDGES,
) -> Diagram:
    """Draw which edges two circuits share and which only one of them keeps.

    Widths show effects as shares of the largest one in the same circuit, since those of two
    circuits need not have the same unit; of shared edges, in the left circuit.

    Args:
        left: A circuit, as for `draw_circuit`.
        right: Another one of the same graph.
        names: What the legend calls them.
        caption: Lines to write under the drawing.
        roles: What components do, by component name; written under their names.
        max_edges: Of a larger union, edges that are not shared are drawn first.

    Raises:
        GraphError: The circuits belong to different graphs.
        ReportError: A role is given for a component that the model does not have.
        LimitError: `max_edges` is outside its range.
    """
    require(max_edges=max_edges)
    left, right = as_circuit(left), as_circuit(right)
    require_same_graph(left.graph, right.graph)
    graph = left.graph
    shared = graph.edges(left.kept & right.kept)
    ours, theirs = shares_of_largest(left), shares_of_largest(right)
    classes = (
        KeptBy(f"only in {names[0]}", LEFT_COLOUR, _names(left.without(right)), ours),
        KeptBy(f"only in {names[1]}", RIGHT_COLOUR, _names(right.without(left)), theirs),
        KeptBy("in both", SHARED_COLOUR, _names(shared), ours),
    )
    lines, legend = lines_of(classes, max_edges)
    return _diagram(graph, lines, legend, caption, roles or {})


def _names(edges: Sequence[Edge]) -> list[str]:
    return [edge.name for edge in edges]


def draw_frequencies(
    graph: Graph,
    frequencies: Float[Tensor, "writer reader"],
    *,
    share: float,
    caption: Sequence[str] = (),
    max_edges: int = MAX_EDGES,
) -> Diagram:
    """Draw every edge that any of some circuits keeps, the more opaque the more of them do.

    Args:
        graph: The circuits' graph.
        frequencies: Share of the circuits that keep each edge.
        share: From which frequency on an edge is drawn thick.
        caption: Lines to write under the drawing.
        max_edges: If there are more, the most frequent ones are drawn.
    """
    require(max_edges=max_edges)
    rows = [
        (edge, float(frequencies[graph.index(edge)])) for edge in graph.edges(frequencies.cpu() > 0)
    ]
    drawn = sorted(rows, key=lambda row: -row[1])[:max_edges]
    lines = [
        _line(
            edge,
            Stroke(PORT_COLOURS[edge.reader.port], 2.0 if kept >= share - 1e-9 else 1.0, kept),
            f"{edge.name}: in {kept:.0%} of the runs",
        )
        for edge, kept in reversed(drawn)
    ]
    scale = [
        Entry(f"in {kept:.0%} of the runs", Stroke("#555555", 2.0 if kept >= share else 1.0, kept))
        for kept in dict.fromkeys((1.0, share, 0.2))
    ]
    remarks = omission(len(drawn), len(rows), "the most frequent")
    legend = (port_legend(edge.reader.port for edge, _ in drawn), [*scale, *remarks])
    return _diagram(graph, lines, legend if rows else (), caption, {})


def _line(edge: Edge, stroke: Stroke, tooltip: str) -> Line:
    return Line(
        edge.writer.component, edge.reader.component, stroke, edge.name, edge.reader.port, tooltip
    )


def _diagram(
    graph: Graph,
    lines: Sequence[Line],
    legend: Sequence[Sequence[Entry]],
    caption: Sequence[str],
    roles: Mapping[str, str],
) -> Diagram:
    _refuse_unknown(roles, graph)
    boxes, arcs = boxes_and_arcs(graph, [graph.edge(line.name) for line in lines])
    if arcs:
        legend = (*legend, [Entry("part of the model, never cut", STRUCTURE)])
    boxes = [replace(box, role=roles.get(box.name, "")) for box in boxes]
    return Diagram(write_dot(Picture(boxes, [*arcs, *lines], legend, caption)))


def _refuse_unknown(roles: Mapping[str, str], graph: Graph) -> None:
    known = {*graph.writer_index, *(reader.component for reader in graph.readers)}
    unknown = [name for name in roles if name not in known]
    if unknown:
        raise ReportError(
            f"no component {', '.join(map(repr, unknown))} to give a role to in this model; "
            "components are named like 'embed', 'a0.h1', 'm2', 'logits'"
        )


def boxes_and_arcs(graph: Graph, edges: Sequence[Edge]) -> tuple[list[Box], list[Line]]:
    """Return the components that edges touch, and the arcs of the model between them.

    Arcs lead from key/value heads to the heads that share them, and through shared norms.
    """
    network = graph.network(graph.mask_of(edge.name for edge in edges))
    touched = {edge.writer.component for edge in edges} | {edge.reader.component for edge in edges}
    shown = touched | {name for name, kind in network.nodes(data="kind") if kind == "norm"}
    arcs = dict.fromkeys(
        (tail, head)
        for tail, head, kind in network.edges(data="kind")
        if kind != "edge" and tail in shown and head in shown
    )
    boxes = [_box(name, network.nodes[name]) for name in network if name in shown]
    return boxes, [Line(tail, head, STRUCTURE) for tail, head in arcs]


def _box(name: str, attributes: Mapping[str, Any]) -> Box:
    kind = DRAWN_AS[attributes["kind"]]
    place = {"kv": 0, "norm": 2}.get(kind, 1)
    return Box(name, kind, (attributes["stage"], place), attributes["layer"])
