"""The boxes of a circuit's diagram, and the arcs of the model between them.

Without places a box is a component. With places a component has a box in the column of every place
at which it reads or writes, and what a head reads there as key and value has one of its own
(`a7.h3 kv`), from which arcs lead to the head wherever its attention may move it.

The units of an MLP (neurons, or latents of a dictionary) are small boxes in the box of their MLP.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from circuitfind.graph import PLACE_MARK, Edge, Graph, Kind
from circuitfind.reports.picture import DRAWN_AS, Box, BoxKind, Column, Entry, Line
from circuitfind.reports.seen import NOTHING_SEEN, Seen
from circuitfind.reports.sizes import in_rows
from circuitfind.reports.strokes import MOVE, STRUCTURE

_MOST_COLUMNS = 40
"""With more places than this, those without edges are not drawn."""

_FROM_INPUTS = ("group", "attention")
"""Kinds of edges of `Graph.network` that lead from what is read to the components that share it:
from keys and values to heads, from an MLP to its units."""

_SMALL: dict[Kind, BoxKind] = {"neuron": "unit", "latent": "unit", "error": "error", "mlp": "rest"}
"""How each kind of component is drawn in the box of its MLP."""

_PARTS = {
    "neuron": "{name}: neuron {number} of {mlp}",
    "latent": "{name}: latent {number} of {mlp}",
    "rest": "rest: all other {units}s of {mlp}",
    "skip": "skip: the dictionary's skip connection",
    "error": "error: what the dictionary does not reconstruct",
}
"""What the legend says of small boxes."""


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
    shared = {tail for tail, _, kind in network.edges(data="kind") if kind in _FROM_INPUTS}
    column = {place: number for number, place in enumerate(graph.places)}
    boxes = [
        _box(node, network.nodes[node], column, roles, is_shared=node in shared)
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
        Line(tail, head, MOVE if graph.places and kind in _FROM_INPUTS else STRUCTURE)
        for tail, head, kind in joined
    ]
    return boxes, [
        arc for arc in arcs if seen.allows(stands_in[arc.tail], stands_in[arc.head], graph)
    ]


def framed(
    graph: Graph, boxes: Iterable[Box], arcs: Iterable[Line]
) -> tuple[list[Box], list[Line]]:
    """Let units stand in the boxes of their MLPs, and leave out the arcs that lead to them there.

    Args:
        graph: The graph.
        boxes: What `boxes_and_arcs` returns, as the arcs.
        arcs: The arcs.
    """
    found, inside = dict[str, Box](), defaultdict[str, list[Box]](list)
    for box in boxes:
        component, mark, place = box.name.partition(PLACE_MARK)
        block = graph.block_of.get(component)
        frame = box.name if block is None or not block.units else f"{block.name}{mark}{place}"
        if frame == box.name:
            found[frame] = box
        else:
            assert block is not None
            small = replace(box, kind=_SMALL[graph.kind_of[component]], text=_short(component))
            inside[frame].append(small)
            alone = Box(frame, "mlp", box.row, box.layer, text=block.name, column=box.column)
            found.setdefault(frame, alone)
    has_columns = bool(graph.places)
    for name, units in inside.items():
        rows = in_rows(units, has_columns=has_columns)
        found[name] = replace(found[name], row=units[0].row, units=rows)
    return list(found.values()), [arc for arc in arcs if arc.tail not in inside]


def _short(component: str) -> str:
    """Return the name of a unit within its MLP: `n17`."""
    return component.partition(".")[2]


def unit_entries(graph: Graph, boxes: Iterable[Box]) -> list[Entry]:
    """Return the rows of a legend that say what the small boxes are, with one of each kind."""
    entries = dict[str, Entry]()
    for box in (unit for frame in boxes for unit in frame.inner):
        component = box.name.partition(PLACE_MARK)[0]
        writer, block = graph.writer(component), graph.block_of[component]
        assert block.units is not None
        part = writer.kind if box.kind == "unit" else box.label
        text = _PARTS[part].format(
            name=box.label, number=writer.index, mlp=block.name, units=block.units.kind
        )
        entries.setdefault(part, Entry(text))
    return [entries[part] for part in _PARTS if part in entries]


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
    is_shared: bool,
) -> Box:
    kind = DRAWN_AS[attributes["kind"]]
    if is_shared and kind == "head":
        kind = "kv"
    component, mark, place = node.partition(PLACE_MARK)
    row = attributes["stage"], 0 if is_shared else {"kv": 0, "norm": 2}.get(kind, 1)
    return Box(
        node,
        kind,
        row,
        attributes["layer"],
        roles.get(component, ""),
        component.replace(".kv", " kv") if component.endswith(".kv") else component,
        column[place] if mark else 0,
    )
