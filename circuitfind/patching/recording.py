"""One run of a model with everything kept that can be patched into another run.

Streams are kept as they enter each block, and every head's query, key, value and mixed values, so
a run can be taken up at any point without running again what lies before it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.models.base import SINGLE_PORTS, Embedding, ResidualModel, SinglePort

Stream = Float[Tensor, "batch pos d_model"]
Heads = Float[Tensor, "_ batch pos d_head"]
"""One row per query head, or per key/value head."""


@dataclass(frozen=True)
class Recording:
    """Activations of a run, layer by layer.

    Attributes:
        embedding: What entered the stream before the first block.
        stream: What enters each block, and last what enters the logits.
        attention: What the attention of each block added, its bias included.
        mlp: What each MLP added; empty where blocks have none.
        query: Each head's query.
        key: Each key/value head's key.
        value: Each key/value head's value.
        z: Each head's mixed values.
    """

    embedding: Embedding
    stream: tuple[Stream, ...]
    attention: tuple[Stream, ...]
    mlp: tuple[Stream, ...]
    query: tuple[Heads, ...]
    key: tuple[Heads, ...]
    value: tuple[Heads, ...]
    z: tuple[Heads, ...]

    @property
    def final(self) -> Stream:
        """What the logits read."""
        return self.stream[-1]

    def middle(self, layer: int) -> Stream:
        """Return the stream between a block's attention and its MLP."""
        return self.stream[layer] + self.attention[layer]


def record(
    model: ResidualModel,
    tokens: Int[Tensor, "batch pos"],
    real: Bool[Tensor, "batch pos"] | None = None,
) -> Recording:
    """Run a model on some tokens and keep what can be patched."""
    with torch.no_grad():
        embedding = model.embed(tokens)
        streams = [embedding.joint]
        attention, mlp = [], []
        kept: dict[str, list[Heads]] = {"query": [], "key": [], "value": [], "z": []}
        for layer in range(model.shape.n_layers):
            entering = streams[-1]
            query, key, value = (project(model, layer, port, entering) for port in SINGLE_PORTS)
            z = attend(model, layer, query, key, value, real)
            attention.append(add_heads(model, layer, z))
            for name, heads in (("query", query), ("key", key), ("value", value), ("z", z)):
                kept[name].append(heads)
            leaving = entering + attention[-1]
            if model.shape.has_mlp:
                mlp.append(model.mlp(layer, entering if model.shape.parallel_mlp else leaving))
                leaving = leaving + mlp[-1]
            streams.append(leaving)
    by_layer = {name: tuple(heads) for name, heads in kept.items()}
    return Recording(embedding, tuple(streams), tuple(attention), tuple(mlp), **by_layer)


def project(model: ResidualModel, layer: int, port: SinglePort, stream: Stream) -> Heads:
    """Return all heads' queries, or all key/value heads' keys or values, of one stream."""
    n = model.shape.n_heads if port == "q" else model.shape.n_kv_heads
    return model.project(layer, port, range(n), stream.expand(n, *stream.shape))


def attend(
    model: ResidualModel,
    layer: int,
    query: Float[Tensor, "head batch last d_head"],
    key: Float[Tensor, "kv_head batch pos d_head"],
    value: Float[Tensor, "kv_head batch pos d_head"],
    real: Bool[Tensor, "batch pos"] | None,
) -> Float[Tensor, "head batch last d_head"]:
    """Return all heads' mixed values; those that share a key/value head get the same."""
    shape = model.shape
    key, value = (heads.repeat_interleave(shape.heads_per_kv_head, dim=0) for heads in (key, value))
    return model.attend(layer, range(shape.n_heads), query, key, value, real)


def add_heads(
    model: ResidualModel, layer: int, z: Float[Tensor, "head batch last d_head"]
) -> Float[Tensor, "batch last d_model"]:
    """Return what the attention of a block adds, given all heads' mixed values."""
    added = model.output(layer, range(model.shape.n_heads), z).sum(0)
    bias = model.attention_bias(layer)
    return added if bias is None else added + bias
