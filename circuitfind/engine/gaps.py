"""What a cut edge carries less what it carries while it is kept, formed when it is asked for.

A head writes `d_model` numbers a position, all of them made from the `d_head` numbers that it
mixes. So heads are remembered by what they mix, and what they write exists only while a few
candidates need it. Where heads share a norm, what one writes depends on all of them, and is
remembered itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.differences import Outputs, groups, run_on
from circuitfind.engine.state import EngineState
from circuitfind.problem import Problem

Stream = Float[Tensor, "batch _ d_model"]

_REMEMBERED_FLOATS = 1 << 25
"""How many numbers of formed gaps are remembered; 128 MiB in float32."""


@dataclass(frozen=True)
class Gaps:
    """The changes that cuts make.

    Attributes:
        problem: What is asked.
        z: What is mixed in place of what a head mixes, by writer index; empty where heads share a
            norm.
        streams: What a cut edge carries, of all other writers.
        formed: Gaps of heads that fit into a bounded memory, each with the state's mixed values
            that it belongs to: the readers of one block ask for the same ones again and again.
    """

    problem: Problem
    z: Mapping[int, Float[Tensor, "_ _ d_head"]]
    streams: Mapping[int, Float[Tensor, "_ _ d_model"]]
    formed: dict[tuple[int, int], tuple[Tensor, Stream]] = field(default_factory=dict, repr=False)

    def of(self, state: EngineState, writers: Sequence[int], span: int) -> Iterator[Stream]:
        """Yield the change of cutting an edge of each writer, at the last positions."""
        for writer in writers:
            if writer in self.z:
                yield self._of_head(state, writer, span)
            else:
                yield self.streams[writer][:, -span:] - state.written[writer][:, -span:]

    def replacement(self, rows: slice) -> Float[Tensor, "writer batch pos d_model"]:
        """Return what each writer's cut edges carry, for some of the prompts."""
        shape = self.problem.prompts.clean[rows].shape
        found = []
        for group in groups(self.problem.graph):
            of_heads = group.writers[0] in self.z
            kept = self.z if of_heads else self.streams
            values = torch.stack([_of_prompts(kept[writer], rows) for writer in group.writers])
            values = values.expand(-1, *shape, -1)
            heads = range(len(group.writers))
            found.append(self._output(group.layer, heads, values) if of_heads else values)
        return torch.cat(found)

    def _of_head(self, state: EngineState, writer: int, span: int) -> Stream:
        found = self.formed.get((writer, span))
        if found is not None and found[0] is state.z[writer]:
            return found[1]
        head = self.problem.graph.writers[writer]
        assert head.layer is not None and head.head is not None
        z = self.z[writer][:, -span:] - state.z[writer][:, -span:]
        # One head at a time: what else is asked for must not change the last bit.
        gap = self._output(head.layer, [head.head], z[None])[0]
        if found is not None or self._room(gap):
            self.formed[writer, span] = state.z[writer], gap
        return gap

    def _room(self, gap: Stream) -> bool:
        held = sum(known.numel() for _, known in self.formed.values())
        return held + gap.numel() <= _REMEMBERED_FLOATS

    def _output(self, layer: int, heads: Sequence[int], z: Tensor) -> Tensor:
        return self.problem.model.output(layer, heads, z)


def gaps_of(problem: Problem) -> Gaps:
    """Find out what cut edges carry under the problem's ablation.

    The output bias of attention belongs to no writer and is never replaced; an MLP's biases are
    part of what it writes.
    """
    written = run_on(problem, problem.prompts.corrupted)
    outputs = Outputs(problem.model, written)
    z: dict[int, Tensor] = {}
    streams: dict[int, Tensor] = {}
    for group in groups(problem.graph):
        if group.kind == "attention" and not problem.graph.shape.heads_share_norm:
            z |= _by_writer(group.writers, written.z[group.layer], problem)
        else:
            streams |= _by_writer(group.writers, outputs.of(group), problem)
    return Gaps(problem, z, streams)


def _by_writer(
    writers: range, corrupted: Float[Tensor, "writer batch pos _"], problem: Problem
) -> dict[int, Tensor]:
    """Turn what writers give on the corrupted prompts into what cut edges give."""
    real = problem.prompts.real[None, :, :, None]
    if problem.ablation == "resample":
        carried = corrupted
    elif problem.ablation == "zero":
        carried = torch.zeros_like(corrupted[:, :1, :1])
    else:
        axes = (1,) if problem.ablation == "mean" else (1, 2)
        total = corrupted.masked_fill(~real, 0).sum(axes, keepdim=True)
        carried = total / real.sum(axes, keepdim=True)
    return dict(zip(writers, carried, strict=True))


def _of_prompts(values: Float[Tensor, "batch _ _"], rows: slice) -> Float[Tensor, "some _ _"]:
    """Select prompts, unless one row stands for all."""
    return values if len(values) == 1 else values[rows]
