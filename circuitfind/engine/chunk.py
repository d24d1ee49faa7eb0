"""Cut edges for some of a problem's prompts, re-running only what each cut can change.

The engine keeps what every writer wrote, what every reader received, and every head's query, key
and value. A cut changes what one reader receives; from there only components are run again that
receive something new and still lead to the logits along kept edges: single heads, and of a head
only the port that changed, at the positions that matter (`state.py`). Many candidates are evaluated
together (`trial.py`). The sparser the circuit gets, the less each cut costs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.engine.blocks import Blocks, PortOf
from circuitfind.engine.candidates import Cuts, candidates_at_once
from circuitfind.engine.horizon import Horizon, horizon
from circuitfind.engine.masked_pass import MaskedPasses
from circuitfind.engine.memory import Plan
from circuitfind.engine.moved_attention import MovedAttention
from circuitfind.engine.place_masks import PlaceMasks
from circuitfind.engine.propagation import alike
from circuitfind.engine.readout import Readout
from circuitfind.engine.replacement import (
    Gaps,
    Remainders,
    Runs,
    enlarges_rounding,
    mean_over_prompts,
    runs_of,
)
from circuitfind.engine.state import Candidates, ChunkState, Mixed, Projected, Stream, spans
from circuitfind.engine.tensor_store import InFiles, InMemory, TensorStore
from circuitfind.engine.trial import Tools, Trial
from circuitfind.engine.virtual_weights import VirtualWeights
from circuitfind.engine.written import parts_of, total
from circuitfind.problem import Problem

Pair = tuple[int, int]
"""Indices of a writer and a reader."""

Values = Float[Tensor, "*candidate row"]
"""The metric of each prompt."""

_T = TypeVar("_T")
Asked = Callable[[], _T]
"""What was asked for; call it to wait for the answer, once all chunks have been asked."""


@dataclass(frozen=True)
class ChunkTried:
    """Candidates that were evaluated on some prompts.

    Attributes:
        state: What they start from.
        final: What the logits read in each of them, at the last positions or all.
        trial: All that changes in them; None where that takes too much memory.
    """

    state: ChunkState
    final: Candidates
    trial: Trial | None


class ChunkEngine:
    """Answers what happens when edges are cut, for some prompts.

    Args:
        problem: The problem with these prompts only.
        runs: The runs between which edges are cut, on these prompts.
        horizon: How many positions can matter at all.
        store: Where what is remembered is kept.
        virtual_weights: Weights of heads and their readers, multiplied together.
        most_formed: How many elements of formed gaps are remembered beside that, and how many the
            changes of a pass from scratch may have.

    Attributes:
        runs: The runs.
        gaps: The changes that cuts make.
    """

    def __init__(
        self,
        problem: Problem,
        runs: Runs,
        horizon: Horizon,
        store: TensorStore,
        virtual_weights: VirtualWeights,
        most_formed: int,
    ) -> None:
        self.problem, self.graph, self.horizon = problem, problem.graph, horizon
        self._store, self._most_formed = store, most_formed
        self.runs = runs.kept_by(store.keep)
        self.gaps = Gaps(self.runs.replaced, most_formed)
        remainders = Remainders(self.runs) if enlarges_rounding(problem) else None
        places = problem.places
        moved = None
        if places is not None and problem.graph.moves:
            moved = MovedAttention(self.runs, places, store.keep)
        blocks = Blocks(problem.model, problem.graph.merged, runs.real, moved)
        masks = None if places is None else PlaceMasks(places.masks(), problem.model.dtype)
        self._tools = Tools(blocks, virtual_weights, remainders, store, masks)

    @property
    def most_candidates(self) -> int:
        """How many candidates are evaluated at once at most."""
        n_prompts, d_model = len(self.runs.final), self.graph.shape.d_model
        return candidates_at_once(n_prompts * self.horizon.changes * d_model)

    def start(self) -> ChunkState:
        """Return the full graph: every edge kept."""
        graph, blocks = self.graph.merged, self._tools.blocks
        read = {i: self.runs.entering[reader.stage] for i, reader in enumerate(graph.readers)}
        written: dict[int, Stream] = {}
        z: dict[int, Mixed] = {}
        projected: dict[PortOf, Projected] = {}
        for part in parts_of(graph):
            block = part.block
            if not part.is_z:
                written |= dict(zip(part.writers, self.runs.clean.values[part.name], strict=True))
            if part.name in self.runs.z:
                z |= dict(zip(part.writers, self.runs.z[part.name], strict=True))
            if block.kind == "attention":
                for readers in alike(block.readers, lambda r: graph.readers[r].port):
                    with torch.no_grad():
                        projected |= blocks.project(block, readers, read)
        kept = self.graph.edge_mask.numpy().copy()
        everywhere = spans(self.graph, kept, self.horizon)
        projected = self._store.keep(projected)
        return ChunkState(self.graph, self.horizon, kept, everywhere, written, read, projected, z)

    def passes(self, rows: slice = slice(None)) -> MaskedPasses:
        """Return passes from scratch on these prompts, or some; they share what they start from."""
        return MaskedPasses(
            self.runs.rows(rows),
            places=self.problem.places and self.problem.places.rows(rows),
            empty_is_a_run=self.problem.pruning_is_free,
            enlarges_rounding=self._tools.remainders is not None,
            most=self._most_formed,
        )

    def cut(self, state: ChunkState, edges: Iterable[Pair]) -> ChunkState:
        """Return the state with these edges cut as well; edges already cut stay so."""
        kept = state.kept.copy()
        gone = [pair for pair in dict.fromkeys(edges) if kept[pair]]
        for pair in gone:
            kept[pair] = False
        # What leads nowhere any more once these edges are gone need not be brought up to date.
        after = state.keeping(kept)
        trial = Trial(self._tools, after, n=1)
        with torch.no_grad():
            for reader, writers in _by_reader(gone).items():
                if reader >= self.graph.n_outer[1]:
                    trial.cut_moves(reader, after.moves[None])
                elif after.spans.readers[reader]:
                    merged, gaps = self._gaps(trial, state, reader, writers)
                    change = total(gaps)[None]
                    if (earlier := trial.changes.pending.get(merged)) is not None:
                        change = earlier + change
                    trial.changes.pending[merged] = change
            trial.propagate()
            return trial.pick(0, after)

    def tried(
        self, state: ChunkState, reader: int, writers: Sequence[int], *, nested: bool
    ) -> ChunkTried:
        """Evaluate cutting a reader's first edge, its first two and so on, or each alone."""
        trial = self._trial(state, reader, writers, nested=nested)
        return ChunkTried(state, trial.final, trial if isinstance(self._store, InMemory) else None)

    def pick(self, tried: ChunkTried, candidate: int, kept: NDArray[np.bool_]) -> ChunkState:
        """Return one candidate as a state; `kept` says which edges it keeps."""
        state, trial = tried.state, tried.trial
        if trial is None:
            return self.cut(state, pairs_of(state.kept & ~kept))
        picked = trial.pick(candidate, state.keeping(kept))
        return replace(picked, products=trial.products(candidate))

    @cached_property
    def readout(self) -> Readout:
        """What turns final streams of these prompts into metric values."""
        return Readout(self.problem, self.runs.final)

    @property
    def together(self) -> int:
        """For how many candidates the metric is measured at once."""
        return self.readout.together

    def values(self, state: ChunkState) -> Asked[Values]:
        """Ask for the metric of each prompt in a state."""
        with torch.no_grad():
            values = self.readout.values(state.final)
        return lambda: values

    def values_of(self, tried: ChunkTried, some: slice) -> Asked[Values]:
        """Ask for the metric of each prompt in some of the candidates, at most `together`."""
        values = self.readout.of_candidates(tried.final[some])
        return lambda: values

    def _trial(
        self, state: ChunkState, reader: int, writers: Sequence[int], *, nested: bool
    ) -> Trial:
        trial = Trial(self._tools, state, n=len(writers))
        if reader >= self.graph.n_outer[1]:
            trial.cut_moves(reader, state.moves_without(reader, writers, nested=nested))
        elif state.spans.readers[reader]:
            merged, gaps = self._gaps(trial, state, reader, writers)

            def exact(candidate: int, received: Stream) -> Stream:
                cut = writers[: candidate + 1] if nested else [writers[candidate]]
                return trial.left_by_cuts(reader, cut, candidate, received)

            trial.cuts = Cuts(
                merged,
                state.read[merged][:, -int(state.spans.inputs[merged]) :],
                gaps,
                None if self._tools.remainders is None else exact,
                nested=nested,
            )
        with torch.no_grad():
            trial.propagate()
        return trial

    def _gaps(
        self, trial: Trial, state: ChunkState, reader: int, writers: Sequence[int]
    ) -> tuple[int, Iterator[Stream]]:
        """Return the input that a reader is part of, and the changes of cutting edges into it.

        Args:
            trial: The trial that cuts them; it is told at which place they arrive.
            state: Says what is written.
            reader: The reader.
            writers: Where the edges come from.
        """
        merged, place = divmod(reader, self.graph.n_places)
        spans, changes = trial.state.spans, trial.changes
        # A writer may matter at fewer positions than an input that others reach at other places.
        gaps = self.gaps.of(state, writers, int(spans.readers[reader]))
        if self._tools.masks is None:
            return merged, gaps
        changes.reaches(merged, np.arange(self.graph.n_places) == place)
        span = int(spans.inputs[merged])
        return merged, (changes.at_places([place], gap[None], span)[0] for gap in gaps)

    @property
    def replacement(self) -> Float[Tensor, "writer batch pos d_model"]:
        """What each writer sends along a cut edge."""
        with torch.no_grad():
            return self.runs.replaced.of_all(*self.problem.prompts.clean.shape)


