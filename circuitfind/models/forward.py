"""One forward pass with every edge kept, block by block.

Others look on as it goes, take it up in the middle, or do some of its steps in another way: the
self-check, recordings for patching, runs taken up again, and runs that are walked back.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Block, Graph, SinglePort
from circuitfind.models.base import ResidualModel
from circuitfind.shape import ModelShape

Stream = Float[Tensor, "batch pos d_model"]
Added = Float[Tensor, "batch last d_model"]
"""What is added to a stream, at all positions or at the last ones."""

Heads = Float[Tensor, "_head batch pos d_head"]
"""One row per query head, or per key/value head."""

Seen = Literal["entering", "q", "k", "v", "z", "attention", "mlp"]
"""What can be looked at: the stream that enters a block; and of a block the queries, keys, values,
`z`, and what its attention (bias included) or its MLP adds."""

Observer = Callable[[Seen, Block, Tensor], None]
"""Called with the block and the values. Blocks of one stage read one stream, so `entering` is
called for the first of them only; last it is called for the logits."""


@lru_cache(maxsize=8)
def graph_of(shape: ModelShape) -> Graph:
    """Return the graph whose blocks are those of a model of this shape."""
    return heads_and_mlps(shape)


class Run:
    """A forward pass.

    Args:
        model: The model.
        real: True at positions that are no padding; needed by bidirectional models only.
        observe: Looks on.
    """

    def __init__(
        self,
        model: ResidualModel,
        real: Bool[Tensor, "batch pos"] | None = None,
        observe: Observer = lambda seen, block, values: None,
        graph: Graph | None = None,
    ) -> None:
        self.model, self.real, self.observe = model, real, observe
        self.graph = graph_of(model.shape) if graph is None else graph

    def run(self, stream: Stream, first: int = 0) -> Added:
        """Return what the logits read.

        Args:
            stream: What enters the stage `first`: before all others, the sum of the embeddings.
            first: The stage to begin with.
        """
        for blocks in self.graph.stages:
            if blocks[0].stage >= first:
                self.observe("entering", blocks[0], stream)
                for added in [self.added(block, stream) for block in blocks]:
                    stream = stream[:, -added.shape[1] :] + added
        self.observe("entering", self.graph.blocks[-1], stream)
        return stream

    def added(self, block: Block, stream: Stream) -> Added:
        """Return what a block adds to the stream."""
        if block.kind == "mlp":
            added = self.mlp(block, stream)
            self.observe("mlp", block, added)
        else:
            added = self.attention(block, stream)
            self.observe("attention", block, added)
        return added

    def attention(self, block: Block, stream: Stream) -> Added:
        """Return what the attention of a layer adds, its bias included."""
        query, key, value = (self.projected(block, port, stream) for port in ("q", "k", "v"))
        z = attend(self.model, block.layer, query, key, value, self.real)
        self.observe("z", block, z)
        return self.model.attention_output(block.layer, z)

    def projected(self, block: Block, port: SinglePort, stream: Stream) -> Heads:
        """Return all heads' queries, or all key/value heads' keys or values."""
        shape = self.model.shape.layers[block.layer]
        n = shape.n_heads if port == "q" else shape.n_kv_heads
        heads = self.model.project(block.layer, port, range(n), stream.expand(n, *stream.shape))
        self.observe(port, block, heads)
        return heads

    def mlp(self, block: Block, stream: Stream) -> Added:
        """Return what the MLP of a layer adds."""
        return self.model.mlp(block.layer, stream)


def attend(
    model: ResidualModel,
    layer: int,
    query: Float[Tensor, "head batch last d_head"],
    key: Float[Tensor, "kv_head batch pos d_head"],
    value: Float[Tensor, "kv_head batch pos d_head"],
    real: Bool[Tensor, "batch pos"] | None,
) -> Float[Tensor, "head batch last d_head"]:
    """Return all heads' `z`; heads that share a key/value head are given the same."""
    shape = model.shape.layers[layer]
    key, value = (heads.repeat_interleave(shape.heads_per_kv_head, dim=0) for heads in (key, value))
    return model.attend(layer, range(shape.n_heads), query, key, value, real)
