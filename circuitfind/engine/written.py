"""What all writers write on some prompts, or what their cut edges carry in place of it.

A head writes `d_model` elements a position, all of them made from the `d_head` elements of its z.
So heads are remembered by their z, and what they write exists only while it is asked for. Where
heads share a norm, what one writes depends on all of them, and is remembered itself.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.full_pass import embeddings
from circuitfind.engine.gradients import RecordedRun
from circuitfind.graph import Block, Graph
from circuitfind.models.base import ResidualModel
from circuitfind.problem import Problem

Streams = Float[Tensor, "writer batch pos d_model"]


def writing_blocks(graph: Graph) -> list[Block]:
    """Return the blocks that have writers, in the order in which they run."""
    return [block for block in graph.blocks if block.writers]


def is_z(block: Block) -> bool:
    """Tell whether a block's writers are remembered by their z."""
    return block.kind == "attention" and not block.coupled


@dataclass(frozen=True)
class Written:
    """What all writers write, or carry instead.

    Attributes:
        model: The model.
        graph: Its graph.
        values: By the name of a block: z of its heads, unless these share a norm; of other writers
            what they write. The second and third axis have length 1 where all prompts, or all
            positions, have the same.
    """

    model: ResidualModel
    graph: Graph
    values: Mapping[str, Float[Tensor, "writer _batch _pos width"]]

    def of(self, block: Block) -> Float[Tensor, "writer _batch _pos d_model"]:
        """Return what the writers of a block write."""
        values = self.values[block.name]
        return _outputs(self.model, block, values) if is_z(block) else values

    def of_all(self, n_prompts: int, n_positions: int) -> Streams:
        """Return what all writers write, on this number of prompts and positions."""
        shape = (-1, n_prompts, n_positions, -1)
        return torch.cat([self.of(block).expand(*shape) for block in writing_blocks(self.graph)])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Written":
        """Return the same with all values changed."""
        return replace(self, values={name: change(v) for name, v in self.values.items()})

    def rows(self, rows: slice) -> "Written":
        """Return the same of some of the prompts."""
        return self.map(lambda values: values if values.shape[1] == 1 else values[:, rows])

    def __add__(self, other: "Written") -> "Written":
        return replace(self, values={n: v + other.values[n] for n, v in self.values.items()})

    def __sub__(self, other: "Written") -> "Written":
        return replace(self, values={n: v - other.values[n] for n, v in self.values.items()})


def _outputs(
    model: ResidualModel, block: Block, z: Float[Tensor, "head batch pos d_head"]
) -> Streams:
    with torch.no_grad():
        return model.output(block.layer, range(len(block.writers)), z)


def run_on(problem: Problem, tokens: Tensor) -> tuple[RecordedRun, Written]:
    """Run the model on some prompts, every edge kept, and return what every writer writes too."""
    model, graph = problem.model, problem.graph
    with torch.no_grad():
        embedding = embeddings(model, graph, tokens)
        run = RecordedRun(model, graph, problem.prompts.real)
        run.run(total(embedding))
    values = {graph.blocks[0].name: torch.stack(embedding), **run.values}
    for block in graph.blocks:
        if block.kind == "attention" and not is_z(block):
            values[block.name] = _outputs(model, block, values[block.name])
    return run, Written(model, graph, values)


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
