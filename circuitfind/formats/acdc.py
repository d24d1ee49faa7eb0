"""The names that the original ACDC code gives to edges.

ACDC (https://github.com/ArthurConmy/Automatic-Circuit-Discovery) names the ends of an edge by
TransformerLens' hooks and an index, where `None` stands for a whole axis: the head 3 of layer 1 is
`blocks.1.attn.hook_result` with the index (None, None, 3). What its `save_subgraph` returns, and
`load_subgraph` takes, is a dictionary from (receiver, index, sender, index) to whether the edge is
present, with every edge of its graph. Here it is a JSON list, which one line turns into that:

    {(r, tuple(i), s, tuple(j)): present for r, i, s, j, present, _ in file["subgraph"]}

Besides the edges that are ours, its graph holds edges inside components: from a head's input to its
q, k or v (tested by ACDC, and here present if anything leads there), from these to the head, and
through each MLP (always present).
"""

import json
from collections.abc import Iterator
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.errors import CircuitFileError
from circuitfind.formats.base import (
    HEADER,
    Format,
    as_list,
    as_object,
    every_edge,
    gathered,
    kept_names,
    refuse_finer,
)
from circuitfind.graph import Edge, Graph, Reader, Writer
from circuitfind.records import parse_json
from circuitfind.stored import EdgeRow, graph_from

End = tuple[str, tuple[int | None, ...]]
"""A hook and an index."""

_WHOLE: tuple[int | None, ...] = (None,)


def writer_end(writer: Writer, graph: Graph) -> End:
    """Return what ACDC calls a writer."""
    if writer.kind == "embedding":
        names = {"embed": "hook_embed", "pos_embed": "hook_pos_embed"}
        return (names[writer.name] if graph.split_embedding else "blocks.0.hook_resid_pre"), _WHOLE
    if writer.kind == "mlp":
        return f"blocks.{writer.layer}.hook_mlp_out", _WHOLE
    return f"blocks.{writer.layer}.attn.hook_result", (None, None, writer.index)


def reader_end(reader: Reader, graph: Graph) -> End:
    """Return what ACDC calls a reader."""
    if reader.kind == "logits":
        return f"blocks.{max(graph.attention)}.hook_resid_post", _WHOLE
    if reader.kind == "mlp":
        return f"blocks.{reader.layer}.hook_mlp_in", _WHOLE
    return f"blocks.{reader.layer}.hook_{reader.port}_input", (None, None, reader.index)


def edge_ends(edge: Edge, graph: Graph) -> tuple[End, End]:
    """Return what ACDC calls an edge: the receiving end, then the sending one."""
    return reader_end(edge.reader, graph), writer_end(edge.writer, graph)


def write(circuit: Circuit) -> str:
    """Return a circuit as the dictionary of ACDC's `save_subgraph`, with the effects.

    Raises:
        CircuitFileError: ACDC's graph cannot express this model's.
    """
    graph = circuit.graph
    _require_expressible(graph)
    kept = kept_names(circuit)
    rows = [
        [*_flat(edge_ends(edge, graph)), edge.name in kept, circuit.effect(edge)]
        for edge in every_edge(graph)
    ]
    inner = [[*_flat(ends), present, None] for ends, present in _inner_edges(circuit)]
    content = {HEADER: circuit.header(), "subgraph": [*rows, *inner]}
    return json.dumps(content, allow_nan=False) + "\n"


def _flat(ends: tuple[End, End]) -> list[Any]:
    (receiver, receiver_index), (sender, sender_index) = ends
    return [receiver, list(receiver_index), sender, list(sender_index)]


def _inner_edges(circuit: Circuit) -> Iterator[tuple[tuple[End, End], bool]]:
    """Yield the edges inside components, and whether each is present."""
    graph, fed = circuit.graph, {edge.reader.name for edge in circuit.edges}
    for reader in graph.readers:
        here = reader_end(reader, graph)
        if reader.kind == "head":
            whole = (None, None, reader.index)
            port: End = (f"blocks.{reader.layer}.attn.hook_{reader.port}", whole)
            yield (port, here), reader.name in fed
            yield ((f"blocks.{reader.layer}.attn.hook_result", whole), port), True
        elif reader.kind == "mlp":
            yield ((f"blocks.{reader.layer}.hook_mlp_out", _WHOLE), here), True


def _require_expressible(graph: Graph) -> None:
    refuse_finer(graph, "ACDC")
    reasons = {
        "q, k and v in one": not graph.split_qkv,
        "key/value heads that query heads share": any(
            reader.kind == "kv group" for reader in graph.readers
        ),
        "blocks whose MLP runs beside the attention": any(map(graph.is_parallel, graph.mlps)),
    }
    for reason, holds in reasons.items():
        if holds:
            raise CircuitFileError(
                f"ACDC's graphs do not know {reason}, as this model has; choose another format"
            )


def read(text: str, graph: Graph | None = None) -> Circuit:
    """Return the circuit of a file with ACDC's edge names.

    Rows may leave out the effect; edges that the file does not name are cut, and edges inside
    components say nothing of ours.

    Raises:
        CircuitFileError: It is not such a file, or names an edge that the model does not have.
    """
    content = as_object(parse_json(text), "it")
    header = content.get(HEADER)
    known = gathered(None, (), graph or (graph_from(header) if header else None)).graph
    _require_expressible(known)
    ours = {edge_ends(edge, known): edge.name for edge in every_edge(known)}
    inner = {ends for ends, _ in _inner_edges(gathered(None, (), known))}
    rows = [_row(row, ours, inner) for row in as_list(content["subgraph"], "its subgraph")]
    return gathered(header, [row for row in rows if row is not None], known)


def _row(
    row: object, ours: dict[tuple[End, End], str], inner: set[tuple[End, End]]
) -> EdgeRow | None:
    receiver, receiver_index, sender, sender_index, present, *rest = as_list(row, "one of its rows")
    ends = ((receiver, tuple(receiver_index)), (sender, tuple(sender_index)))
    if ends in ours:
        return EdgeRow(ours[ends], present, rest[0] if rest else None)
    if ends not in inner:
        raise CircuitFileError(f"this model has no edge from {ends[1]} to {ends[0]}")
    return None


ACDC = Format("acdc", ".json", "the edge names of the original ACDC code", write, read)
