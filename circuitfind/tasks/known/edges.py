"""The edges of a published circuit that is stated as paths between groups of components.

A path says from whom, to whom, and through which inputs of a head (`q`, `k`, `v`). Either end is
the name of a group of heads, or components themselves; `mlps` are all MLPs of the circuit, `heads`
all its heads. A path stands for every edge from one to the other that the graph has.

The paths of the tasks here are those by which Conmy et al. (2023, arXiv 2304.14997) judge ACDC.
Their graph has one more edge for each q, k and v of a head that something leads to, so the sizes
that they give are larger by that number.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from circuitfind.graph import Graph

End = str | tuple[str, ...]


def known_components(known: Mapping[str, Any], graph: Graph) -> frozenset[str]:
    """Return the components of a published circuit, the embedding among them."""
    return frozenset(
        name for group in ("embed", "heads", "mlps") for name in _members(group, known, graph)
    )


def known_edges(known: Mapping[str, Any], graph: Graph) -> list[str] | None:
    """Return the names of a published circuit's edges in a graph; None where none are stated.

    None too where edges act at single places: at which ones is not stated.
    """
    if graph.places:
        return None
    if "connections" in known:
        return list(known["connections"])
    if "paths" not in known:
        return None
    return list(dict.fromkeys(_edges(known, graph)))


def _edges(known: Mapping[str, Any], graph: Graph) -> Iterator[str]:
    for start, end, ports in known["paths"]:
        for component in _members(end, known, graph):
            for index in _inputs(graph, component):
                reader = graph.readers[index]
                if reader.port is None or set(reader.port) & set(ports):
                    for name in _members(start, known, graph):
                        if graph.edge_mask[graph.writer_index[name], index]:
                            yield f"{name}->{reader.name}"


def _inputs(graph: Graph, component: str) -> tuple[int, ...]:
    """Return the readers of a component, which may be the logits."""
    if component in graph.writer_index:
        return graph.inputs[graph.writer_index[component]]
    return (graph.reader_index[component],)


def _members(end: End, known: Mapping[str, Any], graph: Graph) -> tuple[str, ...]:
    """Return the components at one end of a path."""
    if not isinstance(end, str):
        return end
    heads: Mapping[str, tuple[str, ...]] = known.get("heads", {})
    if end in heads:
        return heads[end]
    if end == "heads":
        return tuple(name for names in heads.values() for name in names)
    if end == "mlps":
        mlps = known.get("mlps", ())
        everywhere = (w.name for w in graph.writers if w.kind == "mlp")
        return tuple(everywhere if mlps == "all" else mlps)
    if end == "embed":
        return tuple(graph.writers[i].name for i in graph.embeddings)
    return (end,)
