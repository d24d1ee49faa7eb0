"""One forward pass with every edge kept, block by block.

Others look on as it goes, take it up in the middle, or do some of its steps in another way: the
self-check, recordings for patching, runs taken up again, and runs that are walked back.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import SINGLE_PORTS, Block, Graph, Input, SinglePort
from circuitfind.models.base import ResidualModel
from circuitfind.shape import ModelShape

Stream = Float[Tensor, "batch pos d_model"]
Added = Float[Tensor, "batch last d_model"]
"""What is added to a stream, at all positions or at the last ones."""

Heads = Float[Tensor, "_head batch pos d_head"]
"""One row per query head, or per key/value head."""

Rows = Float[Tensor, "_row batch _span _width"]
"""The same; or the pre-activations or the neurons of an MLP, as the only row."""

Inputs = Mapping[Input, Rows]
"""What a block reads: all heads' queries, keys and values; by None, the pre-activations."""

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
                if blocks[0].kind == "stream":
                    continue  # All parts together are the stream.
                for found in [self.added(block, stream) for block in blocks]:
                    stream = stream[:, -found.shape[1] :] + found
        self.observe("entering", self.graph.blocks[-1], stream)
        return stream

    def added(self, block: Block, stream: Stream) -> Added:
        """Return what a block adds to the stream, the bias of attention included."""
        found = self.rest({port: self.read(block, port, stream) for port in ports_of(block)}, block)
        self.observe("mlp" if block.kind == "mlp" else "attention", block, found)
        return found

    def read(self, block: Block, port: Input, stream: Stream) -> Rows:
        """Return all heads' queries, or all key/value heads' keys or values; or pre-activations."""
        n = 1
        if port is not None:
            shape = self.model.shape.layers[block.layer]
            n = shape.n_heads if port == "q" else shape.n_kv_heads
        rows = read(self.model, block, port, range(n), stream.expand(n, *stream.shape))
        if port is not None:
            self.observe(port, block, rows)
        return rows

    def rest(self, inputs: Inputs, block: Block) -> Added:
        """Return what a block adds, given what it has read."""
        mixed = mix(self.model, block, inputs, self.real)
        if block.kind == "attention":
            self.observe("z", block, mixed)
        return added(self.model, block, mixed)


def ports_of(block: Block) -> tuple[Input, ...]:
    """Return which inputs the components of a block have: a head's three, or an MLP's one."""
    return (None,) if block.kind == "mlp" else SINGLE_PORTS


def read(
    model: ResidualModel,
    block: Block,
    port: Input,
    rows: Sequence[int],
    streams: Float[Tensor, "_row batch span d_model"],
    *scale_of: Float[Tensor, "_row batch span d_model"],
) -> Rows:
    """Return what some heads of a block, or its MLP, read from a stream each.

    Args:
        model: The model.
        block: Attention, or an MLP.
        port: Which input is read.
        rows: Which heads; key/value heads for ports k and v.
        streams: What each of them receives.
        scale_of: Streams with whose scale the norm is applied, if not with their own. Models that
            cannot do so (`ResidualModel`) are not asked to.
    """
    if port is None:
        return model.mlp_pre(block.layer, streams[0], *(each[0] for each in scale_of))[None]
    return model.project(block.layer, port, rows, streams, *scale_of)


def read_by_heads(
    model: ResidualModel, layer: int, port: SinglePort, stream: Stream
) -> Float[Tensor, "head batch pos d_head"]:
    """Return what all query heads of a layer read from one stream by a port.

    Heads that share a key/value head are given the same.
    """
    shape = model.shape.layers[layer]
    n = shape.n_heads if port == "q" else shape.n_kv_heads
    found = model.project(layer, port, range(n), stream.expand(n, *stream.shape))
    return found.repeat_interleave(shape.n_heads // n, dim=0)


def mix(
    model: ResidualModel, block: Block, inputs: Inputs, real: Bool[Tensor, "batch pos"] | None
) -> Rows:
    """Return all heads' `z`, or the activations of an MLP's neurons."""
    if block.kind == "mlp":
        return model.mlp_post(block.layer, inputs[None][0])[None]
    return attend(model, block.layer, inputs["q"], inputs["k"], inputs["v"], real)


def write(
    model: ResidualModel, block: Block, mixed: Rows
) -> Float[Tensor, "writer batch last d_model"]:
    """Return what each of a block's writers adds to the stream, given all that they mix."""
    if block.kind == "mlp":
        return model.mlp_output(block.layer, mixed[0])[None]
    return model.output(block.layer, range(len(mixed)), mixed)


def side_by_side(z: Float[Tensor, "head batch pos d_head"]) -> Float[Tensor, "batch pos width"]:
    """Return the z of all heads beside one another, as `attn.hook_z` has it."""
    return z.permute(1, 2, 0, 3).flatten(2)


def unowned_bias(model: ResidualModel, block: Block) -> Float[Tensor, " d_model"] | None:
    """Return what a block adds to the stream that belongs to none of its writers, or None."""
    return model.attention_bias(block.layer) if block.has_heads else None


def added(model: ResidualModel, block: Block, mixed: Rows) -> Added:
    """Return what a block adds to the stream, given all that its writers mix."""
    if block.kind == "mlp":
        return model.mlp_output(block.layer, mixed[0])
    return model.attention_output(block.layer, mixed)


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
