"""The boxes of a circuit's diagram, and the arcs of the model between them.

Without places a box is a component. With places a component has a box in the column of every place
at which it reads or writes, and what a head reads there as key and value has one of its own
(`a7.h3 kv`), from which arcs lead to the head wherever its attention may move it.

The units of a block (neurons, or latents of a dictionary) are small boxes in the box of the block.
In that of attention the heads stand below them, since they read there and do not write.
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

_SMALL: dict[Kind, BoxKind] = {
    "head": "input",
    "kv group": "input",
    "neuron": "unit",
    "latent": "unit",
    "error": "error",
    "mlp": "rest",
    "attention": "rest",
    "stream": "rest",
}
"""How each kind of component is drawn in the box of its block."""

_PARTS = {
    "head": "{name}: what head {number} of {block} reads",
    "kv group": "{name}: what key/value head {number} of {block} reads",
    "neuron": "{name}: neuron {number} of {block}",
    "latent": "{name}: latent {number} of {block}",
    "rest": "rest: all other {units}s of {block}",
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
    attended = {graph.nodes_of(edge)[0] for edge in edges if edge.writer.kind == "move"}
    column = {place: number for number, place in enumerate(graph.places)}
    boxes = [
        _box(node, network.nodes[node], column, roles, is_shared=node in shared | attended)
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
    """Let units stand in the boxes of their blocks, and leave out the arcs that lead to them there.

    Arcs from elsewhere, as from what heads read at other places, lead to the whole box.

    Args:
        graph: The graph.
        boxes: What `boxes_and_arcs` returns, as the arcs.
        arcs: The arcs.
    """
    found, inside = dict[str, Box](), defaultdict[str, list[Box]](list)
    for box in boxes:
        component, mark, place = box.name.partition(PLACE_MARK)
        block = graph.block_of.get(component)
        if block is None or not block.units or (place and graph.kind_of[component] == "kv group"):
            found[box.name] = box
        elif (frame := f"{block.name}{mark}{place}") == box.name:
            found[frame] = box
        else:
            small = replace(box, kind=_SMALL[graph.kind_of[component]], text=_short(component))
            inside[frame].append(small)
            alone = Box(frame, "mlp", box.row, box.layer, text=block.name, column=box.column)
            found.setdefault(frame, alone)
    has_columns = bool(graph.places)
    for name, units in inside.items():
        parted = (
            [u for u in units if (u.kind == "input") == is_input] for is_input in (False, True)
        )
        rows = tuple(
            row for some in parted if some for row in in_rows(some, has_columns=has_columns)
        )
        found[name] = replace(found[name], row=max(unit.row for unit in units), units=rows)
    frame_of = {unit.name: name for name, units in inside.items() for unit in units}
    moved = [replace(arc, head=frame_of.get(arc.head, arc.head)) for arc in arcs]
    left = [arc for arc in moved if frame_of.get(arc.tail, arc.tail) != arc.head]
    return list(found.values()), list(dict.fromkeys(left))


def _short(component: str) -> str:
    """Return the name of a unit within its MLP: `n17`."""
    return component.partition(".")[2]


def unit_entries(graph: Graph, boxes: Iterable[Box]) -> list[Entry]:
    """Return the rows of a legend that say what the small boxes are, with one of each kind."""
    entries = dict[str, Entry]()
    for box in (unit for frame in boxes for unit in frame.inner):
        component = box.name.partition(PLACE_MARK)[0]
        block, kind = graph.block_of[component], graph.kind_of[component]
        assert block.units is not None
        part = kind if box.kind in ("unit", "input") else box.label
        text = _PARTS[part].format(
            name=box.label,
            number=box.label.lstrip("fhknv"),
            block=block.name,
            units=block.units.kind,
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
