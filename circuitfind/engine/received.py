"""The gradients at what the readers of a block receive, held in little memory.

A walk back (`engine/gradients.py`) hands these out block by block. For a port of all heads, what
arrives at their queries, keys or values is held (`d_head` elements a position, not `d_model`); the
gradients of single readers are formed from that, some prompts at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.graph import Block
from circuitfind.models.forward import Heads, Stream
from circuitfind.models.norms import LinearNorm
from circuitfind.models.units import Transcoder

_UNITS_TOGETHER = 16
"""At what so many units receive, gradients are formed together."""

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
        return Sum(self, other)


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


class Sum(Received):
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


class Whole(Received):
    """The gradient at what one reader receives, kept as it is."""

    def __init__(self, readers: Sequence[int], stream: Stream) -> None:
        super().__init__(readers)
        self._stream = stream

    def total(self) -> Stream:
        return self._stream

    def write(self, prompts: slice, out: Streams) -> None:
        out[0] = self._stream[prompts]

    def __add__(self, other: Received) -> Received:
        assert isinstance(other, Whole)
        return Whole(self.readers, self._stream + other._stream)


class ThroughReadings(Received):
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
        assert isinstance(other, ThroughReadings)
        arrived, along = self._arrived + other._arrived, [*self._along, *other._along]
        return ThroughReadings(self.readers, self._norm, self._weights, arrived, along)


class ThroughUnits(Received):
    """The gradients at what the readers of a transcoder receive.

    Nothing acts through the transcoder's error.

    Args:
        block: The block.
        unit: How it writes.
        stream: What its readers receive.
        gradient: The gradient at what it writes.
    """

    def __init__(self, block: Block, unit: Transcoder, stream: Stream, gradient: Stream) -> None:
        super().__init__(block.readers)
        self._block, self._unit, self._stream, self._gradient = block, unit, stream, gradient

    def total(self) -> Stream:
        return self._pulled(self._unit.added, self._stream, self._gradient)

    def write(self, prompts: slice, out: Streams) -> None:
        stream, gradient = self._stream[prompts], self._gradient[prompts]
        if not self._unit.units.apart:
            out[0] = self._pulled(self._unit.added, stream, gradient)
            return
        n = len(self._unit.units.numbers)
        for first in range(0, n, _UNITS_TOGETHER):
            units = range(first, min(first + _UNITS_TOGETHER, n))
            arrived = torch.einsum("bpd,ud->ubp", gradient, self._unit.rows(units))[..., None]
            read = partial(self._unit.read, units)
            out[list(units)] = self._pulled(read, stream.expand(len(units), -1, -1, -1), arrived)
        for other in range(n, len(out)):
            written = partial(self._unit.outputs, wanted=[other])
            out[other] = self._pulled(written, stream, gradient[None])

    def _pulled(
        self, write: Callable[[Tensor], Tensor], stream: Tensor, gradient: Tensor
    ) -> Tensor:
        leaf = stream.clone().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(write(leaf), leaf, gradient)[0]


class ThroughModel(Received):
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
