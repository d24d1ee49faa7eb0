"""The boxes of a circuit's diagram, and the arcs of the model between them.

Without places a box is a component. With places a component has a box in the column of every place
at which it reads or writes, and what a head reads there as key and value has one of its own
(`a7.h3 kv`), from which arcs lead to the head wherever its attention may move it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from circuitfind.graph import PLACE_MARK, Edge, Graph
from circuitfind.reports.picture import DRAWN_AS, Box, Column, Line
from circuitfind.reports.seen import NOTHING_SEEN, Seen
from circuitfind.reports.strokes import MOVE, STRUCTURE

_MOST_COLUMNS = 40
"""With more places than this, those without edges are not drawn."""

_FROM_KEYS = ("group", "attention")
"""Kinds of edges of `Graph.network` that lead from keys and values to heads."""


def boxes_and_arcs(
    graph: Graph,
    edges: Iterable[Edge],
    roles: Mapping[str, str],
    seen: Seen = NOTHING_SEEN,
) -> tuple[list[Box], list[Line]]:
    """Return the boxes that edges touch, and the arcs of the model between them.

    Arcs lead from key/value heads to the heads that share them, through shared norms, and from
    what a head reads as key and value at a place to the head at others.

    Args:
        graph: The graph.
        edges: The edges.
        roles: What components do, by component name.
        seen: What is known of the prompts.
    """
    edges = list(edges)
    network = graph.network(graph.mask_of(edges))
    kinds = dict(network.nodes(data="kind"))
    drawn = {node for edge in edges for node in graph.nodes_of(edge)}
    drawn |= {node for node, kind in kinds.items() if kind == "norm"}
    keys = {tail for tail, _, kind in network.edges(data="kind") if kind in _FROM_KEYS}
    column = {place: number for number, place in enumerate(graph.places)}
    boxes = [
        _box(node, network.nodes[node], column, roles, reads_back=node in keys)
        for node in network
        if node in drawn
    ]
    stands_in = {box.name: box.column for box in boxes}
    joined = dict.fromkeys(
        (tail, head, kind)
        for tail, head, kind in network.edges(data="kind")
        if kind != "edge" and tail in drawn and head in drawn
    )
    arcs = [
        Line(tail, head, MOVE if graph.places and kind in _FROM_KEYS else STRUCTURE)
        for tail, head, kind in joined
    ]
    return boxes, [
        arc for arc in arcs if seen.allows(stands_in[arc.tail], stands_in[arc.head], graph)
    ]


def with_columns(boxes: list[Box], columns: Sequence[Column]) -> tuple[list[Box], Sequence[Column]]:
    """Leave out empty columns where there are many."""
    if len(columns) <= _MOST_COLUMNS:
        return boxes, columns
    used = sorted({box.column for box in boxes})
    number = {column: index for index, column in enumerate(used)}
    moved = [replace(box, column=number[box.column]) for box in boxes]
    return moved, [columns[column] for column in used]


def _box(
    node: str,
    attributes: Mapping[str, Any],
    column: Mapping[str, int],
    roles: Mapping[str, str],
    *,
    reads_back: bool,
) -> Box:
    kind = "kv" if reads_back else DRAWN_AS[attributes["kind"]]
    component, mark, place = node.partition(PLACE_MARK)
    row = attributes["stage"], {"kv": 0, "norm": 2}.get(kind, 1)
    return Box(
        node,
        kind,
        row,
        attributes["layer"],
        roles.get(component, ""),
        component.replace(".kv", " kv") if component.endswith(".kv") else component,
        column[place] if mark else 0,
    )
