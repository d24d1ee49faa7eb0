"""What all writers write on some prompts, or what their cut edges carry in place of it.

A head writes `d_model` elements a position, all of them made from the `d_head` elements of its z.
So heads are remembered by their z, and what they write exists only while it is asked for. Where
heads share a norm, what one writes depends on all of them, and is remembered itself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.full_pass import embeddings
from circuitfind.engine.gradients import Stream, TracedRun
from circuitfind.graph import Graph
from circuitfind.models.base import ResidualModel
from circuitfind.problem import Problem

Streams = Float[Tensor, "writer batch pos d_model"]


class Group(NamedTuple):
    """Writers whose outputs are formed together: the embeddings, a block's heads, or an MLP.

    Attributes:
        kind: `embedding`, `attention` or `mlp`.
        layer: The block; 0 for embeddings.
        writers: Their indices.
        stage: Their stage.
    """

    kind: str
    layer: int
    writers: range
    stage: int


def groups(graph: Graph) -> list[Group]:
    """Return all writers in groups, in the order of `Graph.writers`."""
    n_embeddings = sum(writer.stage == 0 for writer in graph.writers)
    found = [Group("embedding", 0, range(n_embeddings), 0)]
    for layer in range(graph.shape.n_layers):
        heads = graph.head_writers(layer)
        found.append(Group("attention", layer, heads, graph.writers[heads[0]].stage))
        if graph.shape.has_mlp:
            index = graph.writer_index[f"m{layer}"]
            found.append(Group("mlp", layer, range(index, index + 1), graph.writers[index].stage))
    return found


def is_z(graph: Graph, group: Group) -> bool:
    """Tell whether writers are remembered by their z."""
    return group.kind == "attention" and not graph.shape.heads_share_norm


@dataclass(frozen=True)
class Written:
    """What all writers write, or carry instead.

    Attributes:
        model: The model.
        graph: Its graph.
        values: z of heads, unless these share a norm; of other writers what they write. The second
            and third axis have length 1 where all prompts, or all positions, have the same.
    """

    model: ResidualModel
    graph: Graph
    values: Mapping[Group, Float[Tensor, "writer _ _ width"]]

    def of(self, group: Group) -> Float[Tensor, "writer _ _ d_model"]:
        """Return what a group of writers writes."""
        if not is_z(self.graph, group):
            return self.values[group]
        with torch.no_grad():
            heads = range(len(group.writers))
            return self.model.output(group.layer, heads, self.values[group])

    def of_all(self, n_prompts: int, n_positions: int) -> Streams:
        """Return what all writers write, on this number of prompts and positions."""
        shape = (-1, n_prompts, n_positions, -1)
        return torch.cat([self.of(group).expand(*shape) for group in groups(self.graph)])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Written":
        """Return the same with all values changed."""
        return replace(self, values={group: change(v) for group, v in self.values.items()})

    def rows(self, rows: slice) -> "Written":
        """Return the same of some of the prompts."""
        return self.map(lambda values: values if values.shape[1] == 1 else values[:, rows])

    def __add__(self, other: "Written") -> "Written":
        return replace(self, values={g: v + other.values[g] for g, v in self.values.items()})

    def __sub__(self, other: "Written") -> "Written":
        return replace(self, values={g: v - other.values[g] for g, v in self.values.items()})


def written_of(run: TracedRun, embedding: Sequence[Stream]) -> Written:
    """Return what all writers wrote in a run from its start."""
    values: dict[Group, Tensor] = {}
    for group in groups(run.graph):
        if group.kind == "embedding":
            values[group] = torch.stack(list(embedding))
        elif group.kind == "mlp":
            values[group] = run.mlp[group.layer][None]
        elif is_z(run.graph, group):
            values[group] = run.z[group.layer]
        else:
            heads = range(len(group.writers))
            with torch.no_grad():
                values[group] = run.model.output(group.layer, heads, run.z[group.layer])
    return Written(run.model, run.graph, values)


def run_on(problem: Problem, tokens: Tensor) -> Written:
    """Return what every writer writes on some prompts, every edge kept."""
    with torch.no_grad():
        embedding = embeddings(problem.model, problem.graph, tokens)
        run = TracedRun(problem.model, problem.graph, problem.prompts.real, traced=False)
        run.run(total(embedding))
    return written_of(run, embedding)


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
