"""Cut edges for some of a problem's prompts, re-running only what each cut can change.

The engine keeps what every writer wrote, what every reader received, and every head's query, key
and value. A cut changes what one reader receives; from there only components are run again that
receive something new and still lead to the logits along kept edges: single heads, and of a head
only the port that changed, at the positions that matter (`state.py`). Many candidates are evaluated
together (`trial.py`). The sparser the circuit gets, the less each cut costs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.composed import Composed
from circuitfind.engine.cuts import Cuts, candidates_at_once
from circuitfind.engine.full_pass import embeddings
from circuitfind.engine.gradients import TracedRun, segment_before
from circuitfind.engine.masked_pass import MaskedPasses
from circuitfind.engine.replacement import Gaps, Remainders, enlarges_rounding
from circuitfind.engine.shelf import Shelf
from circuitfind.engine.state import ChunkState, Horizon, PortReading, Projected, Stream, spans
from circuitfind.engine.trial import Trial
from circuitfind.engine.written import Written, is_z, total, writing_blocks, written_of
from circuitfind.models.base import SinglePort, single_ports
from circuitfind.problem import Problem

Pair = tuple[int, int]
"""Indices of a writer and a reader."""


class ChunkEngine:
    """Answers what happens when edges are cut, for some prompts.

    Args:
        problem: The problem with these prompts only.
        replaced: What cut edges carry on them.
        horizon: How many positions can matter at all.
        shelf: Where what is remembered is kept.
        composed: Weights of heads and their readers, multiplied together.
        most_formed: How many elements of formed gaps are remembered beside that, and how many the
            changes of a pass from scratch may have.

    Attributes:
        clean: The full graph's run on the clean prompts.
        gaps: The changes that cuts make.
        remainders: What readers receive when nearly all is cut; None where rounding does no harm.
    """

    def __init__(
        self,
        problem: Problem,
        replaced: Written,
        horizon: Horizon,
        shelf: Shelf,
        composed: Composed,
        most_formed: int,
    ) -> None:
        self.problem, self.graph, self.horizon = problem, problem.graph, horizon
        self.keep, self.composed = shelf.keep, composed
        model, prompts = problem.model, problem.prompts
        with torch.no_grad():
            self._embedding = embeddings(model, problem.graph, prompts.clean)
            self.clean = TracedRun(model, problem.graph, prompts.real, traced=False)
            self.clean.run(total(self._embedding))
        for name in ("streams", "z", "mlps"):
            kept = self.keep(dict(enumerate(getattr(self.clean, name))))
            setattr(self.clean, name, list(kept.values()))
        kept_values = replace(replaced, values=self.keep(replaced.values))
        self.gaps, self._most_formed = Gaps(problem, kept_values, most_formed), most_formed
        self.remainders = (
            Remainders(problem, self.clean.streams) if enlarges_rounding(problem) else None
        )

    @property
    def most_candidates(self) -> int:
        """How many candidates are evaluated at once at most."""
        n_prompts, d_model = len(self.clean.final), self.graph.shape.d_model
        return candidates_at_once(n_prompts * self.horizon.changes * d_model)

    def start(self) -> ChunkState:
        """Return the full graph: every edge kept."""
        clean = self.clean
        read = {
            index: clean.streams[segment_before(self.graph, reader.stage)]
            for index, reader in enumerate(self.graph.readers)
        }
        of_writers = written_of(clean, self._embedding)
        written: dict[int, Stream] = {}
        z: dict[int, Projected] = {}
        projected: dict[tuple[int, str], Projected] = {}
        with torch.no_grad():
            for block in writing_blocks(self.graph):
                if block.layer is not None and block.kind == "attention":
                    z |= dict(zip(block.writers, clean.z[block.layer], strict=True))
                    projected |= self._project_all(block.layer, read)
                if not is_z(block):
                    streams = dict(zip(block.writers, of_writers.values[block.name], strict=True))
                    # What MLPs write is the clean run's own.
                    written |= streams if block.kind == "mlp" else self.keep(streams)
        kept = self.graph.edge_mask.numpy().copy()
        everywhere = spans(self.graph, kept, self.horizon)
        projected = self.keep(projected)
        return ChunkState(self.graph, self.horizon, kept, everywhere, written, read, projected, z)

    def passes(self) -> MaskedPasses:
        """Return passes from scratch on these prompts; they share what they start from."""
        return MaskedPasses(
            self.problem.model,
            self.graph,
            written_of(self.clean, self._embedding),
            self.gaps.replaced,
            self.clean.streams,
            self.problem.prompts.real,
            empty_is_a_run=self.problem.ablation.pruning_is_free,
            enlarges_rounding=self.remainders is not None,
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
        trial = Trial(self, after, n=1)
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
        trial = Trial(self, state, n=len(writers))
        if span := int(state.spans.readers[reader]):
            gaps = self.gaps.of(state, writers, span)

            def exact(candidate: int, received: Stream) -> Stream:
                cut = writers[: candidate + 1] if nested else [writers[candidate]]
                return trial.left_by_cuts(reader, cut, candidate, received)

            trial.cuts = Cuts(
                reader,
                state.read[reader][:, -span:],
                gaps,
                exact if self.remainders is not None else None,
                nested=nested,
            )
            with torch.no_grad():
                trial.propagate()
        return trial

    @property
    def replacement(self) -> Float[Tensor, "writer batch pos d_model"]:
        """What each writer sends along a cut edge."""
        with torch.no_grad():
            return self.gaps.replaced.of_all(*self.problem.prompts.clean.shape)

    def _project_all(
        self, layer: int, read: Mapping[int, Stream]
    ) -> dict[tuple[int, str], Projected]:
        projected: dict[tuple[int, str], Projected] = {}
        for port in self.graph.ports:
            readers = list(self.graph.head_readers(layer, port))
            streams = {reader: read[reader] for reader in readers}
            projected |= self.project(layer, readers, streams)
        return projected

    def project(
        self, layer: int, readers: Sequence[int], streams: Mapping[int, Stream]
    ) -> dict[tuple[int, str], Projected]:
        """Return what readers of one port of a block project their streams to."""
        heads = [self.graph.readers[reader].index or 0 for reader in readers]
        stream = _stacked([streams[reader] for reader in readers])
        model = self.problem.model
        return {
            (reader, single): values
            for single in self.ports(readers[0])
            for reader, values in zip(
                readers, model.project(layer, single, heads, stream), strict=True
            )
        }

    def ports(self, reader: int) -> tuple[SinglePort, ...]:
        """Return which inputs of a head a reader is; none for an MLP."""
        port = self.graph.readers[reader].port
        return () if port is None else single_ports(port)

    def readings(self, readers: Sequence[int]) -> tuple[PortReading, ...]:
        """Return how readers of one stage read, port by port.

        Returns:
            Nothing unless that is known of all, with one norm and equally wide.
        """
        found: list[PortReading] = []
        for index in readers:
            reader = self.graph.readers[index]
            assert reader.layer is not None
            for port in self.ports(index) or (None,):
                reading = self.problem.model.reading(reader.layer, port, reader.index or 0)
                if reading is None:
                    return ()
                found.append((index, reading))
        alike = {(id(reading.norm), reading.width) for _, reading in found}
        return tuple(found) if len(alike) == 1 else ()

    def attend(
        self,
        layer: int,
        heads: Sequence[int],
        query: Float[Tensor, "head _ batch last d_head"],
        key: Float[Tensor, "head _ batch pos d_head"],
        value: Float[Tensor, "head _ batch pos d_head"],
    ) -> Float[Tensor, "head candidate batch last d_head"]:
        """Return the mixed values of some heads for all candidates, which may share any input."""
        real = self.problem.prompts.real
        query, key, value = (values.flatten(1, 2) for values in (query, key, value))
        z = self.problem.model.attend(layer, heads, query, key, value, real)
        return z.view(len(heads), -1, len(real), *z.shape[2:])

    def source(self, layer: int, head: int, port: str) -> tuple[int, str]:
        """Return which reader a head's query, key or value is projected from."""
        if not self.graph.split_qkv:
            return self.graph.head_readers(layer, "qkv")[head], port
        size = self.graph.shape.layers[layer].heads_per_kv_head
        row = head if port == "q" else head // size
        return self.graph.head_readers(layer, port)[row], port  # type: ignore[arg-type]


def _by_reader(edges: Iterable[Pair]) -> dict[int, list[int]]:
    """Sort edges by reader, in their order."""
    writers: dict[int, list[int]] = {}
    for writer, reader in edges:
        writers.setdefault(reader, []).append(writer)
    return writers


def _stacked(streams: Sequence[Stream]) -> Float[Tensor, "head batch pos d_model"]:
    """Stack streams without copying where there is one, or all are one and the same."""
    first = streams[0]
    if all(stream.data_ptr() == first.data_ptr() for stream in streams):
        return first.expand(len(streams), *first.shape)
    return torch.stack(list(streams))
