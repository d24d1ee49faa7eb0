"""Cut one edge after another, re-running only what each cut can change.

A full pass per candidate makes a search slow: GPT-2 small has 32,491 edges, and cutting one
changes nothing before its reader. The engine remembers a run and continues it (`chunk.py`). Where
that takes more memory than there is, the prompts are taken in chunks and what is remembered is kept
in files. The metric is measured prompt by prompt, and the values of all prompts come together again
in their order, so averages are over all prompts, whatever the chunks.

States are values: cutting returns a new one and leaves the old one usable, so a search tries a cut
and keeps whichever state it prefers. There is nothing to undo. States share the tensors that did
not change.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.engine.candidates import FIRST_WIDTH, Test, candidates_at_once, next_width
from circuitfind.engine.chunk import Asked, ChunkEngine, Values, chunk_engines, pairs_of
from circuitfind.engine.hiring import hired
from circuitfind.engine.horizon import horizon
from circuitfind.engine.in_turn import Exactly, IsCut, WithBounds, are_enough
from circuitfind.engine.memory import plan
from circuitfind.engine.readout import Readout
from circuitfind.engine.remote import RemoteChunk, RemoteState
from circuitfind.engine.replacement import Runs, joined_runs
from circuitfind.engine.state import Candidates, ChunkState, Stream
from circuitfind.engine.work import Start
from circuitfind.graph import Edge, EdgeName, listed
from circuitfind.metrics import Metric, Scale
from circuitfind.problem import HasProblem, Problem, as_problem
from circuitfind.workers.crew import ALONE, Workers

_DRIFT = {torch.float64: 1e-6, torch.float32: 1e-5}
"""Largest drift that rounding explains, by the type of the streams, relative to the final stream.
Norms of Hugging Face models round to float32 even where everything else is float64."""


SearchedChunk = ChunkEngine | RemoteChunk
"""Prompts on which cuts are evaluated, here or by a worker."""


@dataclass(frozen=True)
class EngineState:
    """A forward pass with some edges cut, on all prompts.

    Attributes:
        chunks: The pass on the prompts of each chunk.
    """

    chunks: tuple[ChunkState | RemoteState, ...]

    def __repr__(self) -> str:
        return f"<EngineState: {int(self.kept.sum())} edges kept>"

    @property
    def kept(self) -> NDArray[np.bool_]:
        """True where an edge is kept."""
        return self.chunks[0].kept

    @property
    def mask(self) -> Tensor:
        """The kept edges as a tensor."""
        return torch.from_numpy(self.kept.copy())

    @property
    def final(self) -> Stream:
        """What the logits read, at the last positions or all."""
        return _joined([chunk.final for chunk in self.chunks], dim=0)

    @property
    def live_readers(self) -> NDArray[np.bool_]:
        """For each reader, whether a path of kept edges leads from it to the logits."""
        return self.chunks[0].spans.readers > 0


@dataclass(frozen=True)
class Tried:
    """Candidates that were evaluated.

    Attributes:
        engine: What evaluated them.
        n: How many there are.
        chunks: The candidates on the prompts of each chunk.
    """

    engine: "IncrementalEngine"
    n: int
    chunks: tuple[Any, ...]

    @property
    def final(self) -> Candidates:
        """What the logits read in each of them, at the last positions or all."""
        finals: list[Candidates] = [part.final for part in self.chunks]
        return _joined(finals, dim=1)

    def losses(self, first: int = 0) -> Iterator[float]:
        """Yield each candidate's loss from one on, measuring some candidates at a time.

        Whoever stops asking, because a candidate settled the matter, saves the logits of the rest.
        """
        together = min(chunk.together for chunk in self.engine.searched)
        for start in range(first, self.n, together):
            some = slice(start, start + together)
            parts = [chunk.values_of(part, some) for chunk, part in self._parts()]
            yield from self.engine.problem.metric.loss(_answered(parts)).tolist()

    def pick(self, candidate: int, kept: NDArray[np.bool_]) -> EngineState:
        """Return one candidate as a state; `kept` says which edges it keeps."""
        return EngineState(
            tuple(chunk.pick(part, candidate, kept) for chunk, part in self._parts())
        )

    def _parts(self) -> Iterator[tuple[SearchedChunk, Any]]:
        return zip(self.engine.searched, self.chunks, strict=True)


class IncrementalEngine:
    """Answers what happens when edges are cut, for one problem.

    Args:
        problem: The problem.
        memory: How many bytes a search may take beside the model, also as text like `2GB`; by
            default what it takes.
        workers: Who evaluates cuts in a context that is `staffed`.

    Attributes:
        problem: The problem.
        graph: Its graph.
        horizon: How many positions can matter at all.
        chunks: What answers for the prompts of each chunk.
        searched: What evaluates cuts for each chunk: the same, or workers.
        clean_final: The full graph's final stream on the clean prompts.
        readout: Turns final streams into metric values.

    Raises:
        MethodError: The memory is too small for a single pair of prompts.
    """

    def __init__(
        self,
        problem: Problem,
        memory: int | str | None = None,
        workers: Workers = ALONE,
    ) -> None:
        self.problem = problem = as_problem(problem)
        self.graph = problem.graph
        self.horizon = horizon(problem)
        self.workers = workers
        self._plan = plan(problem, memory, workers.shares or workers.n)
        self.chunks = chunk_engines(problem, self._plan)
        self.searched: Sequence[SearchedChunk] = self.chunks
        self._hire: Callable[[], Sequence[SearchedChunk]] | None = None
        self.clean_final: Stream = _joined([chunk.runs.final for chunk in self.chunks], dim=0)
        only = len(self.chunks) == 1
        self.readout = self.chunks[0].readout if only else Readout(problem, self.clean_final)
        self._readouts: dict[str, Readout] = {}

    def __repr__(self) -> str:
        return f"<IncrementalEngine of {self.problem!r}, prompts in {len(self.chunks)} chunks>"

    @property
    def most_candidates(self) -> int:
        """How many candidates are evaluated at once at most."""
        final = len(self.clean_final) * self.horizon.steps * self.graph.shape.d_model
        return min(self.chunks[0].most_candidates, candidates_at_once(final))

    def runs(self, rows: slice) -> Runs:
        """Return the runs between which edges are cut, on some of the prompts."""
        if len(self.chunks) == 1:
            return self.chunks[0].runs.rows(rows)
        parts, first = [], 0
        for chunk in self.chunks:
            n = len(chunk.problem.prompts)
            start, stop = (min(max(end - first, 0), n) for end in (rows.start, rows.stop))
            if start < stop:
                parts.append(chunk.runs.rows(slice(start, stop)))
            first += n
        return joined_runs(parts)

    @contextmanager
    def staffed(self) -> Iterator[None]:
        """Have the workers evaluate cuts in this context, from the first full graph on.

        States of this context are worth nothing after it.

        Raises:
            WorkerError: The problem cannot be sent to workers, or they are lost again and again.
        """
        with ExitStack() as stack:
            if self.workers.ray is not None or self.workers.n > 1:
                self._hire = lambda: stack.enter_context(
                    hired(self.workers, self.problem, self._plan, self.chunks)
                )
            try:
                yield
            finally:
                self._hire, self.searched = None, self.chunks

    def start(self) -> EngineState:
        """Return the full graph: every edge kept."""
        if self._hire is not None:
            self.searched, self._hire = self._hire(), None
        return EngineState(tuple(chunk.start() for chunk in self.searched))

    def start_from(self, kept: Tensor) -> EngineState:
        """Return the state with just these edges kept."""
        self.graph.require_mask(kept)
        return self.cut(self.start(), pairs_of((self.graph.edge_mask & ~kept.cpu()).numpy()))

    def recomputed(
        self, kept: Tensor, start: Start | None = None, first: int | None = None
    ) -> Stream:
        """Return the final stream with just these edges kept, computed from scratch.

        Args:
            kept: The edges.
            start: The run to start from (see `masked_pass`); by default the one that is less work.
            first: On how many of the first pairs of prompts at most; by default on all.
        """
        if first is not None:
            return self.chunks[0].passes(slice(first)).final(kept, start)
        return _joined([chunk.passes().final(kept, start) for chunk in self.chunks], dim=0)

    def finals(
        self, masks: Sequence[Bool[Tensor, "writer reader"]], start: Start | None = None
    ) -> Iterator[Stream]:
        """Yield the final stream of each mask where the metric reads it, computed from scratch.

        Args:
            masks: The masks.
            start: The run to start from (see `masked_pass`); by default the one that is less work.
        """
        passes = [chunk.passes() for chunk in self.chunks]
        for kept in masks:
            self.graph.require_mask(kept)
            parts = [each.final(kept, start)[:, -self.horizon.steps :] for each in passes]
            yield _joined(parts, dim=0)
            if len(passes) > 1:
                # What passes start from is remembered with them, and chunks are there to save it.
                passes = [chunk.passes() for chunk in self.chunks]

    def measure(
        self, masks: Sequence[Bool[Tensor, "writer reader"]], metric: Metric | None = None
    ) -> Float[Tensor, "mask prompt"]:
        """Return a metric of circuits on each prompt, in float64.

        Args:
            masks: The circuits.
            metric: The metric; by default the problem's own.
        """
        readout = self.readout_of(metric or self.problem.metric)
        with torch.no_grad():
            values = [readout.by_prompt(final).cpu() for final in self.finals(masks)]
        n_prompts = self.problem.prompts.n_prompts
        return torch.stack(values) if values else torch.zeros(0, n_prompts, dtype=torch.float64)

    def measure_cuts(
        self, kept: Bool[Tensor, "writer reader"], skip: Container[int] = ()
    ) -> Iterator[tuple[int, Float[Tensor, "edge prompt"]]]:
        """Yield the problem's metric of a circuit without each of its edges, reader by reader.

        Args:
            kept: The circuit.
            skip: Readers to leave out.

        Yields:
            The reader, and the values without each edge into it, in the order of the writers.
        """
        left = [
            (reader, column.nonzero().flatten().tolist())
            for reader, column in enumerate(kept.cpu().T)
            if bool(column.any()) and reader not in skip
        ]
        if not left:
            return
        state, (whole,) = self.start_from(kept), self.measure([kept])
        before = self._measured(state.final)
        for reader, writers in left:
            changes = []
            for first in range(0, len(writers), self.most_candidates):
                finals = self.cut_each(state, reader, writers[first : first + self.most_candidates])
                changes += [self._measured(final) - before for final in finals.final]
            # Beside the circuit from scratch, which rounds otherwise: no change is exactly none.
            yield reader, whole + torch.stack(changes)

    def _measured(self, final: Stream) -> Float[Tensor, " prompt"]:
        with torch.no_grad():
            return self.readout.by_prompt(final).cpu()

    def readout_of(self, metric: Metric) -> Readout:
        """Return what turns final streams into a metric's values."""
        if metric is self.problem.metric:
            return self.readout
        if metric.name not in self._readouts or self._readouts[metric.name].metric is not metric:
            problem = replace(self.problem, metric=metric, default_metric=None)
            self._readouts[metric.name] = Readout(problem, self.clean_final)
        return self._readouts[metric.name]

    @cached_property
    def scale(self) -> Scale:
        """The problem's metric of the full and of the empty graph."""
        everything = self.graph.edge_mask
        ends = self.measure([everything, torch.zeros_like(everything)]).mean(dim=1)
        return Scale(*ends.tolist())

    def faithfulness(self, kept: Bool[Tensor, "writer reader"]) -> float:
        """Return a circuit's faithfulness by the problem's own metric.

        Raises:
            MetricError: The metric is the same in the full and the empty graph.
        """
        return self.scale.faithfulness(float(self.measure([kept]).mean()))

    def loss(self, state: EngineState) -> float:
        """Return the loss of a state: the metric's mean over prompts, lower is better."""
        parts = [chunk.values(part) for chunk, part in self._with(state)]
        return float(self.problem.metric.loss(_answered(parts)))

    def cut(self, state: EngineState, edges: str | Edge | Iterable[EdgeName]) -> EngineState:
        """Return the state with these edges cut as well; edges already cut stay so.

        Raises:
            GraphError: There is no such edge.
        """
        pairs = [self.graph.index(edge) for edge in listed(edges)]
        return EngineState(tuple(chunk.cut(part, pairs) for chunk, part in self._with(state)))

    def cut_nested(self, state: EngineState, reader: int, writers: Sequence[int]) -> Tried:
        """Evaluate cutting a reader's first edge, its first two, and so on."""
        return self._tried(state, reader, writers, nested=True)

    def cut_each(self, state: EngineState, reader: int, writers: Sequence[int]) -> Tried:
        """Evaluate cutting each of a reader's edges alone."""
        return self._tried(state, reader, writers, nested=False)

    def tests(
        self,
        state: EngineState,
        reader: int,
        writers: Sequence[int],
        before: float | None = None,
        bounded: IsCut | None = None,
    ) -> Iterator[Test]:
        """Cut a reader's edges one after another, each without those before it that stay cut.

        Many edges are evaluated at a time: the first one cut, the first two, and so on. Up to the
        first edge that is kept these are the very states that testing one by one would meet; what
        comes after it is evaluated again. Their number grows while edges stay cut.

        Args:
            state: What the tests start from.
            reader: Index of the reader.
            writers: Where the edges come from, in the order of the tests.
            before: The loss of the state, where it is known.
            bounded: The rule by which edges are cut, if bounds may take the place of losses that
                cannot change what it says.

        Yields:
            A test after the other. Set its `kept` before taking the next one to put its edge back.
        """
        in_turn = self._in_turn(state, len(writers), before, bounded)
        done, width = 0, FIRST_WIDTH
        while done < len(writers):
            width = min(width, self.most_candidates)
            batch = writers[done : done + width]
            tried = self.cut_nested(state, reader, batch)
            names = [self._edge_name(writer, reader) for writer in batch]
            gone, any_kept = 0, False
            streams = partial(_with_start, state, tried)
            for test in in_turn.tests(names, tried.losses, streams):
                yield test
                any_kept = test.kept
                gone += not any_kept
            if gone:
                kept = state.kept.copy()
                kept[batch[:gone], reader] = False
                state = tried.pick(gone - 1, kept)
            done += gone + any_kept
            width = next_width(width, any_kept=any_kept)

    def _in_turn(
        self, state: EngineState, n: int, before: float | None, bounded: IsCut | None
    ) -> Exactly | WithBounds:
        # Workers hold their own streams, and send values only.
        is_here = self.searched is self.chunks
        if bounded is not None and is_here and are_enough(n) and self.readout.can_bound:
            return WithBounds(self.readout, bounded, state.final, n)
        return Exactly(self.loss(state) if before is None else before)

    def tests_alone(
        self, state: EngineState, reader: int, writers: Sequence[int]
    ) -> Iterator[Test]:
        """Cut each of a reader's edges alone."""
        before = self.loss(state)
        for first in range(0, len(writers), self.most_candidates):
            batch = writers[first : first + self.most_candidates]
            losses = self.cut_each(state, reader, batch).losses()
            for writer, after in zip(batch, losses, strict=True):
                yield Test(self._edge_name(writer, reader), before, after)

    def _edge_name(self, writer: int, reader: int) -> str:
        return Edge(self.graph.writers[writer], self.graph.readers[reader]).name

    def gap(self, state: EngineState, writer: int) -> Stream:
        """Return what a writer's cut edges carry less what it writes, where that can change."""
        span = self.horizon.changes
        parts: Iterator[Any] = zip(self.chunks, state.chunks, strict=True)
        return _joined([next(c.gaps.of(part, [writer], span)) for c, part in parts], 0)

    def _tried(
        self, state: EngineState, reader: int, writers: Sequence[int], *, nested: bool
    ) -> Tried:
        parts = [c.tried(part, reader, writers, nested=nested) for c, part in self._with(state)]
        return Tried(self, len(writers), tuple(parts))

    def _with(self, state: EngineState) -> Iterator[tuple[SearchedChunk, Any]]:
        return zip(self.searched, state.chunks, strict=True)

    def drift(self, state: EngineState) -> float:
        """Return how far a state is from a pass from scratch.

        That pass is not a search gone through again: states are reached by cutting down the clean
        run, and this one is built up from what cut edges carry. The distance is that of the final
        streams where the metric reads them, relative to the norm of the full graph's: a state's own
        may be 0, where everything is cut under zero ablation.
        """
        real = self.problem.prompts.step_is_real
        scratch = self.recomputed(state.mask, "replaced")
        found, expected, full = (
            self.readout.at_steps(final)[real] for final in (state.final, scratch, self.clean_final)
        )
        return float((found - expected).norm() / full.norm())

    @property
    def drift_allowed(self) -> float:
        """The largest drift that the rounding of thousands of updates explains."""
        return _DRIFT[self.problem.model.dtype]

    @cached_property
    def replacement(self) -> Float[Tensor, "writer batch pos d_model"]:
        """What each writer sends along a cut edge."""
        return _joined([chunk.replacement for chunk in self.chunks], dim=1)


def as_engine(asked: HasProblem, memory: int | str | None = None) -> IncrementalEngine:
    """Return the engine of what a search found, or an engine of a problem.

    Args:
        asked: The problem, what a search found, or an engine.
        memory: How many bytes a new engine may take beside the model.

    Raises:
        MethodError: It is neither, nor an engine.
    """
    engine = getattr(asked, "engine", asked)
    if isinstance(engine, IncrementalEngine):
        return engine
    return IncrementalEngine(as_problem(asked), memory)


def _with_start(state: EngineState, tried: Tried) -> Candidates:
    """Return the final stream that candidates start from, and then theirs."""
    finals = tried.final
    return torch.cat([state.final[None, :, -finals.shape[2] :], finals])


def _answered(parts: Sequence[Asked[Values]]) -> Values:
    """Wait for the metric of each prompt, in the order of the prompts."""
    return _joined([part() for part in parts], dim=-1)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)
