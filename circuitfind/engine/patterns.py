"""Where heads look: attention patterns, for every model and from what its readers received.

A head's mixed values are linear in its values, so values that spell out the identity come back as
the pattern itself: `attend(query, key, identity) = pattern`. The model's own attention does all the
arithmetic, masks, positions and caps included, as it does for the engine.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.engine.full_pass import Pass
from circuitfind.graph import Graph
from circuitfind.models.base import ResidualModel

Patterns = Float[Tensor, "head batch query key"]


def attention_patterns(
    model: ResidualModel,
    graph: Graph,
    run: Pass,
    layer: int,
    real: Bool[Tensor, "batch pos"] | None = None,
) -> Patterns:
    """Return the attention pattern of every query head of a layer.

    Args:
        model: The model.
        graph: Its graph.
        run: A run that kept what its readers received, with any edges cut.
        layer: The layer.
        real: True at positions that are no padding.

    Returns:
        The share of its attention that each position (query) pays to each (key); rows sum to 1,
        unless the model's attention has a sink.
    """
    shape = graph.shape
    with torch.no_grad():
        query = _projected(model, graph, run, layer, "q")
        key = _projected(model, graph, run, layer, "k")
        key = key.repeat_interleave(shape.heads_per_kv_head, dim=0)
        heads = range(shape.n_heads)
        # As many columns of the identity at a time as a head has room for values.
        parts = [
            model.attend(layer, heads, query, key, values.expand(*key.shape[:2], -1, -1), real)
            for values in _identity(key)
        ]
    return torch.cat(parts, dim=-1)[..., : key.shape[2]]


def _projected(
    model: ResidualModel, graph: Graph, run: Pass, layer: int, port: str
) -> Float[Tensor, "head batch pos d_head"]:
    merged = graph.ports == ("qkv",)
    readers = graph.head_readers(layer, "qkv" if merged else port)  # type: ignore[arg-type]
    streams = torch.stack([run.read[reader] for reader in readers])
    return model.project(layer, port, range(len(readers)), streams)  # type: ignore[arg-type]


def _identity(key: Float[Tensor, "head batch pos d_head"]) -> list[Tensor]:
    pos, d_head = key.shape[2:]
    width = -(-pos // d_head) * d_head
    return list(torch.eye(pos, width, dtype=key.dtype, device=key.device).split(d_head, dim=1))
