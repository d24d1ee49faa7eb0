"""What cut edges carry, and how that differs from what they carry while they are kept.

The output bias of attention belongs to no head and is never replaced; an MLP's biases are part of
what it writes, and where latents take the output of attention apart, so is that of attention.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from operator import add, mul
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.ablations import corrupted
from circuitfind.engine.state import ChunkState, Stream
from circuitfind.engine.written import Part, Written, parts_of, run_on, write
from circuitfind.graph import Graph
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Heads, unowned_bias
from circuitfind.problem import Problem

_LITTLE = 0.1
"""Of the size of what a reader receives in the clean run: less is summed anew."""


def mean_over_prompts(parts: Sequence[Problem]) -> Written | None:
    """Return what all cut edges carry under an ablation that averages over pairs of prompts.

    Args:
        parts: The problem, or parts of it that hold some of the prompts each.

    Returns:
        None under ablations that give each pair of prompts its own replacement.
    """
    ablation = parts[0].ablation
    averages = "batch" in ablation.mean_over and ablation.constants is None
    return _mean(parts) if averages else None


def replacement(problem: Problem, mean: Written | None) -> Written:
    """Return what cut edges carry on a problem's prompts.

    Args:
        problem: The problem, or a part of it that holds some of its prompts.
        mean: What `mean_over_prompts` gives for the whole problem.
    """
    constants = problem.ablation.constants
    if constants is not None:
        return Written(problem.model, problem.graph, constants).at(problem.places)
    if mean is not None:
        return mean
    return _mean([problem]) if problem.ablation.mean_over else _sum_of_runs(problem)


def _sum_of_runs(problem: Problem) -> Written:
    parts = []
    for weight, tokens in problem.ablation.runs:
        _, run = run_on(problem, tokens(problem.prompts))
        alignment = problem.prompts.alignment
        if alignment is not None and tokens is corrupted:
            run = run.map(alignment.at_clean_positions)
        # Where nothing is to be multiplied, nothing is copied.
        parts.append(run if weight == 1 else run.map(partial(mul, weight)))
    return reduce(add, parts) if parts else _nothing(problem)


def _nothing(problem: Problem) -> Written:
    model, graph = problem.model, problem.graph
    found = {}
    for part in parts_of(graph):
        shape = len(part.writers), 1, 1, part.width(graph)
        found[part.name] = torch.zeros(shape, dtype=model.dtype, device=model.device)
    return Written(model, graph, found)


def _mean(parts: Sequence[Problem]) -> Written:
    over = parts[0].ablation.mean_over
    axes = [axis for name, axis in (("batch", 1), ("pos", 2)) if name in over]
    reals = [part.prompts.real[None, :, :, None] for part in parts]
    summed = reduce(
        add,
        (
            _sum_of_runs(part).map(partial(_summed, real=real, axes=axes))
            for part, real in zip(parts, reals, strict=True)
        ),
    )
    count = reduce(add, (real.sum(axes, keepdim=True) for real in reals))
    return summed.map(lambda values: values / count)


def _summed(values: Tensor, real: Tensor, axes: list[int]) -> Tensor:
    summed: Tensor = values.masked_fill(~real, 0).sum(axes, keepdim=True)
    return summed


@dataclass(frozen=True)
class Runs:
    """The runs between which edges are cut, on some prompts.

    Attributes:
        clean: What the writers write on the clean prompts.
        replaced: What cut edges carry.
        z: The z of all heads and units in the clean run, by the name of their block.
        entering: The streams of the clean run by the stage of the readers that receive them.
        real: True at positions that are no padding.
    """

    clean: Written
    replaced: Written
    z: Mapping[str, Heads]
    entering: Mapping[int, Stream]
    real: Bool[Tensor, "batch pos"]

    @property
    def model(self) -> ResidualModel:
        return self.clean.model

    @property
    def graph(self) -> Graph:
        return self.clean.graph

    @property
    def final(self) -> Stream:
        """What the logits read in the clean run."""
        return self.entering[self.graph.blocks[-1].stage]

    @cached_property
    def carried(self) -> Mapping[int, Stream]:
        """What readers receive where every edge is cut, by their stage."""
        return self.replaced.entering(self.final)

    def kept_by(self, keep: Callable[[dict[Any, Tensor]], dict[Any, Tensor]]) -> "Runs":
        """Return the same with all tensors kept elsewhere, those that are one as one."""
        parts: list[Mapping[Any, Tensor]]
        parts = [self.clean.values, self.replaced.values, self.z, self.entering]
        every = {(i, key): part[key] for i, part in enumerate(parts) for key in part}
        kept: list[dict[Any, Tensor]] = [{} for _ in parts]
        for (i, key), tensor in keep(every).items():
            kept[i][key] = tensor
        clean, replaced, z, entering = kept
        return Runs(
            replace(self.clean, values=clean),
            replace(self.replaced, values=replaced),
            z,
            entering,
            self.real,
        )

    def rows(self, rows: slice) -> "Runs":
        """Return the same of some of the prompts."""
        return Runs(
            self.clean.rows(rows),
            self.replaced.rows(rows),
            {name: z[:, rows] for name, z in self.z.items()},
            {stage: stream[rows] for stage, stream in self.entering.items()},
            self.real[rows],
        )


def joined_runs(parts: Sequence[Runs]) -> Runs:
    """Return the runs on the prompts of all parts."""
    if len(parts) == 1:
        return parts[0]

    def joined(written: Sequence[Written]) -> Written:
        found = {}
        for name in written[0].values:
            values = [each.values[name] for each in written]
            lengths = [
                (each.shape[1], len(part.real)) for each, part in zip(values, parts, strict=True)
            ]
            # Where all prompts have the same, there is nothing to join.
            alike = any(own != n_prompts for own, n_prompts in lengths)
            found[name] = values[0] if alike else torch.cat(values, dim=1)
        return replace(written[0], values=found)

    first = parts[0]
    return Runs(
        joined([part.clean for part in parts]),
        joined([part.replaced for part in parts]),
        {name: torch.cat([part.z[name] for part in parts], dim=1) for name in first.z},
        {stage: torch.cat([part.entering[stage] for part in parts]) for stage in first.entering},
        torch.cat([part.real for part in parts]),
    )


def runs_of(problem: Problem, mean: Written | None) -> Runs:
    """Make the runs of a problem, or of a part of it.

    Args:
        problem: The problem, or a part of it that holds some of its prompts.
        mean: What `mean_over_prompts` gives for the whole problem.
    """
    run, clean = run_on(problem, problem.prompts.clean)
    heads = [block.name for block in problem.graph.blocks if block.has_heads]
    z = {name: run.values[name] for name in heads}
    z |= {part.name: clean.values[part.name] for part in parts_of(problem.graph) if part.is_z}
    return Runs(clean, replacement(problem, mean), z, run.entering, problem.prompts.real)


class Gaps:
    """The changes that cuts make: replacement minus current output, formed on demand.

    What a head or a unit writes exists only while a few candidates need it.

    Args:
        replaced: What cut edges carry.
        most_formed: How many elements of changes of heads' outputs are remembered at most.
    """

    def __init__(self, replaced: Written, most_formed: int) -> None:
        self._model, self._most_formed = replaced.model, most_formed
        # By writer: which part it is of, its number among the writers of the block, and its z.
        self._mixed: dict[int, tuple[Part, int, Float[Tensor, "_batch _pos _"]]] = {}
        self._others: dict[int, Float[Tensor, "_batch _pos d_model"]] = {}
        for part in parts_of(replaced.graph):
            values = dict(zip(part.writers, replaced.values[part.name], strict=True))
            if part.is_z:
                each = zip(values.items(), part.rows, strict=True)
                self._mixed |= {writer: (part, place, z) for (writer, z), place in each}
            else:
                self._others |= values
        # Each with the state's z that it belongs to: the readers of one block ask for the same
        # ones again and again.
        self._formed: dict[tuple[int, int], tuple[Tensor, Stream]] = {}
        self._held = 0

    def of(self, state: ChunkState, writers: Sequence[int], span: int) -> Iterator[Stream]:
        """Yield the change of cutting an edge of each writer, at the last positions."""
        for writer in writers:
            if writer in self._mixed:
                yield self._of_mixed(state, writer, span)
            else:
                yield self._others[writer][:, -span:] - state.written[writer][:, -span:]

    def _of_mixed(self, state: ChunkState, writer: int, span: int) -> Stream:
        found = self._formed.get((writer, span))
        if found is not None and found[0] is state.z[writer]:
            return found[1]
        part, place, replaced = self._mixed[writer]
        z = replaced[:, -span:] - state.z[writer][:, -span:]
        # One writer at a time: what else is asked for must not change the last bit.
        gap: Stream = write(self._model, part.block, [place], z[None])[0]
        if found is None and self._held + gap.numel() <= self._most_formed:
            self._held += gap.numel()
            self._formed[writer, span] = state.z[writer], gap
        elif found is not None:
            self._formed[writer, span] = state.z[writer], gap
        return gap


def enlarges_rounding(problem: Problem) -> bool:
    """Tell whether rounding could grow to the size of what components write.

    Where cut edges carry 0, a component may receive nothing. What is left when a stream is
    subtracted from itself is not quite 0, and two norms in a row (Gemma 2) turn that into a stream
    of ordinary size. Latents of attention or of the stream and their error are large and cancel one
    another, and leave more behind.
    """
    graph = problem.graph
    cancels = any(units.of != "mlp" for units in graph.units)
    return not problem.ablation.runs and (graph.norms_heads or cancels)


class Remainders:
    """What readers receive when nearly all of it is cut, summed from what is kept.

    To be used where `enlarges_rounding`: what is left of a stream when the rest is subtracted keeps
    the rounding of the whole.

    Args:
        runs: The runs between which edges are cut.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def exact(self, reader: int, received: Stream, sent: Callable[[], Iterator[Stream]]) -> Stream:
        """Return what a reader receives.

        Args:
            reader: Its index in the merged graph.
            received: The same, as it was reached by subtracting.
            sent: Yields what the writers of its kept edges write, at the same positions or more.
        """
        graph, model, span = self._runs.graph, self._runs.model, received.shape[1]
        stage = graph.merged.readers[reader].stage
        whole = self._runs.entering[stage][:, -span:]
        little = received.norm(dim=-1) < _LITTLE * whole.norm(dim=-1)
        if not bool(little.any()):
            return received
        total = torch.zeros_like(received)
        since = graph.merged.readers[reader].since
        for block in graph.blocks:
            if since <= block.stage < stage and (bias := unowned_bias(model, block)) is not None:
                total = total + bias
        return reduce(add, (stream[:, -span:] for stream in sent()), total)
