"""Edge scores from gradients: what an edge would carry instead, times the slope where it leads.

    score(w -> r) = mean over prompts of sum over positions of (c_w - a_w) . d loss / d x_r

Methods differ in where they take the slope: on the clean run, or averaged along a path towards the
corrupted one. A plan lists these places; each contributes its share of the scores of all edges, or
of the edges of one writer. Prompts are taken a batch at a time, and reader gradients a few dozen at
a time, so no tensor ever holds edges x prompts. Losses are summed over prompts and divided once by
their number, so scores do not depend on how prompts are batched.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.full_pass import embeddings
from circuitfind.engine.gradients import (
    ReaderGradients,
    Stream,
    TracedRun,
    segment_after,
)
from circuitfind.engine.readout import Readout
from circuitfind.engine.replacement import mean_over_prompts, replacement
from circuitfind.engine.written import Written, batches, total, writing_blocks, written_of
from circuitfind.errors import MethodError, MetricError, quoted
from circuitfind.graph import Block, Graph
from circuitfind.metrics import Metric
from circuitfind.problem import Problem

Table = Float[Tensor, "writer reader"]

_BATCH_FLOATS = 1 << 23
"""How many numbers the streams that enter all blocks may have together; 32 MiB in float32."""

_STREAMS_AT_ONCE = 48
"""How many reader gradients are gathered before they meet the writers' differences."""


