"""From a value per component to a value per edge: an edge is worth as much as its weaker end.

Keeping every edge above a threshold then keeps exactly the edges between components above it. The
embedding and the logits are always kept, so they are worth as much as anything.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
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
    for index, writer in enumerate(graph.writers):
        if writer.stage == 0:
            writes[index] = always
    reads = [_largest_fed(graph, values, always)(index) for index in range(len(graph.readers))]
    return torch.minimum(writes[:, None], torch.stack(reads)[None, :])


def _largest_fed(
    graph: Graph, values: Float[Tensor, " writer"], always: float
) -> Callable[[int], Float[Tensor, ""]]:
    def value(index: int) -> Tensor:
        reader = graph.readers[index]
        if reader.component == "logits":
            return values.new_tensor(always)
        # A key/value head is worth as much as the best of the heads that share it.
        fed = [graph.writer_index[name] for name in graph.components_fed_by(reader)]
        return values[fed].max()

    return value


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
