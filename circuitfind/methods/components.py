"""From a value per component to a value per edge: an edge is worth as much as its weaker end.

Keeping every edge above a threshold then keeps exactly the edges between components above it. The
embedding and the logits are always kept, so they are worth as much as anything.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.errors import MethodError
from circuitfind.graph import Graph
from circuitfind.places import Places


def edges_between(
    graph: Graph, values: Float[Tensor, "writer place"], always: float
) -> Float[Tensor, "writer reader"]:
    """Return the smaller value of each edge's two ends.

    Args:
        graph: The graph.
        values: A value for each writer at each place; a single column where places are not told
            apart.
        always: The value of the embedding and the logits, at least as large as all others.
    """
    fed = feeds(graph)
    # A key/value head is worth as much as the best of the heads that share it, and what looks back
    # as much as a head that it feeds at any place.
    best = values.expand(*fed.shape, -1).masked_fill(~fed[..., None], -torch.inf).amax(1)
    best = torch.where(looks_back(graph), best.amax(1, keepdim=True), best)
    reads = best.where(fed.any(1, keepdim=True), always).flatten()
    writes = values.clone()
    writes[list(graph.embeddings)] = always
    return torch.minimum(at_readers(graph, writes), reads[None, :])


def at_readers(
    graph: Graph, values: Float[Tensor, "writer place"]
) -> Float[Tensor, "writer reader"]:
    """Return the value of each writer at the place of each reader."""
    return values.repeat(1, len(graph.merged.readers))


def by_place(
    values: Float[Tensor, "writer batch pos"], places: Places | None
) -> Float[Tensor, "writer place batch"]:
    """Add up values over the positions of each place, or over all."""
    if places is None:
        return values.sum(2)[:, None]
    return torch.einsum("wbp,sbp->wsb", values, places.masks().to(values.dtype))


def feeds(graph: Graph) -> Bool[Tensor, "input writer"]:
    """Return which components compute with what each input receives; none with the logits."""
    inputs = graph.merged
    fed = torch.zeros(len(inputs.readers), len(graph.writers), dtype=torch.bool)
    for reader, writers in enumerate(inputs.feeds):
        fed[reader, list(writers)] = True
    return fed


def looks_back(graph: Graph) -> Bool[Tensor, "input 1"]:
    """Return which inputs count at other places than their own."""
    return torch.tensor([[reader.looks_back] for reader in graph.merged.readers])


def require_finite(graph: Graph, values: Float[Tensor, "writer place"]) -> None:
    """Refuse values that are no numbers.

    Raises:
        MethodError: The message names the first component that has none.
    """
    for writer, value in zip(graph.writers, values.sum(1).tolist(), strict=True):
        if value != value or abs(value) == float("inf"):
            raise MethodError(
                f"the importance of {writer.name} became {value}; choose a metric that stays "
                "finite on these prompts, or a wider number type"
            )
