"""Several candidates at once: what changes when each of some sets of edges is cut.

A candidate's cut changes what one reader receives. From there the stages are walked in order: a
component is run again only if it receives a change and matters, at the positions where it
matters, for all candidates together, stacked along the batch. A change travels along kept edges
only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.cuts import Cuts, group_size
from circuitfind.engine.state import ChunkState, Stage, Stream, stages

if TYPE_CHECKING:
    from circuitfind.engine.chunk import ChunkEngine

Candidates = Float[Tensor, "candidate batch _ d_model"]
CandidateHeads = Float[Tensor, "candidate batch _ d_head"]
Key = TypeVar("Key")

_SMALL = 1 << 18
"""How many numbers a stream of all candidates may have to be put into one with others."""


@dataclass
class Trial:
    """Candidates in evaluation: first filled with what is cut, then propagated.

    Attributes:
        engine: Gives the model and the replacements.
        state: What the candidates start from; never changed.
        n: How many candidates there are.
        cuts: What tells the candidates apart, unless there is but one.
        pending: Changes that readers have yet to receive.
        received: Changes that they received.
        changes: Changes of what writers write.
        written: What they write, where it was computed whole.
        projected: Heads' new queries, keys and values.
        z: Heads' new mixed values.
    """

    engine: "ChunkEngine"
    state: ChunkState
    n: int
    cuts: Cuts | None = None
    pending: dict[int, Candidates] = field(default_factory=dict)
    received: dict[int, Candidates] = field(default_factory=dict)
    changes: dict[int, Candidates] = field(default_factory=dict)
    written: dict[int, Candidates] = field(default_factory=dict)
    projected: dict[tuple[int, str], CandidateHeads] = field(default_factory=dict)
    z: dict[int, CandidateHeads] = field(default_factory=dict)

    @property
    def final(self) -> Candidates:
        """What the logits read, of each candidate."""
        last = len(self.state.graph.readers) - 1
        if self.cuts is not None and self.cuts.reader == last:
            return torch.cat(list(self.cuts.groups()))
        if last not in self.received:
            return self.state.read[last].expand(self.n, -1, -1, -1)
        return self._changed(last, self.received[last])

    def pick(self, candidate: int, state: ChunkState) -> ChunkState:
        """Bring a state up to date that keeps the edges that one candidate keeps."""
        keep = self.engine.keep
        return replace(
            state,
            written={**state.written, **keep(_of(candidate, self.written))},
            read={**state.read, **keep(self._read(candidate))},
            projected={**state.projected, **keep(_of(candidate, self.projected))},
            z={**state.z, **keep(_of(candidate, self.z))},
        )

    def _read(self, candidate: int) -> dict[int, Stream]:
        """Return what readers of one candidate receive, where that is new."""
        shared: dict[tuple[int, int], Stream] = {}
        for reader, change in self.received.items():
            if self._source(reader) not in shared:
                shared[self._source(reader)] = self._changed(reader, change[candidate])
        read = {reader: shared[self._source(reader)] for reader in self.received}
        if self.cuts is not None:
            read[self.cuts.reader] = self.cuts.received(candidate)
        return read

    def _source(self, reader: int) -> tuple[int, int]:
        """Tell readers apart that receive something else: one tensor serves all others."""
        if self.cuts is not None and self.cuts.reader == reader:
            return id(self.cuts), 0
        return id(self.state.read[reader]), id(self.received[reader])

    def propagate(self) -> None:
        """Run everything again that a pending change reaches."""
        graph = self.state.graph
        changed = [*self.pending, *([] if self.cuts is None else [self.cuts.reader])]
        if not changed:
            return
        first = min(graph.readers[reader].stage for reader in changed)
        for stage in stages(graph):
            if graph.readers[stage.readers[0]].stage < first:
                continue
            reached = self._receive(stage.readers)
            if self.cuts is not None and self.cuts.reader in stage.readers:
                reached = [self.cuts.reader]
            if reached and stage.is_attention:
                self._run_heads(stage, reached)
            elif reached:
                self._run_mlp(stage)
        self._receive([len(graph.readers) - 1])

    def _receive(self, readers: Sequence[int]) -> list[int]:
        """Bring what these readers receive up to date; return those that received a change."""
        live = [reader for reader in readers if self.state.spans.readers[reader]]
        self._collect(live)
        reached = [reader for reader in live if reader in self.pending]
        for reader in reached:
            self.received[reader] = self.pending.pop(reader)
        return reached

    def _collect(self, readers: Sequence[int]) -> None:
        """Add up, for each reader, the changes that reach it along kept edges."""
        writers = list(self.changes)
        arriving = self.state.kept[np.ix_(writers, readers)]
        sums: dict[tuple[bytes, int], Candidates] = {}
        for column in np.flatnonzero(arriving.any(axis=0)).tolist():
            reader, pattern = readers[column], arriving[:, column]
            span = int(self.state.spans.readers[reader])
            key = (pattern.tobytes(), span)
            if key not in sums:
                sums[key] = self._sum([writers[row] for row in np.flatnonzero(pattern)], span)
            earlier = self.pending.get(reader)
            self.pending[reader] = sums[key] if earlier is None else earlier + sums[key]

    def _sum(self, writers: Sequence[int], span: int) -> Candidates:
        first, *others = (self.changes[writer][:, :, -span:] for writer in writers)
        if not others:
            return first
        total = first + others[0]
        for change in others[1:]:
            total += change
        return total

    def _streams(self, reader: int) -> Iterator[Candidates]:
        """Yield what a reader receives, some candidates at a time."""
        if self.cuts is not None and self.cuts.reader == reader:
            yield from self.cuts.groups()
            return
        change = self.received[reader]
        for some in change.split(group_size(change[0])):
            yield self._changed(reader, some)

    def _changed(self, reader: int, change: Float[Tensor, "*_ _ d_model"]) -> Tensor:
        """Return what a reader receives with a change, of one candidate or of several."""
        return self.state.read[reader][:, -change.shape[-2] :] + change

    def _run_mlp(self, stage: Stage) -> None:
        (reader,), mlp = stage.readers, self.engine.problem.model.mlp
        new = [
            mlp(stage.layer, some.flatten(0, 1)).view(some.shape) for some in self._streams(reader)
        ]
        self._write(stage.writers[0], torch.cat(new))

    def _run_heads(self, stage: Stage, reached: Sequence[int]) -> None:
        graph, spans = self.state.graph, self.state.spans
        # Queries of one layer can matter at different positions; keys and values never do.
        together: dict[tuple[str | None, int], list[int]] = {}
        for reader in reached:
            key = graph.readers[reader].port, int(spans.readers[reader])
            together.setdefault(key, []).append(reader)
        for readers in together.values():
            self._project(stage.layer, readers)
        fed = {name for r in reached for name in graph.components_fed_by(graph.readers[r])}
        writers = [w for w in stage.writers if graph.writers[w].name in fed and spans.writers[w]]
        for span in sorted({int(spans.writers[writer]) for writer in writers}):
            some = [writer for writer in writers if spans.writers[writer] == span]
            self._attend(stage, some, span)

    def _project(self, layer: int, readers: Sequence[int]) -> None:
        alike: dict[tuple[int, int], list[int]] = {}
        for reader in readers:
            alike.setdefault(self._source(reader), []).append(reader)
        if self._is_small(readers[0]):
            self._project_together(layer, list(alike.values()))
        else:
            for some in alike.values():
                self._project_together(layer, [some])

    def _is_small(self, reader: int) -> bool:
        """Say whether streams are so small that putting several into one takes no time."""
        if self.cuts is not None and self.cuts.reader == reader:
            return False
        return self.received[reader].numel() <= _SMALL

    def _project_together(self, layer: int, alike: Sequence[Sequence[int]]) -> None:
        """Project readers, given by what they receive."""
        readers = [reader for some in alike for reader in some]
        done = 0
        for streams in zip(*(self._streams(some[0]) for some in alike), strict=True):
            n, batch, span, _ = streams[0].shape
            received = {
                reader: stream.flatten(0, 1)
                for some, stream in zip(alike, streams, strict=True)
                for reader in some
            }
            for key, values in self.engine.project(layer, readers, received).items():
                if not done:
                    self.projected[key] = self._room(key, span)
                self.projected[key][done : done + n, :, -span:] = values.unflatten(0, (n, batch))
            done += n

    def _room(self, key: tuple[int, str], span: int) -> CandidateHeads:
        """Return where to put projections; keys and values of earlier positions are there."""
        old = self.state.projected[key]
        if key[1] == "q":
            return old.new_empty(self.n, len(old), span, old.shape[-1])
        # Later positions attend to all earlier ones, changed or not.
        room = old.new_empty(self.n, *old.shape)
        room[:, :, :-span] = old[:, :-span]
        return room

    def _attend(self, stage: Stage, writers: Sequence[int], span: int) -> None:
        engine, graph = self.engine, self.state.graph
        heads = [graph.writers[writer].head or 0 for writer in writers]
        query, key, value = (
            self._values([engine.source(stage.layer, head, port) for head in heads], n)
            for port, n in (("q", span), ("k", 0), ("v", 0))
        )
        mixed = engine.attend(stage.layer, heads, query, key, value)
        self.z |= dict(zip(writers, mixed, strict=True))
        if graph.shape.heads_share_norm:
            self._write_heads(stage, span)
        else:
            before = torch.stack([self.state.z[writer][None, :, -span:] for writer in writers])
            outputs = self._outputs(stage.layer, heads, mixed - before)
            self.changes |= dict(zip(writers, outputs, strict=True))

    def _write_heads(self, stage: Stage, span: int) -> None:
        """Write all heads of a block again: what one writes depends on what all of them mix."""
        mixed = torch.stack([self._mixed(writer, span) for writer in stage.writers])
        outputs = self._outputs(stage.layer, range(len(stage.writers)), mixed)
        for writer, written in zip(stage.writers, outputs, strict=True):
            self._write(writer, written)

    def _outputs(
        self, layer: int, heads: Sequence[int], z: Float[Tensor, "head candidate batch _ d_head"]
    ) -> Float[Tensor, "head candidate batch _ d_model"]:
        output = self.engine.problem.model.output(layer, heads, z.flatten(1, 2))
        return output.view(*z.shape[:-1], -1)

    def _values(
        self, sources: Sequence[tuple[int, str]], last: int
    ) -> Float[Tensor, "head _ batch last d_head"]:
        """Return heads' projections at the last positions; once where all candidates share them."""
        found = [
            self.projected.get(source, self.state.projected[source])[..., -last:, :]
            for source in sources
        ]
        n = max(values.shape[0] if values.ndim == 4 else 1 for values in found)
        found = [values if values.ndim == 4 else values[None] for values in found]
        if len(found) == 1:
            return found[0][None]
        return torch.stack([values.expand(n, -1, -1, -1) for values in found])

    def _mixed(self, writer: int, span: int) -> CandidateHeads:
        if writer in self.z:
            return self.z[writer][:, :, -span:]
        return self.state.z[writer][:, -span:].expand(self.n, -1, -1, -1)

    def _write(self, writer: int, new: Candidates) -> None:
        self.written[writer] = new
        self.changes[writer] = new - self.state.written[writer][:, -new.shape[2] :]


def _of(candidate: int, values: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    # Copied where there are others, so that their share of the memory is freed.
    return {k: v[0] if len(v) == 1 else v[candidate].clone() for k, v in values.items()}
