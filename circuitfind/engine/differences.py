"""What each writer would send along a cut edge less what it sends, formed a group at a time.

Stored are mixed values (`d_head` numbers a head and position); the stream-wide outputs of a block's
heads exist only while they are asked for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.full_pass import embeddings
from circuitfind.engine.gradients import TracedRun, Written, written_of
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


@dataclass(frozen=True)
class Outputs:
    """What writers write in one run, formed on demand."""

    model: ResidualModel
    written: Written

    def of(self, group: Group) -> Streams:
        """Return what the writers of a group write."""
        if group.kind == "embedding":
            return torch.stack(list(self.written.embedding))
        if group.kind == "mlp":
            return self.written.mlp[group.layer][None]
        queries = range(self.model.shape.n_heads)
        return self.model.output(group.layer, queries, self.written.z[group.layer])


@dataclass(frozen=True)
class Means:
    """What writers write on average over the corrupted prompts, at every position or at all."""

    by_group: dict[Group, Float[Tensor, "writer 1 _ d_model"]]

    def of(self, group: Group) -> Float[Tensor, "writer 1 _ d_model"]:
        """Return the means of a group."""
        return self.by_group[group]


class Differences:
    """What the writers of a problem would send along a cut edge less what they send.

    Args:
        problem: Gives the model and the ablation.
        clean: What they send.
        means: Their means, under the ablations that need them.
    """

    def __init__(self, problem: Problem, clean: Written, means: Means | None) -> None:
        self._clean: Outputs | None = Outputs(problem.model, clean)
        self._instead: Outputs | Means | None = means
        self._difference: Outputs | None = None
        if problem.ablation == "resample":
            corrupted = run_on(problem, problem.prompts.corrupted)
            if problem.model.shape.heads_share_norm:
                # What a head writes is then not linear in what it mixes.
                self._instead = Outputs(problem.model, corrupted)
            else:
                self._difference = Outputs(problem.model, _less(corrupted, clean))
                self._clean = None

    def of(self, group: Group) -> Streams:
        """Return the differences of a group of writers."""
        with torch.no_grad():
            if self._difference is not None:
                return self._difference.of(group)
            assert self._clean is not None
            clean = self._clean.of(group)
            return -clean if self._instead is None else self._instead.of(group) - clean


def _less(first: Written, second: Written) -> Written:
    def pairwise(one: Sequence[Tensor], other: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(a - b for a, b in zip(one, other, strict=True))

    return Written(
        pairwise(first.embedding, second.embedding),
        pairwise(first.z, second.z),
        pairwise(first.mlp, second.mlp),
    )


def run_on(problem: Problem, tokens: Tensor) -> Written:
    """Return what every writer writes on some prompts, every edge kept."""
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


def means_of(problem: Problem, size: int) -> Means | None:
    """Return the means over all corrupted prompts that the ablation asks for, or None."""
    if problem.ablation not in ("mean", "mean-over-positions"):
        return None
    axes = (1,) if problem.ablation == "mean" else (1, 2)
    sums: dict[Group, Tensor] = {}
    weight = torch.zeros((), dtype=torch.long, device=problem.model.device)
    for batch in batches(problem, size):
        outputs = Outputs(problem.model, run_on(batch, batch.prompts.corrupted))
        real = batch.prompts.real[None, :, :, None]
        weight = weight + real.sum(axes, keepdim=True)
        for group in groups(problem.graph):
            with torch.no_grad():
                added = outputs.of(group).masked_fill(~real, 0).sum(axes, keepdim=True)
            sums[group] = sums[group] + added if group in sums else added
    return Means({group: value / weight for group, value in sums.items()})
