"""What all writers write on some prompts, or what their cut edges carry in place of it.

A head writes `d_model` elements a position, all of them made from the `d_head` elements of its z.
So heads are remembered by their z, and what they write exists only while it is asked for. Where
heads share a norm, what one writes depends on all of them, and is remembered itself. The z of a
unit (a neuron, a latent) is its activation, one element.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.full_pass import embeddings
from circuitfind.engine.gradients import RecordedRun
from circuitfind.graph import Block, Graph
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import unowned_bias
from circuitfind.models.units import unit_block
from circuitfind.places import Places
from circuitfind.problem import Problem

Streams = Float[Tensor, "writer batch pos d_model"]


def writing_blocks(graph: Graph) -> list[Block]:
    """Return the blocks that have writers, in the order in which they run."""
    return [block for block in graph.blocks if block.writers]


class Part(NamedTuple):
    """Writers of a block that are remembered alike.

    Attributes:
        name: That of the block; of the writers of a block with units that are none, `m5.rest`.
        block: The block.
        writers: Their indices.
        is_z: Whether they are remembered by their z.
    """

    name: str
    block: Block
    writers: tuple[int, ...]
    is_z: bool

    @property
    def rows(self) -> range:
        """Which of the block's writers they are."""
        first = self.block.writers.index(self.writers[0])
        return range(first, first + len(self.writers))

    def width(self, graph: Graph) -> int:
        """Return how many elements a writer has that is remembered so."""
        narrow = 1 if self.block.units is not None else graph.shape.d_head
        return narrow if self.is_z else graph.shape.d_model


@lru_cache(maxsize=8)
def parts_of(graph: Graph) -> tuple[Part, ...]:
    """Return all writers, in the order in which they run, by how they are remembered."""
    found = []
    for block in writing_blocks(graph):
        if block.units is None:
            is_z = block.has_heads and not block.coupled
            found.append(Part(block.name, block, block.writers, is_z))
        else:
            n = len(block.units.numbers)
            if n:
                found.append(Part(block.name, block, block.writers[:n], is_z=True))
            found.append(Part(f"{block.name}.rest", block, block.writers[n:], is_z=False))
    return tuple(found)


def write(
    model: ResidualModel, block: Block, writers: Sequence[int], z: Float[Tensor, "writer *any _"]
) -> Float[Tensor, "writer *any d_model"]:
    """Return what some heads or units of a block write, given their z.

    Args:
        model: The model.
        block: The block.
        writers: Which of its writers, counted in the block.
        z: The z of each.
    """
    if block.units is not None:
        return unit_block(model, block).written(writers, z)
    return model.output(block.layer, writers, z)


@dataclass(frozen=True)
class Written:
    """What all writers write, or carry instead.

    Attributes:
        model: The model.
        graph: Its graph.
        values: By the name of a part: z of heads and units; of other writers what they write. The
            second and third axis have length 1 where all prompts, or all
            positions, have the same.
    """

    model: ResidualModel
    graph: Graph
    values: Mapping[str, Float[Tensor, "writer _batch _pos width"]]

    def of(self, block: Block) -> Float[Tensor, "writer _batch _pos d_model"]:
        """Return what the writers of a block write."""
        found = [self._of(part) for part in parts_of(self.graph) if part.block.name == block.name]
        if len(found) == 1:
            return found[0]
        # What is the same for all prompts has length 1 there.
        shape = torch.broadcast_shapes(*(each.shape[1:3] for each in found))
        return torch.cat([each.expand(-1, *shape, -1) for each in found])

    def _of(self, part: Part) -> Float[Tensor, "writer _batch _pos d_model"]:
        values = self.values[part.name]
        if not part.is_z:
            return values
        with torch.set_grad_enabled(values.requires_grad):
            return write(self.model, part.block, part.rows, values)

    def of_all(self, n_prompts: int, n_positions: int) -> Streams:
        """Return what all writers write, on this number of prompts and positions."""
        shape = (-1, n_prompts, n_positions, -1)
        return torch.cat([self.of(block).expand(*shape) for block in writing_blocks(self.graph)])

    def entering(self, like: Float[Tensor, "batch pos d_model"]) -> dict[int, Tensor]:
        """Return the sums that readers of each stage receive of this, biases of attention included.

        Args:
            like: A stream of the same shape.
        """
        found: dict[int, Tensor] = {}
        total = torch.zeros_like(like)
        for stage, blocks in groupby(self.graph.blocks, lambda block: block.stage):
            found[stage] = total
            for block in blocks:
                if block.kind == "stream":
                    # What follows reads what its writers write, and nothing from before.
                    total = torch.zeros_like(like)
                if block.writers:
                    total = total + self.of(block).sum(0)
                bias = unowned_bias(self.model, block)
                total = total if bias is None else total + bias
        return found

    def map(self, change: Callable[[Tensor], Tensor]) -> "Written":
        """Return the same with all values changed."""
        return replace(self, values={name: change(v) for name, v in self.values.items()})

    def rows(self, rows: slice) -> "Written":
        """Return the same of some of the prompts."""
        return self.map(lambda values: values if values.shape[1] == 1 else values[:, rows])

    def at(self, places: Places | None) -> "Written":
        """Return what has one value for each place at the positions of these places."""
        return self if places is None else self.map(lambda values: values[:, 0, places.of])

    def __add__(self, other: "Written") -> "Written":
        return replace(self, values={n: v + other.values[n] for n, v in self.values.items()})

    def __sub__(self, other: "Written") -> "Written":
        return replace(self, values={n: v - other.values[n] for n, v in self.values.items()})


def run_on(problem: Problem, tokens: Tensor) -> tuple[RecordedRun, Written]:
    """Run the model on some prompts, every edge kept, and return what every writer writes too."""
    model, graph = problem.model, problem.graph
    with torch.no_grad():
        embedding = embeddings(model, graph, tokens)
        run = RecordedRun(model, graph, problem.prompts.real)
        run.run(total(embedding))
        values = {graph.blocks[0].name: torch.stack(embedding), **run.values}
        for block in graph.blocks:
            if block.coupled:
                heads = range(len(block.writers))
                values[block.name] = model.output(block.layer, heads, values[block.name])
            if block.units is not None:
                every = range(len(block.writers))
                found = unit_block(model, block).parts(run.given(block), every)
                values[block.name] = found.activations.movedim(-1, 0)[..., None]
                values[f"{block.name}.rest"] = torch.stack(found.wide)
    return run, Written(model, graph, {part.name: values[part.name] for part in parts_of(graph)})


def fixed_errors(written: Written) -> dict[str, Float[Tensor, "_batch _pos d_model"]]:
    """Return what transcoders do not reconstruct, by the name of their block."""
    blocks = [block for block in written.graph.blocks if block.has_fixed_error]
    return {block.name: written.values[f"{block.name}.rest"][-1] for block in blocks}


def total(streams: Iterable[Tensor]) -> Tensor:
    """Return the sum of some streams."""
    return reduce(torch.add, streams)


def batches(problem: Problem, size: int) -> list[Problem]:
    """Return the same problem about a few prompts at a time."""
    n = len(problem.prompts)
    return [
        replace(problem, prompts=problem.prompts.select(slice(first, first + size)))
        for first in range(0, n, size)
    ]
