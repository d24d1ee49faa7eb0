"""The diagram as the page's data: boxes with their positions, edges with their figures.

Lists instead of objects where there are thousands of entries, because names would be most of the
file: entry i of each list under `edges` is about edge i.

Boxes and their columns are those of the static diagrams (`boxes.py`, `layout.py`): a box is a
component, or where places are told apart a component at one of them. Units stand in the box of
their MLP, and are listed after it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from circuitfind.circuit import Circuit
from circuitfind.comparison.common_graph import on_common_graph, same_places
from circuitfind.graph import PLACE_MARK, Edge, Graph
from circuitfind.methods.base import Decision
from circuitfind.reports.boxes import boxes_and_arcs, framed, with_columns
from circuitfind.reports.dot import token_lines
from circuitfind.reports.layout import Layout as PlacedBoxes
from circuitfind.reports.layout import place
from circuitfind.reports.page.numbers import short
from circuitfind.reports.picture import Box, Line, Picture
from circuitfind.reports.seen import NOTHING_SEEN, Seen
from circuitfind.reports.sizes import box_height, box_width
from circuitfind.reports.strokes import STRUCTURE

Layout = dict[str, Any]
"""Each box's centre, upwards from the lower left corner, and width, in points, and its height where
it is a unit or has units; and each column's place, by its number, with its left and right end."""

REASONS = ("tested", "group", "dead", "scored")


def drawn_graph(
    graph: Graph, roles: Mapping[str, str], seen: Seen = NOTHING_SEEN
) -> dict[str, Any]:
    """Return the boxes and readers of a model, and the arcs that belong to the model."""
    outer, arcs = framed(graph, *boxes_and_arcs(graph, graph.edges(_outermost(graph)), roles, seen))
    boxes = [one for box in outer for one in (box, *box.inner)]
    outer_of = {unit.name: box.name for box in outer for unit in box.inner}
    place_of = {box.name: index for index, box in enumerate(boxes)}
    component_of = {graph.node_of(reader): reader.component for reader in graph.readers}
    nodes = [
        {
            "name": box.name,
            "component": component_of.get(box.name, box.name.partition(PLACE_MARK)[0]),
            "label": box.label,
            "place": box.column if graph.places else None,
            "kind": box.kind,
            "layer": box.layer,
            "row": list(box.row),
            "role": box.role,
            **({"inside": outer_of[box.name]} if box.name in outer_of else {}),
        }
        for box in boxes
    ]
    readers = [
        {"name": reader.name, "node": place_of[graph.node_of(reader)], "port": reader.port or ""}
        for reader in graph.readers
    ]
    moves = {
        number: [writer.name, writer.port]
        for number, writer in enumerate(graph.writers)
        if writer.kind == "move"
    }
    return {
        **({"moves": moves} if moves else {}),
        "places": [
            {"name": column.name, "tokens": token_lines(column.tokens)}
            for column in seen.columns(graph)
        ],
        "nodes": nodes,
        "readers": readers,
        "writers": [
            [place_of[graph.nodes_of(Edge(writer, graph.readers[i]))[0]] for i in graph.logits]
            for writer in graph.writers
        ],
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


def layout_of(
    graph: Graph, edges: Sequence[Edge], roles: Mapping[str, str], seen: Seen = NOTHING_SEEN
) -> Layout:
    """Return where the boxes that the edges touch are drawn, so that lines are short.

    Boxes are as wide as names and roles need.
    """
    lines = [Line(*graph.nodes_of(edge), STRUCTURE, edge.name, edge.port or None) for edge in edges]
    boxes, arcs = boxes_and_arcs(graph, edges, roles, seen)
    return _placed(boxes, arcs, lines, graph, seen)


def drawn_difference(ours: Circuit, theirs: Circuit, roles: Mapping[str, str]) -> dict[str, Any]:
    """Return what two circuits share, on the graph that both can be brought to.

    Raises:
        GraphError: There is none.
    """
    left, right = on_common_graph(ours, theirs)
    graph, seen = left.graph, Seen.of(ours.origin)
    edges = {
        "both": graph.edges(left.kept & right.kept),
        "left": left.without(right),
        "right": right.without(left),
    }
    return {
        **{side: [edge.name for edge in each] for side, each in edges.items()},
        "graph": drawn_graph(graph, roles, seen),
        "layout": layout_of(graph, graph.edges(left.kept | right.kept), roles, seen),
        # Whether both circuits have its boxes.
        "alike": same_places(ours.graph, theirs.graph),
    }


def even_layout(graph: Graph, roles: Mapping[str, str], seen: Seen = NOTHING_SEEN) -> Layout:
    """Return where all boxes of a model are drawn, heads in the order of their numbers."""
    boxes, arcs = boxes_and_arcs(graph, graph.edges(_outermost(graph)), roles)
    column = {box.name: box.column for box in boxes}
    inside = [arc for arc in arcs if column[arc.tail] == column[arc.head]]
    return _placed(boxes, inside, [], graph, seen)


def _outermost(graph: Graph) -> Bool[Tensor, "writer reader"]:
    """Return edges that touch every box and, where heads share a norm, pass every arc."""
    kept = torch.zeros_like(graph.edge_mask)
    kept[0], kept[:, list(graph.logits)] = True, True
    for block in graph.blocks:
        if block.kind == "stream":
            # Readers before it do not read beyond, nor do those behind it.
            kept[block.writers[0]], kept[:, list(block.readers)] = True, True
        if block.coupled:
            kept[block.writers[0]] = graph.edge_mask[block.writers[0]]
    return kept & graph.edge_mask


def _placed(
    boxes: Sequence[Box], arcs: Sequence[Line], lines: Sequence[Line], graph: Graph, seen: Seen
) -> Layout:
    if not boxes:
        return {"boxes": {}, "columns": []}
    moved, columns = with_columns(list(boxes), seen.columns(graph))
    outer, arcs = framed(graph, moved, arcs)
    layout = place(Picture(outer, [*arcs, *lines], columns=columns))
    number = {name: index for index, name in enumerate(graph.places)}
    return {
        "boxes": {
            name: tuple(round(each, 1) for each in (*layout.centres[name], *_size(box, layout)))
            for name, box in layout.boxes.items()
        },
        "columns": [
            (number[column.name], round(left, 1), round(right, 1))
            for column, (left, right) in zip(columns, layout.columns, strict=True)
        ],
    }


def _size(box: Box, layout: PlacedBoxes) -> tuple[float, ...]:
    """Return the width of a box, and its height where that does not follow from its text alone."""
    if box.units or layout.outer[box.name] is not box:
        return box_width(box), box_height(box)
    return (box_width(box),)