def chunk_engines(
    problem: Problem, planned: Plan, numbers: Sequence[int] | None = None
) -> list[ChunkEngine]:
    """Return what answers for the prompts of each chunk.

    Padding stays, so that positions are the same in all chunks.

    Args:
        problem: The problem, with all prompts.
        planned: How they are split.
        numbers: Which chunks; by default all.
    """
    prompts, size = problem.prompts, planned.n_prompts
    rows = [slice(first, first + size) for first in range(0, len(prompts), size)]
    parts = [replace(problem, prompts=prompts.rows(some)) for some in rows]
    store = InFiles() if planned.in_files else InMemory()
    weights = VirtualWeights(problem.model, problem.graph, planned.most_virtual_weights)
    with torch.no_grad():
        mean = mean_over_prompts(parts)
        return [
            ChunkEngine(
                parts[number],
                runs_of(parts[number], mean),
                horizon(problem),
                store,
                weights,
                planned.most_formed // planned.n_in_share,
            )
            for number in (range(len(parts)) if numbers is None else numbers)
        ]


def pairs_of(edges: NDArray[np.bool_]) -> list[Pair]:
    """Return the edges of a mask."""
    return [(int(writer), int(reader)) for writer, reader in np.argwhere(edges)]


def _by_reader(edges: Iterable[Pair]) -> dict[int, list[int]]:
    """Sort edges by reader, in their order."""
    writers: dict[int, list[int]] = {}
    for writer, reader in edges:
        writers.setdefault(reader, []).append(writer)
    return writers
