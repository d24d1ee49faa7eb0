"""The gradient of the loss at what every reader receives, from one pass forward and one back.

With every edge kept, all heads of a block read one stream, so the forward pass needs one stream and
not one per reader. On the way back each block's parts are taken one by one: an MLP gives the
gradient at its input; an attention block is run again from its queries, keys and values, and what
arrives there is pulled back through each port's projection and norm, which gives every head port a
gradient of its own. Their sum goes on to earlier blocks. So a gradient per reader exists only while
it is handed out, and what a head writes is kept as its mixed values (`d_head` numbers a position,
not `d_model`).

With `checkpoint`, MLPs too are run again on the way back and nothing inside them is kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import Graph
from circuitfind.models.base import SINGLE_PORTS, ResidualModel, SinglePort, single_ports

Stream = Float[Tensor, "batch pos d_model"]
Streams = Float[Tensor, "reader batch pos d_model"]
Heads = Float[Tensor, "head batch pos d_head"]


class ReaderGradients(NamedTuple):
    """The gradients at what some readers of one stage receive.

    Attributes:
        readers: Their indices.
        stage: Their stage.
        gradient: Of the summed loss at what each reader receives.
    """

    readers: range
    stage: int
    gradient: Streams


@dataclass
class TracedRun:
    """A run with every edge kept that can be walked back once.

    Attributes:
        model: The model.
        graph: Its graph.
        real: True at positions that are no padding; needed by bidirectional models only.
        checkpoint: Whether nothing inside MLPs is kept for the way back.
        traced: Whether the run is to be walked back at all.
        streams: What entered each segment (see `segments`), and the final stream.
        z: What the heads of each attention block mixed.
        mlp: What each MLP wrote.
    """

    model: ResidualModel
    graph: Graph
    real: Bool[Tensor, "batch pos"] | None = None
    checkpoint: bool = False
    traced: bool = True
    streams: list[Stream] = field(default_factory=list)
    z: list[Heads] = field(default_factory=list)
    mlp: list[Stream] = field(default_factory=list)
    _trace: list[list["_Part"]] = field(default_factory=list)

    def run(self, stream: Stream, first: int = 0) -> Stream:
        """Run from the segment `first` on, given what enters it, and return the final stream."""
        for segment in segments(self.graph)[first:]:
            self.streams.append(stream)
            parts = [self._part(kind, layer) for kind, layer in segment]
            with torch.no_grad():
                for written in [part.run(self.streams[-1]) for part in parts]:
                    stream = stream + written
            self._trace.append(parts if self.traced else [])
        self.streams.append(stream)
        return stream

    @property
    def final(self) -> Stream:
        """What the logits read."""
        return self.streams[-1]

    def gradients(self, at_final: Stream) -> Iterator[ReaderGradients]:
        """Walk back from the logits, given the gradient there; frees the trace on its way."""
        last = len(self.graph.readers) - 1
        yield ReaderGradients(range(last, last + 1), self.graph.readers[last].stage, at_final[None])
        while self._trace:
            before = at_final
            for part in reversed(self._trace.pop()):
                for found in part.pull(at_final):
                    before = before + found.gradient.sum(0)
                    yield found
            at_final = before

    def _part(self, kind: str, layer: int) -> "_Part":
        return _Attention(self, layer) if kind == "attention" else _Mlp(self, layer)


def segments(graph: Graph) -> list[list[tuple[str, int]]]:
    """Return the parts of the model in order; those of one segment read the same stream."""
    found: list[list[tuple[str, int]]] = []
    for layer in range(graph.shape.n_layers):
        parts = [("attention", layer)]
        if graph.shape.has_mlp:
            parts.append(("mlp", layer))
        found.extend([parts] if graph.shape.parallel_mlp else [[part] for part in parts])
    return found


def segment_after(graph: Graph, stage: int) -> int:
    """Return the first segment whose input holds what was written at a stage."""
    if stage == 0:
        return 0
    layer, is_mlp = (stage - 1) // 2, (stage - 1) % 2
    per_layer = 2 if graph.shape.has_mlp and not graph.shape.parallel_mlp else 1
    return layer * per_layer + is_mlp + 1


def segment_before(graph: Graph, stage: int) -> int:
    """Return the segment whose input is what readers of a stage receive."""
    if stage == graph.readers[-1].stage:
        return -1
    layer, is_mlp = (stage - 1) // 2, (stage - 1) % 2
    if not graph.shape.has_mlp or graph.shape.parallel_mlp:
        return layer
    return 2 * layer + is_mlp


@runtime_checkable
class _Part(Protocol):
    """An attention block or an MLP, between its run and its way back."""

    def run(self, stream: Stream) -> Stream: ...

    def pull(self, gradient: Stream) -> Iterator[ReaderGradients]: ...


class _Mlp:
    def __init__(self, owner: TracedRun, layer: int) -> None:
        self._owner, self._layer = owner, layer
        self._stream: Stream | None = None
        self._written: Stream | None = None

    def run(self, stream: Stream) -> Stream:
        owner = self._owner
        if not owner.traced or owner.checkpoint:
            self._stream, written = stream, owner.model.mlp(self._layer, stream)
        else:
            self._stream, self._written = self._traced(stream)
            written = self._written.detach()
        owner.mlp.append(written)
        return written

    def _traced(self, stream: Stream) -> tuple[Stream, Stream]:
        leaf = stream.detach().requires_grad_()
        with torch.enable_grad():
            return leaf, self._owner.model.mlp(self._layer, leaf)

    def pull(self, gradient: Stream) -> Iterator[ReaderGradients]:
        assert self._stream is not None
        leaf, written = self._stream, self._written
        if written is None:
            leaf, written = self._traced(leaf)
        (at_input,) = torch.autograd.grad(written, leaf, gradient)
        self._stream = self._written = None
        graph = self._owner.graph
        index = graph.reader_index[f"m{self._layer}"]
        yield ReaderGradients(
            range(index, index + 1), graph.readers[index].stage, at_input[None].detach()
        )


class _Attention:
    def __init__(self, owner: TracedRun, layer: int) -> None:
        self._owner, self._layer = owner, layer
        self._stream: Stream | None = None
        self._projected: dict[SinglePort, Heads] = {}

    def run(self, stream: Stream) -> Stream:
        owner, layer = self._owner, self._layer
        projected = {port: self._project(port, stream) for port in SINGLE_PORTS}
        z = self._mixed(projected)
        owner.z.append(z)
        if owner.traced:
            self._stream, self._projected = stream, projected
        return self._sum_of_heads(z, owner.model.attention_bias(layer))

    def _sum_of_heads(self, z: Heads, bias: Tensor | None = None) -> Stream:
        queries = range(self._owner.graph.shape.n_heads)
        written = self._owner.model.output(self._layer, queries, z).sum(0)
        return written if bias is None else written + bias

    def _project(self, port: SinglePort, stream: Stream) -> Heads:
        heads = range(_n_heads(self._owner.graph, port))
        shared = stream.expand(len(heads), *stream.shape)
        return self._owner.model.project(self._layer, port, heads, shared)

    def _mixed(self, projected: dict[SinglePort, Heads]) -> Heads:
        shape = self._owner.graph.shape
        key, value = (
            projected[port].repeat_interleave(shape.heads_per_kv_head, dim=0) for port in ("k", "v")
        )
        queries = range(shape.n_heads)
        return self._owner.model.attend(
            self._layer, queries, projected["q"], key, value, self._owner.real
        )

    def pull(self, gradient: Stream) -> Iterator[ReaderGradients]:
        assert self._stream is not None
        leaves = {port: values.requires_grad_() for port, values in self._projected.items()}
        with torch.enable_grad():
            written = self._sum_of_heads(self._mixed(leaves))
        arrived = dict(
            zip(leaves, torch.autograd.grad(written, list(leaves.values()), gradient), strict=True)
        )
        del written
        self._projected = {}
        graph = self._owner.graph
        for port in graph.ports:
            readers = graph.head_readers(self._layer, port)
            at_port: Any = sum(
                self._pulled_through(single, arrived[single]) for single in single_ports(port)
            )
            yield ReaderGradients(readers, graph.readers[readers[0]].stage, at_port)
        self._stream = None

    def _pulled_through(self, port: SinglePort, arrived: Heads) -> Streams:
        """Pull gradients at projected values back to the stream that each head's port reads."""
        assert self._stream is not None
        # A copy per head, so that each head's gradient arrives apart from the others'.
        leaf = self._stream.expand(len(arrived), *self._stream.shape).clone().requires_grad_()
        with torch.enable_grad():
            projected = self._owner.model.project(self._layer, port, range(len(arrived)), leaf)
        (at_input,) = torch.autograd.grad(projected, leaf, arrived)
        return at_input


def _n_heads(graph: Graph, port: SinglePort) -> int:
    return graph.shape.n_heads if port == "q" else graph.shape.n_kv_heads
