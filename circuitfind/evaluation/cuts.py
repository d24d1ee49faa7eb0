"""Circuits without some of their parts, as masks."""

from collections.abc import Sequence

from circuitfind.circuit import Circuit
from circuitfind.evaluation.passes import Mask
from circuitfind.graph import Graph


def removable(circuit: Circuit) -> list[str]:
    """Return the components of a circuit that write, the embedding left out."""
    graph = circuit.graph
    writes = circuit.kept.cpu().any(dim=1).tolist()
    pairs = zip(graph.writers, writes, strict=True)
    return [w.name for w, kept in pairs if kept and w.kind not in ("embedding", "move")]


def without(graph: Graph, kept: Mask, components: Sequence[str]) -> Mask:
    """Return a mask with everything cut that some components write."""
    mask = kept.clone()
    mask[[graph.writer_index[name] for name in components]] = False
    return mask


def complement(circuit: Circuit) -> Mask:
    """Return the mask of the model without a circuit: all edges but the circuit's."""
    return circuit.graph.edge_mask & ~circuit.kept.cpu()
