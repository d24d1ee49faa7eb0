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

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import Graph
from circuitfind.models.base import ResidualModel, SinglePort, single_ports
from circuitfind.models.forward import Run, Seen, added_by_heads, attend

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


class TracedRun(Run):
    """A run with every edge kept that can be walked back once.

    Args:
        model: The model.
        graph: Its graph.
        real: True at positions that are no padding; needed by bidirectional models only.
        checkpoint: Whether nothing inside MLPs is kept for the way back.
        traced: Whether the run is to be walked back at all.

    Attributes:
        streams: What entered each segment (see `segments`), and the final stream.
        z: What the heads of each attention block mixed.
        mlp: What each MLP wrote.
    """

    def __init__(
        self,
        model: ResidualModel,
        graph: Graph,
        real: Bool[Tensor, "batch pos"] | None = None,
        *,
        checkpoint: bool = False,
        traced: bool = True,
    ) -> None:
        super().__init__(model, real, self._keep)
        self.graph, self.checkpoint, self.traced = graph, checkpoint, traced
        self.streams: list[Stream] = []
        self.z: list[Heads] = []
        self.mlps: list[Stream] = []
        self._projected: dict[SinglePort, Heads] = {}
        self._trace: list[list[_Part]] = []

    def run(self, stream: Stream, first: int = 0) -> Stream:
        """Run from the segment `first` on, given what enters it, and return the final stream."""
        with torch.no_grad():
            self.streams.append(super().run(stream, first))
        return self.final

    def _keep(self, seen: Seen, number: int, values: Tensor) -> None:
        if seen == "entering":
            self.streams.append(values)
            self._trace.append([])
        elif seen in ("q", "k", "v"):
            self._projected[seen] = values
        elif seen == "z":
            if len(self.mlps) < len(self.z):
                # The layer before has no MLP: zeros keep its place.
                self.mlps.append(torch.zeros_like(self.streams[-1]))
            self.z.append(values)
        elif seen == "mlp":
            self.mlps.append(values)

    def attention(self, layer: int, stream: Stream) -> Stream:
        added = super().attention(layer, stream)
        if self.traced:
            self._trace[-1].append(_Attention(self, layer, stream, self._projected))
        self._projected = {}
        return added

    def mlp(self, layer: int, stream: Stream) -> Stream:
        if not self.traced:
            return super().mlp(layer, stream)
        part = _Mlp(self, layer, stream)
        self._trace[-1].append(part)
        return part.run()

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


def segment_after(graph: Graph, stage: int) -> int:
    """Return the first segment whose input holds what was written at a stage."""
    return bisect_right(_stages(graph), stage)


def segment_before(graph: Graph, stage: int) -> int:
    """Return the segment whose input is what readers of a stage receive; -1 for the logits."""
    return -1 if stage == graph.blocks[-1].stage else bisect_left(_stages(graph), stage)


@lru_cache(maxsize=8)
def _stages(graph: Graph) -> tuple[int, ...]:
    """Return the stage of each segment: blocks of one stage read the same stream."""
    return tuple(dict.fromkeys(block.stage for block in graph.blocks[1:-1]))


class _Part(Protocol):
    """An attention block or an MLP, on the way back."""

    def pull(self, gradient: Stream) -> Iterator[ReaderGradients]: ...


class _Mlp:
    def __init__(self, owner: TracedRun, layer: int, stream: Stream) -> None:
        self._owner, self._layer = owner, layer
        self._stream: Stream | None = stream
        self._written: Stream | None = None

    def run(self) -> Stream:
        """Return what the MLP writes, and keep its insides unless they are to be made again."""
        assert self._stream is not None
        if self._owner.checkpoint:
            return self._owner.model.mlp(self._layer, self._stream)
        self._stream, self._written = self._traced(self._stream)
        return self._written.detach()

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
    def __init__(
        self, owner: TracedRun, layer: int, stream: Stream, projected: dict[SinglePort, Heads]
    ) -> None:
        self._owner, self._layer, self._projected = owner, layer, projected
        self._stream: Stream | None = stream

    def pull(self, gradient: Stream) -> Iterator[ReaderGradients]:
        assert self._stream is not None
        owner = self._owner
        leaves = {port: values.requires_grad_() for port, values in self._projected.items()}
        with torch.enable_grad():
            z = attend(owner.model, self._layer, leaves["q"], leaves["k"], leaves["v"], owner.real)
            written = added_by_heads(owner.model, self._layer, z)
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
