"""Run the whole model with some edges cut: the definition that everything else is held to.

Every reader gets its own sum of what the writers before it contribute, a kept edge the writer's
current output and a cut edge its replacement; the model's parts do the rest. Masks may be soft, in
which case an edge carries the mixture, and the pass is differentiable in the mask, in the
embedding and in the replacements.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.graph import Graph
from circuitfind.models.base import ResidualModel

Stream = Float[Tensor, "batch pos d_model"]
Streams = Float[Tensor, "writer batch pos d_model"]
Mask = Float[Tensor, "writer reader"]


@dataclass(frozen=True)
class Pass:
    """One run of the model.

    Attributes:
        written: What each writer wrote, in the order of `Graph.writers`.
        read: What each reader received, in the order of `Graph.readers`; empty unless asked for.
        final: What the logits reader received.
    """

    written: Streams
    read: tuple[Stream, ...]
    final: Stream


def plain_pass(
    model: ResidualModel,
    graph: Graph,
    tokens: Int[Tensor, "batch pos"],
    real: Bool[Tensor, "batch pos"] | None = None,
    *,
    keep_reads: bool = False,
) -> Pass:
    """Run the model with every edge kept."""
    embedding = embeddings(model, graph, tokens)
    return _PlainRun(model, graph, real, keep_reads=keep_reads).run(embedding)


def full_pass(
    model: ResidualModel,
    graph: Graph,
    embedding: Sequence[Stream],
    replacement: Streams,
    kept: Mask,
    real: Bool[Tensor, "batch pos"] | None = None,
    *,
    keep_reads: bool = False,
) -> Pass:
    """Run the model with some edges cut.

    Args:
        model: The model.
        graph: Its graph.
        embedding: What the embedding writers write on the clean prompts (see `embeddings`).
        replacement: What each writer sends along a cut edge.
        kept: 1 where an edge is kept, 0 where it is cut; anything between mixes the two.
        real: True at positions that are no padding; needed by bidirectional models only.
        keep_reads: Whether the result holds what each reader received.
    """
    return _MaskedRun(model, graph, real, replacement, kept, keep_reads=keep_reads).run(embedding)


def embeddings(
    model: ResidualModel, graph: Graph, tokens: Int[Tensor, "batch pos"]
) -> tuple[Stream, ...]:
    """Return what each embedding writer of the graph writes."""
    embedding = model.embed(tokens)
    if not graph.split_embedding:
        return (embedding.joint,)
    assert embedding.position is not None
    return (embedding.token, embedding.position)


class _PlainRun:
    """A forward pass in progress: what has been written so far, and the sum of it."""

    def __init__(
        self, model: ResidualModel, graph: Graph, real: Tensor | None, *, keep_reads: bool
    ) -> None:
        self._model, self._graph, self._real = model, graph, real
        self._written: list[Streams] = []
        self._read: list[Stream] | None = [] if keep_reads else None
        self._total: Stream | None = None

    def run(self, embedding: Sequence[Stream]) -> Pass:
        self._write(torch.stack(list(embedding)))
        shape = self._model.shape
        for layer in range(shape.n_layers):
            heads = self._attention(layer)
            if shape.has_mlp and shape.parallel_mlp:
                mlp = self._mlp(layer)
                self._write(heads, layer)
                self._write(mlp[None])
            else:
                self._write(heads, layer)
                if shape.has_mlp:
                    self._write(self._mlp(layer)[None])
        last = len(self._graph.readers) - 1
        final = self._received(range(last, last + 1))[0]
        return Pass(torch.cat(self._written), tuple(self._read or ()), final)

    def _attention(self, layer: int) -> Streams:
        model, shape = self._model, self._model.shape
        streams = {port: self._received_by_port(layer, port) for port in self._graph.ports}
        merged = streams.get("qkv")
        queries, groups = range(shape.n_heads), range(shape.n_kv_heads)
        query = model.project(layer, "q", queries, streams["q"] if merged is None else merged)
        key = model.project(layer, "k", groups, streams["k"] if merged is None else merged)
        value = model.project(layer, "v", groups, streams["v"] if merged is None else merged)
        key, value = (
            shared.repeat_interleave(shape.heads_per_kv_head, dim=0) for shared in (key, value)
        )
        z = model.attend(layer, queries, query, key, value, self._real)
        return model.output(layer, queries, z)

    def _received_by_port(self, layer: int, port: str) -> Streams:
        return self._received(self._graph.head_readers(layer, port))  # type: ignore[arg-type]

    def _mlp(self, layer: int) -> Stream:
        reader = self._graph.reader_index[f"m{layer}"]
        return self._model.mlp(layer, self._received(range(reader, reader + 1))[0])

    def _received(self, readers: range) -> Streams:
        streams = self._sum_for(readers)
        if self._read is not None:
            self._read.extend(streams)
        return streams

    def _sum_for(self, readers: range) -> Streams:
        assert self._total is not None
        return self._total.expand(len(readers), *self._total.shape)

    def _write(self, written: Streams, attention_layer: int | None = None) -> None:
        self._written.append(written)
        self._add(written.sum(0))
        bias = None if attention_layer is None else self._model.attention_bias(attention_layer)
        if bias is not None:
            self._add(bias.expand_as(written[0]))

    def _add(self, stream: Stream) -> None:
        self._total = stream if self._total is None else self._total + stream


class _MaskedRun(_PlainRun):
    """The same with a mask: the running sum is that of the replacements and the constants."""

    def __init__(
        self,
        model: ResidualModel,
        graph: Graph,
        real: Tensor | None,
        replacement: Streams,
        kept: Mask,
        *,
        keep_reads: bool,
    ) -> None:
        super().__init__(model, graph, real, keep_reads=keep_reads)
        self._replacement, self._kept = replacement, kept
        # What has been written less its replacement: all later readers need it.
        self._differences: list[Streams] = []

    def _sum_for(self, readers: range) -> Streams:
        streams = super()._sum_for(readers)
        first = 0
        for difference in self._differences:
            rows = slice(first, first + len(difference))
            mask = self._kept[rows, readers.start : readers.stop].to(difference.dtype)
            streams = streams + torch.einsum("wr,wbpd->rbpd", mask, difference)
            first += len(difference)
        return streams

    def _write(self, written: Streams, attention_layer: int | None = None) -> None:
        first = sum(len(earlier) for earlier in self._written)
        replacement = self._replacement[first : first + len(written)]
        super()._write(replacement, attention_layer)
        self._written[-1] = written
        self._differences.append(written - replacement)