@dataclass(frozen=True)
class Place:
    """A run at which slopes are taken.

    Attributes:
        share: 1 is the clean run; 0 replaces what `writer` writes, or what the embedding writes if
            no writer is given; numbers between mix the two.
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
        shape = problem.model.shape
        per_prompt = shape.n_layers * problem.prompts.clean.shape[1] * shape.d_model
        return max(1, _BATCH_FLOATS // per_prompt)


def attribute(
    problem: Problem,
    places: Sequence[Place],
    limits: Limits,
    earlier: tuple[int, Table] | None = None,
) -> Iterator[tuple[int, int, Table]]:
    """Score all edges, yielding after each run that was walked back.

    Args:
        problem: The problem.
        places: Where slopes are taken. Cheapest if a clean run comes first.
        limits: How much memory may be used.
        earlier: What an interrupted call last yielded, without the total.

    Yields:
        How many runs are done, how many there are in all, and the scores so far, in the metric's
        unit; positive: cutting the edge raises the loss. Complete with the last one.

    Raises:
        MethodError: A score is infinite or NaN; the message names the edge.
    """
    graph, size = problem.graph, limits.batch_for(problem)
    done, scores = earlier or (0, torch.zeros(graph.edge_mask.shape, dtype=torch.float64))
    n_runs = len(places) * -(-len(problem.prompts) // size)
    parts = batches(problem, size)
    mean = mean_over_prompts(parts)
    for number, batch in enumerate(parts):
        left = places[max(0, done - number * len(places)) :]
        if not left:
            continue
        at_work = Batch(batch, limits, mean, clean_first=left[0].share == 1)
        for place in left:
            added = at_work.scores(place) * (place.weight / len(problem.prompts))
            scores = scores + added
            _require_finite(graph, scores)
            done += 1
            yield done, n_runs, scores


class Batch:
    """Some prompts, with what their clean and corrupted runs hold ready.

    Args:
        problem: The problem, about these prompts alone.
        limits: How much memory may be used.
        mean: What `mean_over_prompts` gives for all prompts.
        clean_first: Whether slopes are first taken on the clean run.

    Attributes:
        differences: Replacement minus output of each writer.
    """

    def __init__(
        self, problem: Problem, limits: Limits, mean: Written | None, *, clean_first: bool
    ) -> None:
        self._problem, self._limits = problem, limits
        self._blocks = writing_blocks(problem.graph)
        with torch.no_grad():
            embedding = embeddings(problem.model, problem.graph, problem.prompts.clean)
        self._embedded = total(embedding)
        self._clean = self._new_run(traced=clean_first)
        final = self._clean.run(self._embedded)
        self.differences = replacement(problem, mean) - written_of(self._clean, embedding)
        self._clean.z, self._clean.mlps = [], []
        self._readout = Readout(problem, final)
        self._unused = clean_first

    def scores(self, place: Place) -> Table:
        """Return what one place contributes, summed over prompts."""
        rows = self._blocks if place.writer is None else [self._block_of[place.writer]]
        return self._contracted(self.walk(place), rows, place.writer)

    def walk(self, place: Place) -> Iterator[ReaderGradients]:
        """Return the gradients at what readers receive there, from the logits back."""
        if place.share == 1:
            run, final = self._clean_again()
        else:
            run = self._new_run(traced=True)
            final = run.run(*self._entering(place))
        return run.gradients(self._slope_at(final))

    def _new_run(self, *, traced: bool) -> TracedRun:
        problem = self._problem
        return TracedRun(
            problem.model,
            problem.graph,
            problem.prompts.real,
            checkpoint=self._limits.checkpoint,
            traced=traced,
        )

    def _clean_again(self) -> tuple[TracedRun, Stream]:
        run = self._clean
        if not self._unused:
            run = self._new_run(traced=True)
            run.run(self._embedded)
        self._unused = False
        return run, run.streams[-1]

    def _entering(self, place: Place) -> tuple[Stream, int]:
        """Return the stream with a writer's output mixed, and the segment that it enters."""
        missing = 1 - place.share
        if place.writer is None:
            return self._embedded + missing * self.differences.of(self._blocks[0]).sum(0), 0
        block = self._block_of[place.writer]
        first = segment_after(self._problem.graph, block.stage)
        row = block.writers.index(place.writer)
        return self._clean.streams[first] + missing * self.differences.of(block)[row], first

    @cached_property
    def _block_of(self) -> dict[int, Block]:
        return {writer: block for block in self._blocks for writer in block.writers}

    def _slope_at(self, final: Stream) -> Stream:
        """Return the gradient of the loss, summed over prompts, at what the logits read."""
        problem, leaf = self._problem, final.detach().requires_grad_()
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

    def _contracted(
        self, walk: Iterator[ReaderGradients], rows: Sequence[Block], writer: int | None
    ) -> Table:
        """Multiply gradients with differences, some dozen readers at a time."""
        scores = torch.zeros(self._problem.graph.edge_mask.shape, dtype=torch.float64)
        gathered: list[ReaderGradients] = []
        for found in walk:
            gathered.append(found)
            if sum(len(some.readers) for some in gathered) >= _STREAMS_AT_ONCE:
                self._meet(gathered, rows, scores)
                gathered = []
        self._meet(gathered, rows, scores)
        if writer is None:
            return scores
        alone = torch.zeros_like(scores)
        alone[writer] = scores[writer]
        return alone

    def _meet(
        self, gathered: Sequence[ReaderGradients], rows: Sequence[Block], scores: Table
    ) -> None:
        for block in rows:
            later = [found for found in gathered if found.stage > block.stage]
            if not later:
                continue
            difference = self.differences.of(block).flatten(1)
            for found in later:
                product = difference @ found.gradient.flatten(1).T
                columns = slice(found.readers.start, found.readers.stop)
                scores[list(block.writers), columns] += product.double().cpu()


def _require_finite(graph: Graph, scores: Table) -> None:
    bad = (graph.edge_mask & ~scores.isfinite()).nonzero()
    if len(bad):
        writer, reader = bad[0].tolist()
        name = f"{graph.writers[writer].name}->{graph.readers[reader].name}"
        raise MethodError(
            f"the score of {name} became {float(scores[writer, reader])}; choose a metric that "
            "stays finite on these prompts, or a wider number type"
        )


def require_slope(metric: Metric, method: str, *, at_clean_only: bool) -> None:
    """Refuse a metric whose gradient says nothing where a method takes it.

    Raises:
        MethodError: The message says why, and what to choose instead.
    """
    if metric.slope == "nowhere":
        raise MethodError(
            f"the metric {metric.name!r} changes in jumps and has no gradient, which the method "
            f"{method!r} needs; choose another metric, such as logit-difference or kl"
        )
    if at_clean_only and metric.slope == "not at the full model":
        raise MethodError(
            f"the gradient of {metric.name!r} is zero at the clean point, where it is smallest, so "
            f"{method!r} would score every edge 0; choose another metric (logit-difference, "
            "probability-difference, loss), or a method that takes gradients elsewhere (eap-ig)"
        )
