"""One forward pass with every edge kept, part by part.

Others look on as it goes, take it up in the middle, or do some of its steps in another way: the
self-check, recordings for patching, runs taken up again, and runs that are walked back.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import ModelShape
from circuitfind.models.base import ResidualModel, SinglePort

Stream = Float[Tensor, "batch pos d_model"]
Added = Float[Tensor, "batch last d_model"]
"""What is added to a stream, at all positions or at the last ones."""

Heads = Float[Tensor, "_ batch pos d_head"]
"""One row per query head, or per key/value head."""

Seen = Literal["entering", "q", "k", "v", "z", "attention", "mlp"]
"""What can be looked at: the stream that enters a segment; and of a layer the queries, keys,
values, `z`, and what its attention (bias included) and its MLP add."""

Observer = Callable[[Seen, int, Tensor], None]
"""Called with the number of the segment or layer, and the values."""


class Part(NamedTuple):
    """The attention or the MLP of a layer."""

    kind: Literal["attention", "mlp"]
    layer: int


def segments(shape: ModelShape) -> list[list[Part]]:
    """Return the parts of a model in order; those of one segment read the same stream."""
    found: list[list[Part]] = []
    for layer, sizes in enumerate(shape.layers):
        parts = [Part("attention", layer)]
        if sizes.has_mlp:
            parts.append(Part("mlp", layer))
        found.extend([parts] if sizes.parallel_mlp else [[part] for part in parts])
    return found


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
        observe: Observer = lambda seen, number, values: None,
    ) -> None:
        self.model, self.real, self.observe = model, real, observe

    def run(self, stream: Stream, first: int = 0) -> Added:
        """Return what the logits read.

        Args:
            stream: What enters the segment `first`: before all others, the sum of the embeddings.
            first: The segment to begin with.
        """
        for number, segment in enumerate(segments(self.model.shape)[first:], first):
            self.observe("entering", number, stream)
            for added in [self.part(part, stream) for part in segment]:
                stream = stream[:, -added.shape[1] :] + added
        return stream

    def part(self, part: Part, stream: Stream) -> Added:
        """Return what a part adds to the stream."""
        added = (self.attention if part.kind == "attention" else self.mlp)(part.layer, stream)
        self.observe(part.kind, part.layer, added)
        return added

    def attention(self, layer: int, stream: Stream) -> Added:
        """Return what the attention of a layer adds, its bias included."""
        query, key, value = (self.projected(layer, port, stream) for port in ("q", "k", "v"))
        z = attend(self.model, layer, query, key, value, self.real)
        self.observe("z", layer, z)
        return added_by_heads(self.model, layer, z)

    def projected(self, layer: int, port: SinglePort, stream: Stream) -> Heads:
        """Return all heads' queries, or all key/value heads' keys or values."""
        shape = self.model.shape.layers[layer]
        n = shape.n_heads if port == "q" else shape.n_kv_heads
        heads = self.model.project(layer, port, range(n), stream.expand(n, *stream.shape))
        self.observe(port, layer, heads)
        return heads

    def mlp(self, layer: int, stream: Stream) -> Added:
        """Return what the MLP of a layer adds."""
        return self.model.mlp(layer, stream)


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


def added_by_heads(
    model: ResidualModel, layer: int, z: Float[Tensor, "head batch last d_head"]
) -> Added:
    """Return what the attention of a layer adds, bias included, given all heads' `z`."""
    added = model.output(layer, range(len(z)), z).sum(0)
    bias = model.attention_bias(layer)
    return added if bias is None else added + bias
