"""Sums of what writers write, with weights: differentiable, and small in memory.

In a pass with a mask every reader has a stream of its own. Kept for the way back, the streams of
all readers take several times the memory of a plain pass. So a stream is formed, read (normed and
multiplied by the reader's weights) and forgotten; on the way back it is formed once more. What
writers write is kept once, in one tensor whose rows are only ever added to.

The gradient at what writers write is one tensor, too, to which each reader adds its part in place.
It is handed from each step to the one before it as the gradient of a link: each step takes the link
that the step before it returned. A link has the tensor's shape and takes no memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from circuitfind.models.forward import Rows
from circuitfind.models.readings import Reading

Stream = Float[Tensor, "batch pos d_model"]
Streams = Float[Tensor, "_stream batch pos d_model"]


@dataclass(frozen=True, eq=False)
class Reads:
    """How heads read streams; all of them norm what they read alike.

    Attributes:
        groups: Of each input of each head the number of its stream, and how it reads that. The
            outputs of a group are stacked, as those of all queries are.
    """

    groups: Sequence[Sequence[tuple[int, Reading]]]

    def of(self, streams: Streams, total: Stream) -> tuple[Rows, ...]:
        """Return what is read, group by group.

        Args:
            streams: Streams; overwritten.
            total: Added to each stream first.
        """
        found = [
            streams.new_empty(len(group), *total.shape[:-1], group[0][1].width)
            for group in self.groups
        ]
        for stream, some in zip(streams, self._by_stream(found), strict=True):
            normed = some[0][0].norm.apart_(stream.add_(total))
            for reading, out in some:
                torch.matmul(stream, reading.folded, out=out)
                torch.addcmul(reading.constant, out, normed.factor, out=out)
        return tuple(found)

    def pull_(
        self, streams: Streams, total: Stream, outputs: Sequence[Rows], arrived: Sequence[Rows]
    ) -> None:
        """Overwrite streams with the gradients at them.

        Args:
            streams: Streams; overwritten.
            total: Added to each stream first.
            outputs: What was read.
            arrived: The gradients at that.
        """
        by_stream = map(self._by_stream, (outputs, arrived))
        for stream, some, found in zip(streams, *by_stream, strict=True):
            norm = some[0][0].norm
            normed = norm.apart_(stream.add_(total))
            shares = [
                norm.along(row, out - reading.constant, normed)
                for (reading, out), (_, row) in zip(some, found, strict=True)
            ]
            stream.mul_(reduce(add, shares))
            for reading, row in found:
                flat = (row * normed.factor).flatten(0, -2)
                stream.flatten(0, -2).addmm_(flat, reading.folded.T)

    def _by_stream(self, rows: Sequence[Rows]) -> list[list[tuple[Reading, Tensor]]]:
        """Return which rows belong to each stream, and the readings that they belong to."""
        found: dict[int, list[tuple[Reading, Tensor]]] = {}
        for group, some in zip(self.groups, rows, strict=True):
            for (number, reading), row in zip(group, some, strict=True):
                found.setdefault(number, []).append((reading, row))
        return [found[number] for number in sorted(found)]


class _Store:
    """What has been written minus its replacement, and room for streams.

    Args:
        shape: Number of writers, then the shape of a stream.
        like: A tensor of the same type, on the same device.
    """

    def __init__(self, shape: Sequence[int], like: Tensor) -> None:
        self.values = like.new_empty(shape)
        self._room = self.values[:0]

    def room(self, n: int) -> Streams:
        """Return room for some streams, to be used before it is asked for again."""
        if len(self._room) < n:
            self._room = self.values.new_empty(n, *self.values.shape[1:])
        return self._room[:n]

    def link(self) -> Tensor:
        """Return a tensor of the shape of the values that takes no memory."""
        return self.values.new_empty(()).expand_as(self.values)


class Sums:
    """What writers have written in a pass so far, minus its replacement.

    Args:
        n_writers: How many writers there are.

    Attributes:
        n_written: How many have written.
    """

    def __init__(self, n_writers: int) -> None:
        self._n_writers, self.n_written = n_writers, 0
        self._store: _Store | None = None
        self._link: Tensor | None = None

    @property
    def values(self) -> Streams:
        """What has been written, minus its replacement; without a gradient."""
        assert self._store is not None
        return self._store.values[: self.n_written]

    def write(self, written: Streams, replacement: Streams) -> None:
        """Take what the next writers write."""
        if self._store is None:
            self._store = _Store((self._n_writers, *written.shape[1:]), written)
            self._link = self._store.link()
        rows = slice(self.n_written, self.n_written + len(written))
        apply: Any = _Write.apply
        self._link = apply(self._store, rows, self._link, written, replacement)
        self.n_written = rows.stop

    def received(
        self,
        first: int,
        weights: Float[Tensor, "_writer _stream"],
        total: Stream,
        reads: Reads | None = None,
    ) -> tuple[Tensor, ...]:
        """Return sums over the writers from one on, or what is read from these streams.

        Args:
            first: The first writer.
            weights: Of each writer in each sum.
            total: Added to each sum.
            reads: How the streams are read; by default they are returned.
        """
        apply: Any = _Received.apply
        rows = slice(first, self.n_written)
        *found, self._link = apply(self._store, rows, reads, self._link, weights, total)
        return tuple(found)


class SumsByPrompt:
    """The same with weights of its own for each prompt, without a gradient."""

    def __init__(self) -> None:
        self.n_written, self._parts = 0, list[Streams]()

    @property
    def values(self) -> Streams:
        """What has been written, minus its replacement."""
        return torch.cat(self._parts)

    def write(self, written: Streams, replacement: Streams) -> None:
        """Take what the next writers write."""
        self._parts.append(written - replacement)
        self.n_written += len(written)

    def received(
        self,
        first: int,
        weights: Float[Tensor, "_writer _stream batch"],
        total: Stream,
        reads: Reads | None = None,
    ) -> tuple[Streams]:
        """Return sums over the writers from one on."""
        assert reads is None
        found = torch.einsum("wrb,wbpd->rbpd", weights, self.values[first:])
        return (found + total,)


class _Write(torch.autograd.Function):
    """Put what is written into the store."""

    @staticmethod
    def forward(
        ctx: Any, store: _Store, rows: slice, link: Tensor, written: Tensor, replacement: Tensor
    ) -> Tensor:
        torch.sub(written, replacement, out=store.values[rows])
        ctx.rows = rows
        ctx.set_materialize_grads(False)
        return store.link()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradient at what was written: all that read it have added theirs."""
        (at_values,) = gradients
        if at_values is None:
            return None, None, None, None, None
        at_written = at_values[ctx.rows]
        at_replacement = -at_written if ctx.needs_input_grad[4] else None
        return None, None, at_values, at_written, at_replacement


