"""The diagram as the page's data: components with their places, edges with their figures.

Lists instead of objects where there are thousands of entries, because names would be most of the
file: entry i of each list under `edges` is about edge i.

Boxes are components, also where edges act at single places: the lines between two boxes are then
edges at several places, each with the place in its name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.graph import Edge, Graph
from circuitfind.methods.base import Decision
from circuitfind.reports.boxes import boxes_and_arcs
from circuitfind.reports.layout import box_width, place
from circuitfind.reports.page.numbers import short
from circuitfind.reports.picture import Box, Line, Picture
from circuitfind.reports.strokes import STRUCTURE

Places = dict[str, tuple[float, float, float]]
"""Each component's centre, upwards from the lower left corner, and width, in points."""

REASONS = ("tested", "group", "dead", "scored")


def drawn_graph(graph: Graph, roles: Mapping[str, str]) -> dict[str, Any]:
    """Return the components and readers of a model, and the arcs that belong to the model."""
    boxes, arcs = _whole(graph, roles)
    place_of = {box.name: index for index, box in enumerate(boxes)}
    nodes = [
        {
            "name": box.name,
            "kind": box.kind,
            "layer": box.layer,
            "row": list(box.row),
            "role": box.role,
        }
        for box in boxes
    ]
    readers = [
        {"name": reader.name, "node": place_of[reader.component], "port": reader.port or ""}
        for reader in graph.readers
    ]
    return {
        "nodes": nodes,
        "readers": readers,
        "writers": [place_of[writer.component] for writer in graph.writers],
        "arcs": [[place_of[arc.tail], place_of[arc.head]] for arc in arcs],
    }


def drawn_edges(circuit: Circuit, decisions: Sequence[Decision]) -> dict[str, Any]:
    """Return all decided edges in the order of the search, with what was found out about each.

    `kept` is the circuit, `decided` what the search said before dead ends were removed.
    """
    graph = circuit.graph
    ends = [graph.index(decision.edge) for decision in decisions]
    return {
        "writer": [writer for writer, _ in ends],
        "reader": [reader for _, reader in ends],
        "kept": [int(circuit.kept[end]) for end in ends],
        "decided": [int(decision.kept) for decision in decisions],
        "reason": [REASONS.index(decision.reason) for decision in decisions],
        "effect": [short(decision.effect) for decision in decisions],
        "score": [short(decision.score) for decision in decisions],
        "before": [short(decision.before) for decision in decisions],
        "after": [short(decision.after) for decision in decisions],
    }


def layout_of(graph: Graph, edges: Sequence[Edge], roles: Mapping[str, str]) -> Places:
    """Return where the components that the edges touch are drawn, so that lines are short.

    Boxes are as wide as names and roles need.
    """
    lines = [
        Line(edge.writer.component, edge.reader.component, STRUCTURE, edge.name, edge.reader.port)
        for edge in edges
    ]
    merged = graph.merged
    joined = {merged.edge(Edge(edge.writer, edge.reader.at(None))) for edge in edges}
    return _places(*boxes_and_arcs(merged, joined, roles), lines)


def even_layout(graph: Graph, roles: Mapping[str, str]) -> Places:
    """Return where all components of a model are drawn, heads in the order of their numbers."""
    return _places(*_whole(graph, roles), [])


def _whole(graph: Graph, roles: Mapping[str, str]) -> tuple[list[Box], list[Line]]:
    return boxes_and_arcs(graph.merged, graph.merged.edges(), roles)


def _places(boxes: Sequence[Box], arcs: Sequence[Line], lines: Sequence[Line]) -> Places:
    if not boxes:
        return {}
    layout = place(Picture(boxes, [*arcs, *lines]))
    return {
        box.name: (round(x, 1), round(y, 1), round(box_width(box), 1))
        for box in boxes
        for x, y in [layout.centres[box.name]]
    }
