"""Draw circuits, and the difference of two circuits, as Graphviz diagrams.

Components stand in rows, bottom to top in the order in which they run. The colour of a line is the
input that it enters (q, k, v), its style the sign of the effect, its width the effect's size. In
the drawing of a difference the colour says which circuit keeps the edge.

Where the graph tells places apart, each place is a column, from left to right. A component stands
in every column in which it reads or writes, and what it reads as key and value has a box of its own
(`a7.h3 kv`), from which arcs lead to the head wherever its attention may move it.

Neurons and latents that write one by one are small boxes in the box of their MLP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from circuitfind.circuit import as_circuit
from circuitfind.comparison.common_graph import on_common_graph
from circuitfind.errors import ReportError
from circuitfind.files import write_whole
from circuitfind.graph import Edge, Graph
from circuitfind.limits import require
from circuitfind.reports.boxes import boxes_and_arcs, framed, unit_entries, with_columns
from circuitfind.reports.dot import write_dot
from circuitfind.reports.picture import MANY_LINES, Entry, Line, Picture, Stroke
from circuitfind.reports.rendering import USUAL_SIZE, ImageFormat, Pixels, draw_png, render
from circuitfind.reports.seen import NOTHING_SEEN, Seen
from circuitfind.reports.sides import Ends, KeptBy, lines_of
from circuitfind.reports.strokes import (
    LEFT_COLOUR,
    MOVE,
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
    merged = _merged(circuit.graph, drawn) if merge_qkv else {edge: [edge] for edge in drawn}
    scale = EffectScale(tuple(effects[edge] for edge in merged), unit, len(merged) > MANY_LINES)
    lines = []
    for edge, members in reversed(merged.items()):
        port = "qkv" if edge.port and merge_qkv else edge.port
        texts = [f"{member.name}: {effect_text(effects[member], unit)}" for member in members]
        stroke = scale.stroke(effects[edge], PORT_COLOURS[port])
        line = _line(circuit.graph, edge, stroke, "; ".join(texts))
        lines.append(replace(line, port=port))
    measured = any(effect is not None for effect in scale.effects)
    which = "those with the largest effects" if measured else "the first to run"
    remarks = omission(len(drawn), len(effects), which)
    if len(merged) < len(drawn):
        remarks.append(Entry("a line of several edges: the largest effect"))
    legend = (
        port_legend((line.port for line in lines), circuit.graph),
        [*scale.legend(), *remarks],
    )
    return _diagram(circuit.graph, lines, legend, caption, Seen.of(circuit.origin), roles or {})


def _merged(graph: Graph, edges: Sequence[Edge]) -> dict[Edge, list[Edge]]:
    """Return the edges that have the same ends by the first of them."""
    found: dict[tuple[str, str], list[Edge]] = {}
    for edge in edges:
        found.setdefault(graph.nodes_of(edge), []).append(edge)
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

    Circuits of one model that tell different places or units apart are brought to a graph that both
    have (`circuitfind.comparison.common_graph`).

    Widths show effects as shares of the largest one in the same circuit, since those of two
    circuits need not have the same unit; of shared edges, in the left circuit.

    Args:
        left: A circuit, as for `draw_circuit`.
        right: Another one of the same model.
        names: What the legend calls them.
        caption: Lines to write under the drawing.
        roles: What components do, by component name; written under their names.
        max_edges: Of a larger union, edges that are not shared are drawn first.

    Raises:
        GraphError: The circuits belong to different models, or have no place in common.
        ReportError: A role is given for a component that the model does not have.
        LimitError: `max_edges` is outside its range.
    """
    require(max_edges=max_edges)
    left, right = on_common_graph(as_circuit(left), as_circuit(right))
    graph = left.graph
    shared = _ends(graph, graph.edges(left.kept & right.kept))
    left_alone, right_alone = _ends(graph, left.without(right)), _ends(graph, right.without(left))
    ours, theirs = shares_of_largest(left), shares_of_largest(right)
    classes = (
        KeptBy(f"only in {names[0]}", LEFT_COLOUR, left_alone, ours),
        KeptBy(f"only in {names[1]}", RIGHT_COLOUR, right_alone, theirs),
        KeptBy("in both", SHARED_COLOUR, shared, ours),
    )
    lines, legend = lines_of(classes, graph, max_edges)
    return _diagram(graph, lines, legend, caption, Seen.of(left.origin), roles or {})


def _ends(graph: Graph, edges: Sequence[Edge]) -> dict[str, Ends]:
    return {edge.name: Ends(*graph.nodes_of(edge), edge.port) for edge in edges}


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
            graph,
            edge,
            Stroke(PORT_COLOURS[edge.port], 2.0 if kept >= share - 1e-9 else 1.0, kept),
            f"{edge.name}: in {kept:.0%} of the runs",
        )
        for edge, kept in reversed(drawn)
    ]
    scale = [
        Entry(f"in {kept:.0%} of the runs", Stroke("#555555", 2.0 if kept >= share else 1.0, kept))
        for kept in dict.fromkeys((1.0, share, 0.2))
    ]
    remarks = omission(len(drawn), len(rows), "the most frequent")
    legend = (port_legend((edge.port for edge, _ in drawn), graph), [*scale, *remarks])
    return _diagram(graph, lines, legend if rows else (), caption, NOTHING_SEEN, {})


def _line(graph: Graph, edge: Edge, stroke: Stroke, tooltip: str) -> Line:
    return Line(*graph.nodes_of(edge), stroke, edge.name, edge.port, tooltip)


def _diagram(
    graph: Graph,
    lines: Sequence[Line],
    legend: Sequence[Sequence[Entry]],
    caption: Sequence[str],
    seen: Seen,
    roles: Mapping[str, str],
) -> Diagram:
    _refuse_unknown(roles, graph)
    edges = [graph.edge(line.name) for line in lines]
    boxes, arcs = boxes_and_arcs(graph, edges, roles, seen)
    boxes, columns = with_columns(boxes, seen.columns(graph))
    boxes, arcs = framed(graph, boxes, arcs)
    strokes = {arc.stroke for arc in arcs}
    texts = {STRUCTURE: "part of the model, never cut", MOVE: "moved by attention, never cut"}
    entries = [Entry(text, stroke) for stroke, text in texts.items() if stroke in strokes]
    if MOVE in strokes:
        entries.append(Entry("kv: what heads read as key and value"))
    entries += unit_entries(graph, boxes)
    legend = (*legend, entries) if entries else legend
    if len(columns) < len(graph.places):
        text = f"{len(columns)} of {len(graph.places)} places are drawn: those with edges"
        legend = (*legend, [Entry(text)])
    return Diagram(write_dot(Picture(boxes, [*arcs, *lines], legend, caption, columns)))


def _refuse_unknown(roles: Mapping[str, str], graph: Graph) -> None:
    known = {*graph.writer_index, *(reader.component for reader in graph.readers)}
    unknown = [name for name in roles if name not in known]
    if unknown:
        raise ReportError(
            f"no component {', '.join(map(repr, unknown))} to give a role to in this model; "
            "components are named like 'embed', 'a0.h1', 'm2', 'logits'"
        )