class _Received(torch.autograd.Function):
    """Sum what is in the store, and read the sums."""

    @staticmethod
    def forward(
        ctx: Any,
        store: _Store,
        rows: slice,
        reads: Reads | None,
        link: Tensor,
        weights: Tensor,
        total: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.store, ctx.rows, ctx.reads = store, rows, reads
        ctx.set_materialize_grads(False)
        n, values = weights.shape[1], store.values[rows]
        if reads is None:
            streams = _mixed(values, weights, values.new_empty(n, *total.shape))
            outputs: tuple[Tensor, ...] = (streams.add_(total),)
        else:
            outputs = reads.of(_mixed(values, weights, store.room(n)), total)
        ctx.save_for_backward(weights, total, *(outputs if reads else ()))
        return *outputs, store.link()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Add to the gradient at what is in the store, in place."""
        *arrived, at_values = gradients
        if all(gradient is None for gradient in arrived):
            return None, None, None, at_values, None, None
        weights, total, *outputs = ctx.saved_tensors
        values = ctx.store.values[ctx.rows]
        if ctx.reads is None:
            (at_streams,) = arrived
        else:
            at_streams = _mixed(values, weights, ctx.store.room(weights.shape[1]))
            # Nothing arrives at queries and keys whose pattern is a constant.
            known = [
                torch.zeros_like(rows) if gradient is None else gradient
                for rows, gradient in zip(outputs, arrived, strict=True)
            ]
            ctx.reads.pull_(at_streams, total, outputs, known)
        assert at_streams is not None
        needs_values, needs_weights, needs_total = ctx.needs_input_grad[3:]
        flat = at_streams.flatten(1)
        if needs_values:
            at_values = torch.zeros_like(ctx.store.values) if at_values is None else at_values
            at_values[ctx.rows].flatten(1).addmm_(weights, flat)
        at_weights = values.flatten(1) @ flat.T if needs_weights else None
        at_total = at_streams.sum(0) if needs_total else None
        return None, None, None, at_values, at_weights, at_total


def _mixed(values: Streams, weights: Tensor, out: Streams) -> Streams:
    torch.mm(weights.T, values.flatten(1), out=out.flatten(1))
    return out
