"""Where heads look: attention patterns, read out of any attention through the values it mixes.

An attention pattern is a linear map on values. If the value at position s is the s-th unit vector,
what a head mixes at a position is how much it attends to each s. That holds whatever the attention
computes its scores from, so no family needs code of its own.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.models.base import ResidualModel

Queries = Float[Tensor, "head batch last d_head"]
Keys = Float[Tensor, "kv_head batch pos d_head"]
Pattern = Float[Tensor, "head batch last pos"]


def attention_pattern(
    model: ResidualModel,
    layer: int,
    query: Queries,
    key: Keys,
    real: Bool[Tensor, "batch pos"],
    heads: range | None = None,
) -> Pattern:
    """Return how much heads attend from each query's position to every position.

    Args:
        model: The model.
        layer: The block.
        query: One per head, for the last positions or for all.
        key: One per key/value head of the block.
        real: True at positions that are no padding.
        heads: Which heads the queries are of; all of the block unless given.
    """
    shape = model.shape.layers[layer]
    heads = range(shape.n_heads) if heads is None else heads
    keys = key[[head // shape.heads_per_kv_head for head in heads]]
    n, width = keys.shape[2], keys.shape[3]
    columns = []
    for first in range(0, n, width):
        units = torch.zeros(n, width, dtype=keys.dtype, device=keys.device)
        shown = min(width, n - first)
        units[first : first + shown, :shown] = torch.eye(shown, dtype=keys.dtype)
        mixed = model.attend(layer, heads, query, keys, units.expand_as(keys), real)
        columns.append(mixed[..., :shown])
    return torch.cat(columns, dim=-1)
