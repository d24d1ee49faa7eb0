"""Edge scores from gradients: what an edge would carry instead, times the slope where it leads.

    score(w -> r) = mean over prompts of sum over positions of (c_w - a_w) . d loss / d x_r

Methods differ in where they take the slope: on the clean run, or averaged along a path towards the
corrupted one. A plan lists these places; each contributes its share of the scores of all edges, or
of the edges of one writer. Prompts are taken a batch at a time. Losses are summed over prompts and
divided once by their number, so scores do not depend on how prompts are batched.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby, islice
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.contraction import contracted
from circuitfind.engine.gradients import RecordedRun
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.memory import GRADIENTS_TOGETHER, attribution_batch
from circuitfind.engine.move_scores import add_move_scores
from circuitfind.engine.readout import Readout
from circuitfind.engine.received import BlockGradients
from circuitfind.engine.replacement import Runs, mean_over_prompts, runs_of
from circuitfind.engine.written import batches, fixed_errors
from circuitfind.errors import MetricError, quoted
from circuitfind.graph import Block
from circuitfind.methods.slopes import require_finite_scores
from circuitfind.models.forward import Stream
from circuitfind.models.rules import NO_RULES, Rules, ruled
from circuitfind.problem import HasProblem, Problem

Table = Float[Tensor, "writer reader"]


@dataclass(frozen=True)
class Place:
    """A run at which slopes are taken.

    Attributes:
        share: 1 is the clean run; 0 replaces what `writer` writes, or if no writer is given what
            those write that read nothing: the embedding, and errors of transcoders. Numbers between
            mix the two.
        weight: Factor on what this run contributes.
        writer: Index of the writer that is varied alone; only its own edges are scored.
    """

    share: float
    weight: float
    writer: int | None = None


@dataclass(frozen=True)
class Limits:
    """Limits on the memory that attribution uses.

    Attributes:
        batch: Prompts at a time; None chooses by the model's size.
        checkpoint: Whether the insides of MLPs are computed again rather than kept.
    """

    batch: int | None = None
    checkpoint: bool = False

    def batch_for(self, problem: Problem) -> int:
        """Return how many prompts are taken at a time."""
        if self.batch is not None:
            return self.batch
        return attribution_batch(problem.graph, problem.prompts.clean.shape[1])


def attribute(
    asked: HasProblem,
    places: Sequence[Place],
    limits: Limits,
    earlier: tuple[int, Table] | None = None,
    rules: Rules = NO_RULES,
) -> Iterator[tuple[int, int, Table]]:
    """Score all edges, yielding after each few runs that were walked back.

    Args:
        asked: The problem; or an engine of it, whose runs are then taken over.
        places: Where slopes are taken.
        limits: How much memory may be used.
        earlier: What an interrupted call last yielded, without the total.
        rules: By which gradients are passed on.

    Yields:
        How many runs are done, how many there are in all, and the scores so far, in the metric's
        unit; positive: cutting the edge raises the loss. Complete with the last one.

    Raises:
        MethodError: A score is infinite or NaN; the message names the edge.
    """
    problem = asked.problem
    done, scores = earlier or (0, torch.zeros(problem.graph.edge_mask.shape, dtype=torch.float64))
    size = limits.batch_for(problem)
    n_runs = len(places) * -(-len(problem.prompts) // size)
    for batch in batches_of(asked, limits, skip=done // len(places), rules=rules):
        for some in together(places[done % len(places) :]):
            scores = scores + batch.scores(some) / len(problem.prompts)
            require_finite_scores(problem.graph, scores)
            done += len(some)
            yield done, n_runs, scores


def together(places: Iterable[Place]) -> Iterator[list[Place]]:
    """Split places into a few at a time that vary the same writer."""
    for _, some in groupby(places, key=lambda place: place.writer):
        while held := list(islice(some, GRADIENTS_TOGETHER)):
            yield held


def batches_of(
    asked: HasProblem, limits: Limits, skip: int = 0, rules: Rules = NO_RULES
) -> Iterator["Batch"]:
    """Yield the prompts of a problem some at a time.

    Args:
        asked: The problem; or an engine of it, whose runs are then taken over.
        limits: How many prompts at a time.
        skip: How many batches to leave out at the beginning.
        rules: By which gradients are passed on.
    """
    problem, size = asked.problem, limits.batch_for(asked.problem)
    model = ruled(problem.model, rules)
    if isinstance(asked, IncrementalEngine):
        for first in range(skip * size, len(problem.prompts), size):
            rows = slice(first, first + size)
            part = replace(problem, prompts=problem.prompts.rows(rows), model=model)
            yield Batch(part, limits, asked.runs(rows))
        return
    parts = batches(problem, size)
    mean = mean_over_prompts(parts)
    for part in parts[skip:]:
        yield Batch(replace(part, model=model), limits, runs_of(part, mean))


class Batch:
    """Some prompts, with what their clean and corrupted runs hold ready.

    Args:
        problem: The problem, about these prompts alone.
        limits: How much memory may be used.
        runs: The runs between which its edges are cut.

    Attributes:
        problem: The problem.
        differences: Replacement minus output of each writer.
    """

    def __init__(self, problem: Problem, limits: Limits, runs: Runs) -> None:
        self.problem, self._limits = problem, limits
        self._runs, self._entering, self._final = runs, runs.entering, runs.final
        self.differences = runs.replaced - runs.clean
        self._errors = fixed_errors(runs.clean)
        self._readout = Readout(problem, runs.final)

    def scores(self, places: Sequence[Place]) -> Table:
        """Return what places that vary the same writer contribute, summed over prompts."""
        graph, writer = self.problem.graph, places[0].writer
        of_moves = torch.zeros(graph.edge_mask.shape, dtype=torch.float64)

        def walks() -> Iterator[_Walk]:
            # One at a time: what entered the blocks of a run is large.
            for place in places:
                walk = self._walk(place)
                if graph.moves:
                    add_move_scores(
                        self.problem, self._runs, walk.entering, walk.gradients, of_moves
                    )
                yield walk

        gradients = _total(walks())
        if writer is None:
            scores = contracted(self.differences, gradients, places=self.problem.places)
            return scores + of_moves
        scores = contracted(
            self.differences, gradients, [self._block_of(writer)], self.problem.places
        )
        alone = torch.zeros_like(scores)
        alone[writer] = scores[writer]
        return alone

    def gradients(self, places: Sequence[Place]) -> list[BlockGradients]:
        """Return the weighted sum of the gradients at some places, from the logits back."""
        return _total(self._walk(place) for place in places)

    def _walk(self, place: Place) -> "_Walk":
        known, errors = (self._entering, {}) if place.share == 1 else (None, self._errors_at(place))
        run = RecordedRun(
            self.problem.model,
            self.problem.graph,
            self.problem.prompts.real,
            known,
            trace=True,
            checkpoint=self._limits.checkpoint,
            errors=errors,
        )
        final = self._final if known is not None else run.run(*self._mixed(place))
        gradients = list(run.gradients(self._slope_at(final) * place.weight))
        return _Walk(run.entering, gradients)

    def _errors_at(self, place: Place) -> dict[str, Stream]:
        """Return the fixed errors, which are replaced by as much as the embedding is."""
        if place.writer is not None:
            return self._errors
        changes = fixed_errors(self.differences)
        return {
            name: error + (1 - place.share) * changes[name] for name, error in self._errors.items()
        }

    def _mixed(self, place: Place) -> tuple[Stream, int]:
        """Return the stream with a writer's output mixed, and the stage that it enters."""
        block = (
            self.problem.graph.blocks[0] if place.writer is None else self._block_of(place.writer)
        )
        stage = min(stage for stage in self._entering if stage > block.stage)
        differences = self.differences.of(block)
        if place.writer is None:
            difference = differences.sum(0)
        else:
            difference = differences[block.writers.index(place.writer)]
        return self._entering[stage] + (1 - place.share) * difference, stage

    def _block_of(self, writer: int) -> Block:
        graph = self.problem.graph
        return graph.block_of[graph.writers[writer].name]

    def _slope_at(self, final: Stream) -> Stream:
        """Return the gradient of the loss, summed over prompts, at what the logits read."""
        problem, leaf = self.problem, final.detach().requires_grad_()
        with torch.enable_grad():
            values = self._readout.values(leaf)
            loss = problem.metric.sign * values.double().sum()
        if not loss.requires_grad:
            raise MetricError(
                f"the metric {quoted(problem.metric.name)} has no gradient, which this method "
                "needs; compute it from the logits without `detach`, `item` or `argmax`, or choose "
                "a method that needs no gradient (acdc, exact)"
            )
        (slope,) = torch.autograd.grad(loss, leaf)
        return slope


class _Walk(NamedTuple):
    """A run that was walked back.

    Attributes:
        entering: What entered its blocks, by stage.
        gradients: The gradients, from the logits back.
    """

    entering: Mapping[int, Stream]
    gradients: list[BlockGradients]


def _total(walks: Iterable[_Walk]) -> list[BlockGradients]:
    """Return the sum of the gradients of some runs."""
    return reduce(_plus, (walk.gradients for walk in walks))


def _plus(one: list[BlockGradients], other: list[BlockGradients]) -> list[BlockGradients]:
    return [each + also for each, also in zip(one, other, strict=True)]
