"""The steps of attention for some readers and heads at a time: project, then attend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.engine.moved_attention import MovedAttention
from circuitfind.engine.moves import Kept, Ports
from circuitfind.engine.state import PortReading, Projected, Stream
from circuitfind.graph import Block, Graph, Input, single_ports
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import read
from circuitfind.models.units import unit_block

PortOf = tuple[int, Input]
"""A reader, and one of the inputs of a component that it is."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of a model on some prompts.

    Attributes:
        model: The model.
        graph: Its graph.
        real: True at positions of the prompts that are no padding.
        moved: The attention of heads some of whose moves are cut, where moves are edges.
    """

    model: ResidualModel
    graph: Graph
    real: Bool[Tensor, "batch pos"]
    moved: MovedAttention | None = None

    def project(
        self, block: Block, readers: Sequence[int], streams: Mapping[int, Stream]
    ) -> dict[PortOf, Projected]:
        """Return what readers of one port of a block project their streams to."""
        heads = [self.graph.readers[reader].index or 0 for reader in readers]
        stream = _stacked([streams[reader] for reader in readers])
        return {
            (reader, single): values
            for single in single_ports(self.graph.readers[readers[0]].port)
            for reader, values in zip(
                readers, read(self.model, block, single, heads, stream), strict=True
            )
        }

    def readings(self, block: Block, readers: Sequence[int]) -> tuple[PortReading, ...]:
        """Return how readers of a block read, port by port.

        Returns:
            Nothing unless that is known of all, with one norm and equally wide.
        """
        found: list[PortReading] = []
        for index in readers:
            reader = self.graph.readers[index]
            for port in single_ports(reader.port):
                reading = self.model.reading(block.layer, port, reader.index or 0)
                if reading is None:
                    return ()
                found.append((index, reading))
        alike = {(id(reading.norm), reading.width) for _, reading in found}
        return tuple(found) if len(alike) == 1 else ()

    def attend(
        self,
        block: Block,
        heads: Sequence[int],
        query: Float[Tensor, "head _candidate batch last d_head"],
        key: Float[Tensor, "head _candidate batch pos d_head"],
        value: Float[Tensor, "head _candidate batch pos d_head"],
        moves: Kept | None = None,
    ) -> Float[Tensor, "head candidate batch last d_head"]:
        """Return the z of some heads for all candidates, which may share any input.

        Args:
            block: Their block.
            heads: The heads.
            query: What each reads.
            key: The same.
            value: The same.
            moves: Which of their moves are kept; None if all are.
        """
        read = Ports(*(values.flatten(1, 2) for values in (query, key, value)))
        if moves is None or self.moved is None:
            z = self.model.attend(block.layer, heads, *read, self.real)
        else:
            z = self.moved.attend(block.layer, heads, read, moves)
        return z.view(len(heads), -1, len(self.real), *z.shape[2:])

    def output(
        self,
        block: Block,
        writers: Sequence[int],
        z: Float[Tensor, "head candidate batch span d_head"],
    ) -> Float[Tensor, "head candidate batch span d_model"]:
        """Return what heads write for their z."""
        output = self.model.output(block.layer, self.heads(writers), z.flatten(1, 2))
        return output.view(*z.shape[:-1], -1)

    def unit_rows(self, writers: Sequence[int]) -> Float[Tensor, "unit d_model"]:
        """Return what some units of a block write when their activation is 1."""
        block = self.graph.block_of[self.graph.writers[writers[0]].name]
        units = [writer - block.writers[0] for writer in writers]
        return unit_block(self.model, block).rows(units)

    def heads(self, writers: Sequence[int]) -> list[int]:
        """Return the numbers of heads in their layer."""
        return [self.graph.writers[writer].index or 0 for writer in writers]


def _stacked(streams: Sequence[Stream]) -> Float[Tensor, "head batch pos d_model"]:
    """Stack streams without copying where there is one, or all are one and the same."""
    first = streams[0]
    if all(stream.data_ptr() == first.data_ptr() for stream in streams):
        return first.expand(len(streams), *first.shape)
    return torch.stack(list(streams))
