"""The gradient of the loss at what every reader receives, from one pass forward and one back.

With every edge kept, all heads of a block read one stream, so the forward pass needs one stream and
not one per reader. On the way back the blocks are taken one by one: what arrives at a block's
queries, keys and values, or at an MLP's pre-activations, is pulled back through their weights and
the norm. Where these are known (`models/readings.py`), this takes one product and no second run.
Their sum goes on to earlier blocks. What each head's port receives is kept as what arrives at its
query, key or value, and what a head writes as its z (`d_head` elements a position each, not
`d_model`); the gradients of single readers are formed from that, some prompts at a time.

A run that was made before is walked back from the streams that entered its blocks: they are read,
mixed and written once more. With `checkpoint` this holds for every run.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import groupby
from operator import add
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import Block, Graph, Input, single_ports
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Heads, Inputs, Rows, Run, Seen, Stream, ports_of, read
from circuitfind.models.readings import LinearNorm

Streams = Float[Tensor, "reader batch pos d_model"]


class Received(ABC):
    """The gradient of the summed loss at what some readers of a block receive.

    Args:
        readers: Their indices.
    """

    def __init__(self, readers: Sequence[int]) -> None:
        self.readers = tuple(readers)

    @abstractmethod
    def total(self) -> Stream:
        """Return the sum over readers."""

    @abstractmethod
    def write(self, prompts: slice, out: Streams) -> None:
        """Write the gradients at all readers, on some of the prompts, into a tensor."""

    def __add__(self, other: "Received") -> "Received":
        """Return the sum with the gradients at the same readers in another run."""
        return _Sum(self, other)


@dataclass(frozen=True)
class BlockGradients:
    """The gradients of the summed loss at a block.

    Attributes:
        block: The block.
        written: At what any of its writers writes; of the logits, at what they read.
        received: At what its readers receive.
    """

    block: Block
    written: Stream
    received: tuple[Received, ...]

    def __add__(self, other: "BlockGradients") -> "BlockGradients":
        """Return the sum with the gradients at the same block in another run."""
        received = map(add, self.received, other.received)
        return BlockGradients(self.block, self.written + other.written, tuple(received))


class _Sum(Received):
    """The sum of gradients at the same readers."""

    def __init__(self, *parts: Received) -> None:
        super().__init__(parts[0].readers)
        self._parts = parts

    def total(self) -> Stream:
        return reduce(add, (part.total() for part in self._parts))

    def write(self, prompts: slice, out: Streams) -> None:
        self._parts[0].write(prompts, out)
        for part in self._parts[1:]:
            also = torch.empty_like(out)
            part.write(prompts, also)
            out += also


class _Whole(Received):
    """The gradient at what one reader receives, kept as it is."""

    def __init__(self, readers: Sequence[int], stream: Stream) -> None:
        super().__init__(readers)
        self._stream = stream

    def total(self) -> Stream:
        return self._stream

    def write(self, prompts: slice, out: Streams) -> None:
        out[0] = self._stream[prompts]

    def __add__(self, other: Received) -> Received:
        assert isinstance(other, _Whole)
        return _Whole(self.readers, self._stream + other._stream)


class _ThroughReadings(Received):
    """The gradients at what all heads of a block receive by one port, where these read alike.

    They are kept as what arrived at the queries, keys or values (see `Reading.pulled`).

    Args:
        readers: The readers.
        norm: What all heads norm the stream with.
        weights: The map of each head.
        arrived: The gradient at each head's query, key or value, times the norm's factor.
        along: A centred stream, and how much of it each head's gradient has for the norm's factor;
            several, if runs were summed.
    """

    def __init__(
        self,
        readers: Sequence[int],
        norm: LinearNorm,
        weights: Sequence[Float[Tensor, "d_model d_head"]],
        arrived: Heads,
        along: Sequence[tuple[Stream, Float[Tensor, "head batch pos 1"]]],
    ) -> None:
        super().__init__(readers)
        self._norm, self._weights, self._arrived, self._along = norm, weights, arrived, along

    def total(self) -> Stream:
        product = torch.zeros_like(self._along[0][0])
        for arrived, weight in zip(self._arrived, self._weights, strict=True):
            product.view(-1, len(weight)).addmm_(arrived.flatten(0, 1), weight.T)
        along = [(centred, shares.sum(0)) for centred, shares in self._along]
        return self._norm.pulled_(product, along)

    def write(self, prompts: slice, out: Streams) -> None:
        for arrived, weight, own in zip(self._arrived, self._weights, out, strict=True):
            torch.mm(arrived[prompts].flatten(0, 1), weight.T, out=own.view(-1, len(weight)))
        along = [(centred[prompts], shares[:, prompts]) for centred, shares in self._along]
        self._norm.pulled_(out, along)

    def __add__(self, other: Received) -> Received:
        assert isinstance(other, _ThroughReadings)
        arrived, along = self._arrived + other._arrived, [*self._along, *other._along]
        return _ThroughReadings(self.readers, self._norm, self._weights, arrived, along)


class _ThroughModel(Received):
    """The same where it is not known how the heads, or the MLP, read."""

    def __init__(
        self,
        readers: Sequence[int],
        project: Callable[[Streams], Heads],
        stream: Stream,
        arrived: Heads,
    ) -> None:
        super().__init__(readers)
        self._project, self._stream, self._arrived = project, stream, arrived

    def total(self) -> Stream:
        leaf = self._stream.clone().requires_grad_()
        return self._pulled(leaf, leaf.expand(len(self._arrived), *leaf.shape), self._arrived)

    def write(self, prompts: slice, out: Streams) -> None:
        leaf = self._stream[prompts].repeat(len(self._arrived), 1, 1, 1).requires_grad_()
        out.copy_(self._pulled(leaf, leaf, self._arrived[:, prompts]))

    def _pulled(self, leaf: Tensor, streams: Streams, arrived: Heads) -> Tensor:
        with torch.enable_grad():
            projected = self._project(streams)
        return torch.autograd.grad(projected, leaf, arrived)[0]


class RecordedRun(Run):
    """A run with every edge kept that is remembered, and can be walked back.

    Args:
        model: The model.
        graph: Its graph.
        real: True at positions that are no padding; needed by bidirectional models only.
        entering: The streams of a run that was made before, if that is to be walked back.
        trace: Whether the run will be walked back, so that more of what it computes is kept.
        checkpoint: Whether nothing inside blocks is kept for the way back.

    Attributes:
        entering: What entered the blocks of each stage, and the logits, by stage.
        values: By the name of a block: z of its heads, or what its MLP writes; not if it is to be
            walked back at once.
    """

    def __init__(
        self,
        model: ResidualModel,
        graph: Graph,
        real: Bool[Tensor, "batch pos"] | None = None,
        entering: Mapping[int, Stream] | None = None,
        *,
        trace: bool = False,
        checkpoint: bool = False,
    ) -> None:
        super().__init__(model, real, self._remember, graph)
        self.entering: dict[int, Stream] = dict(entering or {})
        self.values: dict[str, Float[Tensor, "writer batch pos width"]] = {}
        self._trace, self._checkpoint = trace, checkpoint
        self._traced: dict[str, _Trace] = {}

    def run(self, stream: Stream, first: int = 0) -> Stream:
        """Run from a stage on, given what enters it, and return the final stream."""
        with torch.no_grad():
            return super().run(stream, first)

    @property
    def final(self) -> Stream:
        """What the logits read."""
        return self.entering[self.graph.blocks[-1].stage]

    def _remember(self, seen: Seen, block: Block, values: Tensor) -> None:
        if seen == "entering":
            self.entering[block.stage] = values
        elif not self._trace and seen in ("z", "mlp"):
            self.values[block.name] = values[None] if seen == "mlp" else values

    def rest(self, inputs: Inputs, block: Block) -> Stream:
        if not self._trace or self._checkpoint:
            return super().rest(inputs, block)
        self._traced[block.name] = self._trace_of(inputs, block)
        return self._traced[block.name].added.detach()

    def _trace_of(self, inputs: Inputs, block: Block) -> "_Trace":
        leaves = {port: rows.detach().requires_grad_() for port, rows in inputs.items()}
        with torch.enable_grad():
            return _Trace(leaves, super().rest(leaves, block))

    def gradients(self, at_final: Stream) -> Iterator[BlockGradients]:
        """Walk back from the logits, given the gradient there; frees what was kept for that."""
        logits = self.graph.blocks[-1]
        yield BlockGradients(logits, at_final, (_Whole(logits.readers, at_final),))
        for blocks in reversed(self.graph.stages):
            if (stream := self.entering.get(blocks[0].stage)) is None:
                return
            before = at_final.clone()
            for block in reversed(blocks):
                received = self._pulled(block, stream, at_final)
                for some in received:
                    before += some.total()
                yield BlockGradients(block, at_final, received)
            at_final = before
        yield BlockGradients(self.graph.blocks[0], at_final, ())

    def _pulled(self, block: Block, stream: Stream, gradient: Stream) -> tuple[Received, ...]:
        """Pull the gradient at what a block writes back to what its readers receive."""
        known = self._traced.pop(block.name) if block.name in self._traced else None
        trace = known or self._trace_again(block, stream)
        arrived = torch.autograd.grad(trace.added, list(trace.inputs.values()), gradient)
        at_inputs = dict(zip(trace.inputs, arrived, strict=True))
        return tuple(
            reduce(
                _Sum,
                (
                    self._through_weights(
                        block, each, tuple(readers), stream, trace.inputs[each], at_inputs[each]
                    )
                    for each in single_ports(port)
                ),
            )
            for port, readers in groupby(block.readers, key=lambda r: self.graph.readers[r].port)
        )

    def _trace_again(self, block: Block, stream: Stream) -> "_Trace":
        with torch.no_grad():
            inputs = {port: self.read(block, port, stream) for port in ports_of(block)}
        return self._trace_of(inputs, block)

    def _through_weights(
        self,
        block: Block,
        port: Input,
        readers: Sequence[int],
        stream: Stream,
        rows: Rows,
        arrived: Rows,
    ) -> Received:
        """Return the gradients at what all readers of a port receive, from those at what they read.

        Args:
            block: The block.
            port: The port.
            readers: The readers.
            stream: What all of them receive.
            rows: Their queries, keys or values; or pre-activations.
            arrived: The gradient at these.
        """
        found = [self.model.reading(block.layer, port, row) for row in range(len(arrived))]
        readings = [reading for reading in found if reading is not None]
        if len(readings) < len(found) or any(r.norm is not readings[0].norm for r in readings):
            project = partial(read, self.model, block, port, range(len(arrived)))
            return _ThroughModel(readers, project, stream, arrived)
        norm = readings[0].norm
        normed = norm.apart(stream)
        if port is None:
            return _Whole(readers, readings[0].pulled(arrived[0], normed))
        constants = torch.stack([reading.constant for reading in readings])[:, None, None]
        along = norm.along(arrived, rows.detach() - constants, normed)
        weights = [reading.weights[0] for reading in readings]
        return _ThroughReadings(
            readers, norm, weights, arrived * normed.factor, [(normed.centred, along)]
        )


class _Trace(NamedTuple):
    """What a block has read, and the way from there to what it adds.

    Attributes:
        inputs: What was read, as leaves of autograd.
        added: What the block adds.
    """

    inputs: Mapping[Input, Rows]
    added: Stream
