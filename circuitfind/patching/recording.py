"""One run of a model with everything kept that can be patched into another run.

Streams are kept as they enter each block, and every head's query, key, value and mixed values, so
a run can be taken up at any point without running again what lies before it.
"""

from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuitfind.graph import Block
from circuitfind.models.base import Embedding, ResidualModel
from circuitfind.models.forward import Heads, Run, Seen, Stream


@dataclass(frozen=True)
class Recording:
    """Activations of a run, layer by layer.

    Attributes:
        embedding: What entered the stream before the first block.
        stream: What enters each block, and last what enters the logits.
        attention: What the attention of each block added, its bias included.
        mlp: What each MLP added, by layer; zeros where a layer has none.
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
        """The final residual stream, which the logits read."""
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
    kept: dict[Seen, list[Tensor]] = {seen: [] for seen in get_args(Seen)}
    mlps: dict[int, Tensor] = {}

    def keep(seen: Seen, block: Block, values: Tensor) -> None:
        if seen == "mlp":
            mlps[block.layer] = values
        elif seen != "entering" or block.kind != "mlp":
            kept[seen].append(values)

    with torch.no_grad():
        embedding = model.embed(tokens)
        final = Run(model, real, keep).run(embedding.joint)
    return Recording(
        embedding,
        stream=tuple(kept["entering"]),
        attention=tuple(kept["attention"]),
        mlp=tuple(mlps.get(layer, torch.zeros_like(final)) for layer in range(len(kept["z"]))),
        query=tuple(kept["q"]),
        key=tuple(kept["k"]),
        value=tuple(kept["v"]),
        z=tuple(kept["z"]),
    )
