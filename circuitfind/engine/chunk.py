"""Cut edges for some of a problem's prompts, re-running only what each cut can change.

The engine keeps what every writer wrote, what every reader received, and every head's query, key
and value. A cut changes what one reader receives; from there only components are run again that
receive something new and still lead to the logits along kept edges: single heads, and of a head
only the port that changed, at the positions that matter (`state.py`). Many candidates are evaluated
together (`trial.py`). The sparser the circuit gets, the less each cut costs.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.blocks import Blocks, PortOf
from circuitfind.engine.candidates import Cuts, candidates_at_once
from circuitfind.engine.masked_pass import MaskedPasses
from circuitfind.engine.propagation import alike
from circuitfind.engine.replacement import Gaps, Remainders, Runs, enlarges_rounding
from circuitfind.engine.state import ChunkState, Horizon, Projected, Stream, spans
from circuitfind.engine.tensor_store import TensorStore
from circuitfind.engine.trial import Tools, Trial
from circuitfind.engine.virtual_weights import VirtualWeights
from circuitfind.engine.written import is_z, total, writing_blocks
from circuitfind.problem import Problem

Pair = tuple[int, int]
"""Indices of a writer and a reader."""


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
        blocks = Blocks(problem.model, problem.graph, runs.real)
        self._tools = Tools(blocks, virtual_weights, remainders, store)

    @property
    def most_candidates(self) -> int:
        """How many candidates are evaluated at once at most."""
        n_prompts, d_model = len(self.runs.final), self.graph.shape.d_model
        return candidates_at_once(n_prompts * self.horizon.changes * d_model)

    def start(self) -> ChunkState:
        """Return the full graph: every edge kept."""
        graph, blocks = self.graph, self._tools.blocks
        read = {i: self.runs.entering[reader.stage] for i, reader in enumerate(graph.readers)}
        written: dict[int, Stream] = {}
        z: dict[int, Projected] = {}
        projected: dict[PortOf, Projected] = {}
        for block in writing_blocks(graph):
            if not is_z(block):
                values = self.runs.clean.values[block.name]
                written |= dict(zip(block.writers, values, strict=True))
            if block.kind == "attention":
                z |= dict(zip(block.writers, self.runs.z[block.name], strict=True))
                for readers in alike(block.readers, lambda r: graph.readers[r].port):
                    with torch.no_grad():
                        projected |= blocks.project(block, readers, read)
        kept = graph.edge_mask.numpy().copy()
        everywhere = spans(graph, kept, self.horizon)
        projected = self._store.keep(projected)
        return ChunkState(graph, self.horizon, kept, everywhere, written, read, projected, z)

    def passes(self, rows: slice = slice(None)) -> MaskedPasses:
        """Return passes from scratch on these prompts, or some; they share what they start from."""
        return MaskedPasses(
            self.runs.rows(rows),
            empty_is_a_run=self.problem.ablation.pruning_is_free,
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
                if span := int(after.spans.readers[reader]):
                    trial.changes.pending[reader] = total(self.gaps.of(state, writers, span))[None]
            trial.propagate()
            return trial.pick(0, after)

    def tried(
        self, state: ChunkState, reader: int, writers: Sequence[int], *, nested: bool
    ) -> Trial:
        """Evaluate cutting a reader's first edge, its first two and so on, or each alone."""
        trial = Trial(self._tools, state, n=len(writers))
        if span := int(state.spans.readers[reader]):
            gaps = self.gaps.of(state, writers, span)

            def exact(candidate: int, received: Stream) -> Stream:
                cut = writers[: candidate + 1] if nested else [writers[candidate]]
                return trial.left_by_cuts(reader, cut, candidate, received)

            trial.cuts = Cuts(
                reader,
                state.read[reader][:, -span:],
                gaps,
                None if self._tools.remainders is None else exact,
                nested=nested,
            )
            with torch.no_grad():
                trial.propagate()
        return trial

    @property
    def replacement(self) -> Float[Tensor, "writer batch pos d_model"]:
        """What each writer sends along a cut edge."""
        with torch.no_grad():
            return self.runs.replaced.of_all(*self.problem.prompts.clean.shape)


def _by_reader(edges: Iterable[Pair]) -> dict[int, list[int]]:
    """Sort edges by reader, in their order."""
    writers: dict[int, list[int]] = {}
    for writer, reader in edges:
        writers.setdefault(reader, []).append(writer)
    return writers
