"""From a value per component to a value per edge: an edge is worth as much as its weaker end.

Keeping every edge above a threshold then keeps exactly the edges between components above it. The
embedding and the logits are always kept, so they are worth as much as anything.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.errors import MethodError
from circuitfind.graph import Graph


def edges_between(
    graph: Graph, values: Float[Tensor, " writer"], always: float
) -> Float[Tensor, "writer reader"]:
    """Return the smaller value of each edge's two ends.

    Args:
        graph: The graph.
        values: A value per writer.
        always: The value of the embedding and the logits, at least as large as all others.
    """
    writes = values.clone()
    writes[list(graph.embeddings)] = always
    fed = feeds(graph)
    # A key/value head is worth as much as the best of the heads that share it.
    best = values.expand(fed.shape).masked_fill(~fed, -torch.inf).amax(1)
    reads = best.where(fed.any(1), always)
    return torch.minimum(writes[:, None], reads[None, :])


def feeds(graph: Graph) -> Bool[Tensor, "reader writer"]:
    """Return which components compute with what each reader receives; none with the logits."""
    fed = torch.zeros(len(graph.readers), len(graph.writers), dtype=torch.bool)
    for reader, writers in enumerate(graph.feeds):
        fed[reader, list(writers)] = True
    return fed


def require_finite(graph: Graph, values: Float[Tensor, " writer"]) -> None:
    """Refuse values that are no numbers.

    Raises:
        MethodError: The message names the first component that has none.
    """
    for writer, value in zip(graph.writers, values.tolist(), strict=True):
        if value != value or abs(value) == float("inf"):
            raise MethodError(
                f"the importance of {writer.name} became {value}; choose a metric that stays "
                "finite on these prompts, or a wider number type"
            )
