"""The JSON of EAP-IG and of the Mechanistic Interpretability Benchmark (MIB).

An object of three parts, as `Graph.to_json` of https://github.com/hannamw/EAP-IG writes it:

    cfg      n_layers, n_heads, d_model, parallel_attn_mlp
    nodes    name -> {"in_graph": true}: `input`, `a0.h1`, `m0`, `logits`
    edges    name -> {"score": 0.5, "in_graph": true}: `input->m0`, `a0.h1->a1.h0<q>`, `m1->logits`

Edges alone decide the circuit: EAP-IG's own `prune` computes nodes anew from them, a node being in
the graph iff an edge leads in and an edge leads out. Files that keep nodes and no edge at all are
read as all edges between those nodes.

Its graphs know one embedding, have q, k and v apart for every query head, and know no shared
key/value heads. So a reader that several heads share, or that is q, k and v in one, stands for
several of its edges: they are kept together, and their scores add up to ours. Read back from a file
in which they are not kept together, the shared edge is kept if any of them is.

Its layers are all alike. Where a model's are not, `cfg` states the largest number of heads, and
attention and MLPs one after the other: a graph that holds all of ours and more.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.errors import CircuitFileError, quoted
from circuitfind.formats.base import (
    HEADER,
    Format,
    as_object,
    every_edge,
    gathered,
    kept_names,
    refuse_finer,
)
from circuitfind.graph import Edge, Graph, Reader
from circuitfind.records import parse_json
from circuitfind.stored import EdgeRow, graph_from

_UNSCORED = "unscored"


def edge_names(edge: Edge, graph: Graph) -> tuple[str, ...]:
    """Return what EAP-IG calls an edge: several names where several of its heads share a reader."""
    writer = "input" if edge.writer.name == "embed" else edge.writer.name
    return tuple(f"{writer}->{reader}" for reader in _reader_names(edge.reader, graph))


def _reader_names(reader: Reader, graph: Graph) -> Iterator[str]:
    if reader.port is None:
        yield reader.name
        return
    for head in graph.fed_by(reader):
        yield from (f"{head.name}<{letter}>" for letter in reader.port)


def write(circuit: Circuit) -> str:
    """Return a circuit as EAP-IG's JSON, every edge of the graph with its score.

    Edges without an effect have the score 0, as in EAP-IG, and are listed in our header.

    Raises:
        CircuitFileError: The graph has two embeddings, places, neurons or latents, or too many
            edges to list.
    """
    return json.dumps(content_of(circuit), allow_nan=False) + "\n"


def content_of(circuit: Circuit) -> dict[str, Any]:
    """Return what `write` turns into text."""
    graph = circuit.graph
    require_expressible(graph)
    kept, edges, unscored = kept_names(circuit), dict[str, Any](), list[str]()
    for edge in every_edge(graph):
        effect = circuit.effect(edge)
        if effect is None:
            unscored.append(edge.name)
        names = edge_names(edge, graph)
        for name, score in zip(names, _shares(effect or 0.0, len(names)), strict=True):
            edges[name] = {"score": score, "in_graph": edge.name in kept}
    return {
        "cfg": _sizes(graph),
        "nodes": _nodes(circuit, edges),
        "edges": edges,
        HEADER: {**circuit.header(), _UNSCORED: unscored},
    }


def require_expressible(graph: Graph) -> None:
    """Refuse graphs that EAP-IG cannot express."""
    refuse_finer(graph, "EAP-IG")
    if graph.split_embedding:
        raise CircuitFileError(
            "EAP-IG graphs have one embedding and this circuit has two; "
            "search without --split-embedding, or choose another format"
        )


def _sizes(graph: Graph) -> dict[str, Any]:
    return {
        "n_layers": len(graph.attention),
        "n_heads": max(len(block.writers) for block in graph.attention.values()),
        "parallel_attn_mlp": bool(graph.mlps) and all(map(graph.is_parallel, graph.mlps)),
        "d_model": graph.shape.d_model,
    }


def _shares(score: float, n: int) -> list[float]:
    """Return n equal numbers that add up to the score exactly: the last one takes the rounding."""
    share = score / n
    return [*[share] * (n - 1), math.fsum([score, *[-share] * (n - 1)])]


def _nodes(circuit: Circuit, edges: Mapping[str, Any]) -> dict[str, Any]:
    kept = [name.split("->") for name, said in edges.items() if said["in_graph"]]
    writes = {writer for writer, _ in kept}
    reads = {reader.split("<")[0] for _, reader in kept} | {"input"}
    names = ["input", *(w.name for w in circuit.graph.writers[1:])]
    nodes = {name: {"in_graph": name in writes and name in reads} for name in names}
    return {**nodes, "logits": {"in_graph": True}}


def read(text: str, graph: Graph | None = None) -> Circuit:
    """Return the circuit of an EAP-IG file.

    Args:
        text: The file's text.
        graph: The model's graph; not needed for files that circuitfind wrote.

    Raises:
        CircuitFileError: It is not such a file, or of another model.
        GraphError: It names an edge that the model does not have.
    """
    content = as_object(parse_json(text), "it")
    header, sizes = content.get(HEADER), as_object(content["cfg"], "its cfg")
    if header is not None:
        unscored = as_object(header, "its header").get(_UNSCORED, [])
        header = {name: value for name, value in header.items() if name != _UNSCORED}
        graph = graph or graph_from(header)
    known = gathered(None, (), graph).graph
    require_sizes(sizes, known)
    edges = _with_nodes(as_object(content["edges"], "its edges"), content.get("nodes"))
    rows = edge_rows(edges, known, frozenset(unscored) if header else frozenset())
    return gathered(header, rows, graph)


def require_sizes(sizes: Mapping[str, Any], graph: Graph) -> None:
    """Refuse the sizes that a file states (its `cfg`) if they are those of another model."""
    require_expressible(graph)
    for name, size in _sizes(graph).items():
        if name in sizes and sizes[name] != size:
            raise CircuitFileError(
                f"its {name} is {quoted(sizes[name])} and that of the model is {size}"
            )


def _with_nodes(edges: Mapping[str, Any], nodes: object) -> Mapping[str, Any]:
    """Return the edges, those between kept nodes kept, if the file keeps nodes and no edge."""
    said = as_object(nodes or {}, "its nodes")
    inside = {name for name, node in said.items() if _is_in_graph(node)} | {"input", "logits"}
    if inside == {"input", "logits"} or any(_is_in_graph(edge) for edge in edges.values()):
        return edges
    return {
        name: {
            **as_object(edge, f"what it says of {quoted(name)}"),
            "in_graph": {part.split("<")[0] for part in name.split("->")} <= inside,
        }
        for name, edge in edges.items()
    }


def _is_in_graph(said: object) -> bool:
    return said is True or (isinstance(said, dict) and said.get("in_graph") is True)


def edge_rows(
    edges: Mapping[str, Any], graph: Graph, unscored: frozenset[str] = frozenset()
) -> Iterator[EdgeRow]:
    """Yield the edges of a graph of which a file says something.

    Args:
        edges: What the file says of each of its edges.
        graph: The graph.
        unscored: Our names of the edges whose score says nothing.

    Raises:
        CircuitFileError: The graph lacks an edge, or what is said of one cannot be understood.
    """
    left = set(edges)
    for edge in every_edge(graph):
        said = [_said(name, edges[name]) for name in edge_names(edge, graph) if name in left]
        left.difference_update(edge_names(edge, graph))
        if said:
            scores = [score for _, score in said if score is not None]
            effect = math.fsum(scores) if scores and edge.name not in unscored else None
            yield EdgeRow(edge.name, any(kept for kept, _ in said), effect)
    if left:
        raise CircuitFileError(
            f"it names {len(left)} edges that this model does not have, such as "
            f"{quoted(min(left))}; "
            "edges look like 'input->a0.h0<q>' and 'a0.h1->m3'"
        )


def _said(name: str, said: object) -> tuple[bool, float | None]:
    values = as_object(said, f"what it says of {quoted(name)}")
    kept, score = values.get("in_graph", False), values.get("score")
    if not isinstance(kept, bool) or isinstance(score, bool | str | list | dict):
        raise CircuitFileError(f"it says {quoted(values)} of the edge {quoted(name)}")
    return kept, score


EAP_IG = Format(
    "eap-ig", ".json", "the JSON of EAP-IG and MIB: every edge, with its score", write, read
)
