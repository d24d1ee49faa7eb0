"""What a cut edge carries less what it carries while it is kept, formed when it is asked for.

A head writes `d_model` numbers a position, all of them made from the `d_head` numbers that it
mixes. So heads are remembered by what they mix, and what they write exists only while a few
candidates need it. Where heads share a norm, what one writes depends on all of them, and is
remembered itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.differences import Outputs, groups, run_on, total
from circuitfind.engine.state import ChunkState, Stream
from circuitfind.problem import Problem


@dataclass(frozen=True)
class Carried:
    """What cut edges carry.

    Attributes:
        z: What is mixed in place of what a head mixes, by writer index; empty where heads share a
            norm.
        streams: What is written in place of what any other writer writes.
    """

    z: Mapping[int, Float[Tensor, "_ _ d_head"]]
    streams: Mapping[int, Float[Tensor, "_ _ d_model"]]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Carried":
        """Return the same with every tensor changed."""
        changed = ({k: change(v) for k, v in part.items()} for part in (self.z, self.streams))
        return Carried(*changed)


@dataclass(frozen=True)
class Gaps:
    """The changes that cuts make.

    Attributes:
        problem: What is asked.
        carried: What cut edges carry.
        most_formed: How many numbers of formed gaps of heads are remembered at most.
        formed: Those, each with the state's mixed values that it belongs to: the readers of one
            block ask for the same ones again and again.
    """

    problem: Problem
    carried: Carried
    most_formed: int
    formed: dict[tuple[int, int], tuple[Tensor, Stream]] = field(default_factory=dict, repr=False)

    def of(self, state: ChunkState, writers: Sequence[int], span: int) -> Iterator[Stream]:
        """Yield the change of cutting an edge of each writer, at the last positions."""
        for writer in writers:
            if writer in self.carried.z:
                yield self._of_head(state, writer, span)
            else:
                yield self.carried.streams[writer][:, -span:] - state.written[writer][:, -span:]

    def replacement(self, rows: slice) -> Float[Tensor, "writer batch pos d_model"]:
        """Return what each writer's cut edges carry, for some of the prompts."""
        shape = self.problem.prompts.clean[rows].shape
        found = []
        for group in groups(self.problem.graph):
            of_heads = group.writers[0] in self.carried.z
            kept = self.carried.z if of_heads else self.carried.streams
            values = torch.stack([_of_prompts(kept[writer], rows) for writer in group.writers])
            values = values.expand(-1, *shape, -1)
            heads = range(len(group.writers))
            found.append(self._output(group.layer, heads, values) if of_heads else values)
        return torch.cat(found)

    def _of_head(self, state: ChunkState, writer: int, span: int) -> Stream:
        found = self.formed.get((writer, span))
        if found is not None and found[0] is state.z[writer]:
            return found[1]
        head = self.problem.graph.writers[writer]
        assert head.layer is not None and head.index is not None
        z = self.carried.z[writer][:, -span:] - state.z[writer][:, -span:]
        # One head at a time: what else is asked for must not change the last bit.
        gap = self._output(head.layer, [head.index], z[None])[0]
        if found is not None or self._room(gap):
            self.formed[writer, span] = state.z[writer], gap
        return gap

    def _room(self, gap: Stream) -> bool:
        held = sum(known.numel() for _, known in self.formed.values())
        return held + gap.numel() <= self.most_formed

    def _output(self, layer: int, heads: Sequence[int], z: Tensor) -> Tensor:
        return self.problem.model.output(layer, heads, z)


def carried(chunks: Sequence[Problem]) -> Iterator[Carried]:
    """Yield what cut edges carry, for some of a problem's prompts after the other.

    Means are taken over the prompts of all of them. The output bias of attention belongs to no
    writer and is never replaced; an MLP's biases are part of what it writes.
    """
    if chunks[0].ablation == "resample":
        yield from map(_corrupted, chunks)
    elif chunks[0].ablation == "zero":
        yield from (_corrupted(chunk).map(_nothing) for chunk in chunks)
    else:
        means = _means(chunks)
        yield from (means for _ in chunks)


def _corrupted(problem: Problem) -> Carried:
    """Return what writers give on the corrupted prompts."""
    written = run_on(problem, problem.prompts.corrupted)
    outputs = Outputs(problem.model, written)
    z: dict[int, Tensor] = {}
    streams: dict[int, Tensor] = {}
    for group in groups(problem.graph):
        if group.kind == "attention" and not problem.graph.shape.heads_share_norm:
            z |= dict(zip(group.writers, written.z[group.layer], strict=True))
        else:
            streams |= dict(zip(group.writers, outputs.of(group), strict=True))
    return Carried(z, streams)


def _means(chunks: Sequence[Problem]) -> Carried:
    """Return the mean of what writers give on all corrupted prompts, at each position or at all."""
    axes = (0,) if chunks[0].ablation == "mean" else (0, 1)
    reals = [chunk.prompts.real[:, :, None] for chunk in chunks]
    summed = reduce(
        _added,
        (
            _corrupted(chunk).map(partial(_summed, real=real, axes=axes))
            for chunk, real in zip(chunks, reals, strict=True)
        ),
    )
    count = total(real.sum(axes, keepdim=True) for real in reals)
    return summed.map(lambda values: values / count)


def _nothing(values: Tensor) -> Tensor:
    return values.new_zeros(1, 1, values.shape[-1])


def _summed(values: Tensor, real: Tensor, axes: tuple[int, ...]) -> Tensor:
    return values.masked_fill(~real, 0).sum(axes, keepdim=True)


def _added(first: Carried, second: Carried) -> Carried:
    def pairwise(one: Mapping[int, Tensor], other: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {writer: one[writer] + other[writer] for writer in one}

    return Carried(pairwise(first.z, second.z), pairwise(first.streams, second.streams))


def _of_prompts(values: Float[Tensor, "batch _ _"], rows: slice) -> Float[Tensor, "some _ _"]:
    """Select prompts, unless one row stands for all."""
    return values if len(values) == 1 else values[rows]
