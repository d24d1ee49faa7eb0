"""Several candidates at once: what changes when each of some sets of edges is cut.

A candidate's cut changes what one reader receives. From there the blocks are walked in order: a
component is run again only if it receives a change and matters, at the positions where it
matters, for all candidates together, stacked along the batch. A change travels along kept edges
only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from circuitfind.engine.blocks import Blocks, PortOf
from circuitfind.engine.candidates import Cuts, group_size
from circuitfind.engine.moves import Kept
from circuitfind.engine.place_masks import PlaceMasks
from circuitfind.engine.propagation import (
    AtSome,
    CandidateHeads,
    Changes,
    MovedUnits,
    Senders,
    alike,
)
from circuitfind.engine.replacement import Remainders
from circuitfind.engine.state import Candidates, ChunkState, PortReading, Stream
from circuitfind.engine.tensor_store import TensorStore
from circuitfind.engine.virtual_weights import Through, VirtualWeights
from circuitfind.graph import SINGLE_PORTS, UNIT_KINDS, Block, single_ports
from circuitfind.models.units import UnitBlock, unit_block

Key = TypeVar("Key")


class CutMoves(NamedTuple):
    """The moves that a head keeps where candidates cut some.

    Attributes:
        kept: Those that are kept, in each candidate.
        at: The places into which some are cut.
    """

    kept: Bool[np.ndarray, "candidate port source destination"]
    at: AtSome


_SMALL = 1 << 18
"""How many numbers a stream of all candidates may have to be put into one with others."""


@dataclass(frozen=True)
class Tools:
    """What all candidates on some prompts are evaluated with.

    Attributes:
        blocks: The blocks of the model.
        virtual_weights: Weights of heads and their readers, multiplied together.
        remainders: What readers receive when nearly all is cut; None where rounding does no harm.
        store: Where states are kept.
        masks: At which positions the places are; None where edges do not tell places apart.
    """

    blocks: Blocks
    virtual_weights: VirtualWeights
    remainders: Remainders | None
    store: TensorStore
    masks: PlaceMasks | None = None


@dataclass
class Trial:
    """Candidates in evaluation: first filled with what is cut, then propagated.

    Attributes:
        tools: What candidates are evaluated with.
        state: What the candidates start from; never changed.
        n: How many candidates there are.
        cuts: What tells the candidates apart, unless there is but one, or they cut moves.
        moves: The moves that heads keep in each candidate, by writer, where the candidates cut
            some; and the places into which these lead.
        changes: What changes on the way.
        written: What writers write, where it was computed whole.
        through: What was read through virtual_weights weights.
        projected: Heads' new queries, keys and values.
        z: Heads' new z.
    """

    tools: Tools
    state: ChunkState
    n: int
    cuts: Cuts | None = None
    moves: dict[int, "CutMoves"] = field(default_factory=dict)
    changes: Changes = field(init=False)
    written: dict[int, Candidates] = field(default_factory=dict)
    through: list[Through] = field(default_factory=list)
    projected: dict[PortOf, CandidateHeads] = field(default_factory=dict)
    z: dict[int, CandidateHeads] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.changes = Changes(self.state, self.tools.masks, self.tools.blocks.unit_rows)

    @property
    def final(self) -> Candidates:
        """What the logits read, of each candidate."""
        last = self.state.graph.merged.logits[0]
        if self.cuts is not None and self.cuts.reader == last:
            return torch.cat(list(self.cuts.groups()))
        if last not in self.changes.received:
            return self.state.read[last].expand(self.n, -1, -1, -1)
        return self._changed(last, range(self.n))

    def pick(self, candidate: int, state: ChunkState) -> ChunkState:
        """Bring a state up to date that keeps the edges that one candidate keeps."""
        keep = self.tools.store.keep
        return replace(
            state,
            written={**state.written, **keep(_of(candidate, self.written))},
            read={**state.read, **keep(self._read_by(candidate))},
            projected={**state.projected, **keep(_of(candidate, self.projected))},
            z={**state.z, **keep(_of(candidate, self.z))},
        )

    def products(self, candidate: int) -> dict[PortReading, Float[Tensor, "batch _span _width"]]:
        """Return the linear maps of what readers receive in one candidate, where known."""
        new = {*self.changes.received, *([] if self.cuts is None else [self.cuts.reader])}
        old = {port: known for port, known in self.state.products.items() if port[0] not in new}
        return old | self.tools.virtual_weights.carried(self.through, candidate)

    def _read_by(self, candidate: int) -> dict[int, Stream]:
        """Return what readers of one candidate receive, where that is new."""
        shared: dict[tuple[int, int], Stream] = {}
        for reader in self.changes.received:
            if self._source(reader) not in shared:
                shared[self._source(reader)] = self._changed(reader, [candidate])[0]
        read = {reader: shared[self._source(reader)] for reader in self.changes.received}
        if self.cuts is not None:
            read[self.cuts.reader] = self.cuts.received(candidate)
        return read

    def _source(self, reader: int) -> tuple[int, int]:
        """Tell readers apart that receive something else: one tensor serves all others."""
        if self.cuts is not None and self.cuts.reader == reader:
            return id(self.cuts), 0
        return id(self.state.read[reader]), id(self.changes.received[reader])

    def cut_moves(
        self, reader: int, kept: Bool[np.ndarray, "candidate head port source destination"]
    ) -> None:
        """Cut moves into a head at a place, if what it writes there matters.

        Args:
            reader: Where the moves arrive.
            kept: The moves of all heads that are kept in each candidate.
        """
        graph = self.state.graph
        number, place = divmod(reader - graph.n_outer[1], graph.n_places)
        head, at = graph.heads[number], np.arange(graph.n_places) == place
        if self.state.spans.writers_at[head, place]:
            earlier = self.moves.get(head)
            at = at if earlier is None else at | earlier.at
            self.moves[head] = CutMoves(kept[:, number], at)

    def propagate(self) -> None:
        """Run everything again that a pending change reaches."""
        graph = self.state.graph.merged
        changed = [*self.changes.pending, *([] if self.cuts is None else [self.cuts.reader])]
        stages = [graph.readers[reader].stage for reader in changed]
        stages += [graph.writers[head].stage for head in self.moves]
        if not stages:
            return
        first = min(stages)
        for block in graph.blocks:
            if block.stage < first:
                continue
            reached = self.changes.receive(block.readers)
            if self.cuts is not None and self.cuts.reader in block.readers:
                reached = [self.cuts.reader]
            moved = not self.moves.keys().isdisjoint(block.writers)
            if (reached or moved) and block.kind == "attention":
                self._run_attention(block, reached)
            elif reached and block.units is not None:
                self._run_units(block, reached)
            elif reached and block.kind == "mlp":
                self._run_mlp(block)

    def _streams(self, reader: int) -> Iterator[Candidates]:
        """Yield what a reader receives, some candidates at a time."""
        if self.cuts is not None and self.cuts.reader == reader:
            yield from self.cuts.groups()
            return
        size = group_size(self.changes.received[reader][0])
        for first in range(0, self.n, size):
            yield self._changed(reader, range(first, min(first + size, self.n)))

    def _changed(self, reader: int, candidates: Sequence[int]) -> Candidates:
        """Return what a reader receives with its change, in candidates that follow in order."""
        change = self.changes.received[reader][candidates[0] : candidates[-1] + 1]
        received = self.state.read[reader][:, -change.shape[-2] :] + change
        if self.tools.remainders is not None:
            for candidate, stream in zip(candidates, received, strict=True):
                stream.copy_(self._left(reader, candidate, stream, self._kept(reader)))
        return received

    def left_by_cuts(
        self, reader: int, writers: Sequence[int], candidate: int, received: Stream
    ) -> Stream:
        """Return what the reader of a candidate's cut edges receives, exactly where little is left.

        Args:
            reader: Its index in the graph of the state.
            writers: Where the edges come from that the candidate cuts.
            candidate: The candidate.
            received: What subtracting left.
        """
        merged, place = divmod(reader, self.state.graph.n_places)
        kept = self._kept(merged).copy()
        kept[list(writers), place] = False
        return self._left(merged, candidate, received, kept)

    def _kept(self, reader: int) -> NDArray[np.bool_]:
        """Return which edges lead to an input, by writer and place."""
        n = self.state.graph.n_places
        return self.state.kept[:, reader * n : (reader + 1) * n]

    def _left(
        self, reader: int, candidate: int, received: Stream, kept: NDArray[np.bool_]
    ) -> Stream:
        masks, span = self.tools.masks, received.shape[-2]

        def sent() -> Iterator[Stream]:
            for writer in np.flatnonzero(kept.any(axis=1)).tolist():
                stream = self._written_by(writer, candidate)[:, -span:]
                if masks is not None:
                    # Where it is not known what a writer writes, nothing reads it.
                    stream = pad(stream, (0, 0, span - stream.shape[1], 0))
                    stream = stream * masks.weights(np.flatnonzero(kept[writer]).tolist(), span)
                yield stream

        assert self.tools.remainders is not None
        return self.tools.remainders.exact(reader, received, sent)

    def _written_by(self, writer: int, candidate: int) -> Stream:
        """Return what a writer writes in a candidate."""
        if writer in self.state.written:
            new = self.written.get(writer)
            return self.state.written[writer] if new is None else new[candidate]
        graph, found = self.state.graph, self.z.get(writer)
        z = self.state.z[writer] if found is None else found[candidate]
        end = graph.writers[writer]
        if end.kind in UNIT_KINDS:
            return z * self.tools.blocks.unit_rows([writer])[0]
        return self.tools.blocks.output(graph.block_of[end.name], [writer], z[None, None])[0, 0]

    def _run_mlp(self, block: Block) -> None:
        (reader,), model, layer = block.readers, self.tools.blocks.model, block.layer
        new = []
        if (rows := self._rows(reader)) is not None:
            for some in self._streams(reader):
                new.append(model.mlp(layer, some.flatten(1, 2)[:, rows]))
            old = self.state.written[block.writers[0]][:, -some.shape[2] :]
            room = old.expand(self.n, -1, -1, -1).clone()
            room.flatten(1, 2)[:, rows] = torch.cat(new)
            self._write(block.writers[0], room, self.changes.received_at[reader])
            return
        if ports := self._through_heads(block, [reader]):
            for (pre,) in self._read_through([reader], ports):
                post = model.mlp_post(layer, pre.flatten(0, 1))
                new.append(model.mlp_output(layer, post).unflatten(0, pre.shape[:2]))
        else:
            for some in self._streams(reader):
                new.append(model.mlp(layer, some.flatten(0, 1)).view(some.shape))
        self._write(block.writers[0], torch.cat(new), self.changes.received_at.get(reader))

    def _run_units(self, block: Block, reached: Sequence[int]) -> None:
        graph, spans = self.state.graph.merged, self.state.spans
        unit = unit_block(self.tools.blocks.model, block)
        first = block.writers[0]

        def trait(reader: int) -> tuple[object, ...]:
            return self._source(reader), int(spans.inputs[reader]), self._places(reader)

        for readers in alike(reached, trait):
            fed = sorted({writer for reader in readers for writer in graph.feeds[reader]})
            writers = [writer for writer in fed if spans.writers[writer]]
            wanted = [writer - first for writer in writers]
            before = self._before(block, writers, int(spans.inputs[readers[0]]))
            new = self._parts(unit, readers[0], wanted, before)
            at = self.changes.received_at.get(readers[0])
            self._write_parts(block, writers, new, before, at)

    def _before(self, block: Block, writers: Sequence[int], span: int) -> list[Stream]:
        """Return the activations of units, and what other writers write, before the change."""
        units, others = _parted(block, writers)
        streams = [self.state.written[writer][:, -span:] for writer in others]
        if not units:
            return [streams[0][..., :0], *streams]
        return [torch.cat([self.state.z[unit][:, -span:] for unit in units], dim=-1), *streams]

    def _write_parts(
        self,
        block: Block,
        writers: Sequence[int],
        new: Sequence[Float[Tensor, "_candidate batch _span _width"]],
        before: Sequence[Float[Tensor, "batch _span _width"]],
        at: AtSome | None,
    ) -> None:
        """Note what some writers of a block with units write now.

        Args:
            block: The block.
            writers: The writers, in ascending order.
            new: The activations of the units among them, then what each of the others writes.
            before: The same before the change.
            at: The places at which it changes.
        """
        units, others = _parted(block, writers)
        activations, *wide = new
        if units:
            self.z |= dict(zip(units, activations.split(1, dim=-1), strict=True))
            moved = MovedUnits(units, activations - before[0])
            self.changes.units |= dict.fromkeys(units, moved)
            if at is not None:
                self.changes.sent_at |= dict.fromkeys(units, at)
        for writer, written in zip(others, wide, strict=True):
            self._write(writer, written, at)

    def _parts(
        self,
        unit: UnitBlock,
        reader: int,
        wanted: Sequence[int],
        before: Sequence[Float[Tensor, "batch _span _width"]],
    ) -> list[Float[Tensor, "_candidate batch _span _width"]]:
        """Return what some writers that all receive the same write: activations, then the others'.

        Args:
            unit: The block.
            reader: What they receive it by.
            wanted: The writers, counted in the block.
            before: The same before the change, which is left where nothing changes.
        """
        rows, found = self._rows(reader), []
        for some in self._streams(reader):
            n, batch, _, _ = some.shape
            flat = some.flatten(0, 1) if rows is None else some.flatten(1, 2)[:, rows]
            activations, wide = unit.parts(flat, wanted)
            new = [activations, *wide]
            if rows is None:
                found.append([part.unflatten(0, (n, batch)) for part in new])
            else:
                rooms = [stream.expand(n, -1, -1, -1).clone() for stream in before]
                for room, part in zip(rooms, new, strict=True):
                    room.flatten(1, 2)[:, rows] = part
                found.append(rooms)
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    def _rows(self, reader: int, width: int | None = None) -> Int[Tensor, " row"] | None:
        """Return at which positions, through all prompts, an input changes; None for all.

        Args:
            reader: Its reader.
            width: How many last positions of a prompt are numbered; by default those at which the
                input matters.
        """
        at, masks = self.changes.received_at.get(reader), self.tools.masks
        if masks is None or at is None or at.all():
            return None
        span = int(self.state.spans.inputs[reader])
        return masks.rows(np.flatnonzero(at).tolist(), span, width or span)

    def _through_heads(self, block: Block, readers: Sequence[int]) -> tuple[PortReading, ...]:
        """Return how readers of one change read, if it saves work to do so through few heads."""
        weights, along = self.tools.virtual_weights, self.changes.senders.get(readers[0])
        senders = () if along is None else along.senders
        if not weights.pays(senders):
            return ()
        ports = self.tools.blocks.readings(block, readers)
        change = self.changes.received[readers[0]]
        return ports if weights.saves(senders, [each for _, each in ports], change) else ()

    def _read_through(
        self, readers: Sequence[int], ports: tuple[PortReading, ...]
    ) -> Iterator[list[CandidateHeads]]:
        """Yield new q, k, v (or pre-activations) of readers, a group of candidates at a time."""
        moved, read = self.changes.of_heads(readers[0]), self.state.read
        span = moved.change.shape[-2]
        # Readers that receive the same stream are given one tensor, to be normed once.
        streams = {id(read[reader]): read[reader][:, -span:] for reader in readers}
        received = tuple(streams[id(read[reader])] for reader, _ in ports)
        products = tuple(map(self.state.product, ports, received))
        self.through.append(Through(ports, received, products, moved))
        return self.tools.virtual_weights.read(self.through[-1])

    def _run_attention(self, block: Block, reached: Sequence[int]) -> None:
        graph, spans, senders = self.state.graph.merged, self.state.spans, self.changes.senders
        whole: list[int] = []
        # Queries of one layer can matter at different positions.
        for readers in alike(reached, lambda r: (senders.get(r), int(spans.inputs[r]))):
            if ports := self._through_heads(block, readers):
                self._project_through(readers, ports)
            else:
                whole += readers
        for readers in alike(
            whole, lambda r: (graph.readers[r].port, int(spans.inputs[r]), self._places(r))
        ):
            self._project(block, readers)
        if block.units is not None:
            self._run_latents(block)
            return
        fed = {writer for reader in reached for writer in graph.feeds[reader]} | self.moves.keys()
        writers = [writer for writer in block.writers if writer in fed and spans.writers[writer]]
        for some in alike(writers, lambda w: (int(spans.writers[w]), self._moves_of(w) is None)):
            self._attend(block, some, int(spans.writers[some[0]]))

    def _moves_of(self, head: int) -> Bool[np.ndarray, "_candidate port source destination"] | None:
        """Return the moves that a head keeps, in all candidates or in each; None for all moves."""
        if not self.state.graph.moves:
            return None
        if head in self.moves:
            return self.moves[head].kept
        kept = self.state.moves[self.state.graph.head_number[head]]
        return None if kept.all() else kept[None]

    def _kept_moves(self, writers: Sequence[int]) -> Kept | None:
        found = [moves for head in writers if (moves := self._moves_of(head)) is not None]
        if not found:
            return None
        n = max(map(len, found))
        moves = np.stack([np.broadcast_to(each, (n, *each.shape[1:])) for each in found])
        return torch.from_numpy(moves).to(self.tools.blocks.real.device)

    def _places(self, reader: int) -> bytes:
        """Return, as something to compare, at which places an input changes."""
        at = self.changes.received_at.get(reader)
        return b"" if at is None else at.tobytes()

    def _project(self, block: Block, readers: Sequence[int]) -> None:
        groups = alike(readers, self._source)
        if self._is_small(readers[0]):
            self._project_together(block, groups)
        else:
            for some in groups:
                self._project_together(block, [some])

    def _project_through(self, readers: Sequence[int], ports: tuple[PortReading, ...]) -> None:
        """Project readers of one change, which comes from few heads."""
        graph = self.state.graph.merged
        keys = [(reader, p) for reader in readers for p in single_ports(graph.readers[reader].port)]
        span = self.changes.received[readers[0]].shape[-2]
        rooms, done = [self._buffer(key, span) for key in keys], 0
        for parts in self._read_through(readers, ports):
            for room, values in zip(rooms, parts, strict=True):
                room[done : done + len(values), :, -span:] = values
            done += len(parts[0])
        self.projected |= dict(zip(keys, rooms, strict=True))

    def _is_small(self, reader: int) -> bool:
        """Say whether streams are so small that putting several into one takes no time."""
        if self.cuts is not None and self.cuts.reader == reader:
            return False
        return self.changes.received[reader].numel() <= _SMALL

    def _project_together(self, block: Block, groups: Sequence[Sequence[int]]) -> None:
        """Project readers, given by what they receive."""
        readers = [reader for some in groups for reader in some]
        done = 0
        for streams in zip(*(self._streams(some[0]) for some in groups), strict=True):
            n, batch, span, _ = streams[0].shape
            rows = self._rows(readers[0])
            received = {
                reader: stream.flatten(0, 1) if rows is None else stream.flatten(1, 2)[:, rows]
                for some, stream in zip(groups, streams, strict=True)
                for reader in some
            }
            for key, values in self.tools.blocks.project(block, readers, received).items():
                if not done:
                    self.projected[key] = self._buffer(key, span, filled=rows is not None)
                room = self.projected[key][done : done + n]
                if rows is None:
                    room[:, :, -span:] = values.unflatten(0, (n, batch))
                else:
                    room.flatten(1, 2)[:, self._rows(readers[0], room.shape[2])] = values
            done += n

    def _buffer(self, key: PortOf, span: int, *, filled: bool = False) -> CandidateHeads:
        """Allocate q, k or v of all candidates; k and v are filled in where they are unchanged.

        Args:
            key: Which.
            span: At how many positions they will be written, counted from the end.
            filled: Whether to fill in all positions, because only some of these will be.
        """
        old = self.state.projected[key]
        if filled:
            old = old[:, -span:] if key[1] == "q" else old
            return old.expand(self.n, -1, -1, -1).clone()
        if key[1] == "q":
            return old.new_empty(self.n, len(old), span, old.shape[-1])
        # Later positions attend to all earlier ones, changed or not.
        room = old.new_empty(self.n, *old.shape)
        room[:, :, :-span] = old[:, :-span]
        return room

    def _run_latents(self, block: Block) -> None:
        """Run the latents that take the output of attention apart, from the z of all heads."""
        spans, model = self.state.spans, self.tools.blocks.model
        heads = self.state.graph.heads_in(block.layer)
        writers = [writer for writer in block.writers if spans.writers[writer]]
        span = int(spans.writers[writers].max())
        z = self._mixed_by(block, heads, span)
        unit, wanted = unit_block(model, block), [writer - block.writers[0] for writer in writers]
        found = []
        for some in z.split(group_size(z[:, 0]), dim=1):
            activations, wide = unit.parts(some.flatten(1, 2), wanted)
            found.append([part.unflatten(0, some.shape[1:3]) for part in (activations, *wide)])
        new = [torch.cat(parts) for parts in zip(*found, strict=True)]
        at = None if self.tools.masks is None else self._sent_at(writers)
        self._write_parts(block, writers, new, self._before(block, writers, span), at)

    def _mixed_by(
        self, block: Block, heads: Sequence[int], span: int, moves: Kept | None = None
    ) -> Float[Tensor, "head candidate batch last d_head"]:
        """Return the z of some heads at the last positions, with the moves that each keeps."""
        graph, layer = self.state.graph.merged, block.layer
        query, key, value = (
            self._values([(graph.input_of(layer, head, port), port) for head in heads], n)
            for port, n in zip(SINGLE_PORTS, (span, 0, 0), strict=True)
        )
        return self.tools.blocks.attend(block, heads, query, key, value, moves)

    def _attend(self, block: Block, writers: Sequence[int], span: int) -> None:
        blocks = self.tools.blocks
        mixed = self._mixed_by(block, blocks.heads(writers), span, self._kept_moves(writers))
        self.z |= dict(zip(writers, mixed, strict=True))
        if block.coupled:
            # What one of them writes depends on the z of all.
            mixed = torch.stack([self._mixed(writer, span) for writer in block.writers])
            outputs = blocks.output(block, block.writers, mixed)
            at = None if self.tools.masks is None else self._sent_at(block.writers)
            for writer, written in zip(block.writers, outputs, strict=True):
                self._write(writer, written, at)
        else:
            before = torch.stack([self.state.z[writer][None, :, -span:] for writer in writers])
            moved = mixed - before
            outputs = blocks.output(block, writers, moved)
            self.changes.moved |= dict(zip(writers, moved, strict=True))
            self.changes.sent |= dict(zip(writers, outputs, strict=True))
            if self.tools.masks is not None:
                self.changes.sent_at |= {writer: self._sent_at([writer]) for writer in writers}

    def _sent_at(self, heads: Sequence[int]) -> AtSome:
        """Return at which places what some heads write together changes.

        A query changes that at its own place, a key or value wherever it may be attended to.
        """
        graph, changed = self.state.graph.merged, self.changes.received_at
        attended = self.state.horizon.at(self.state.graph.n_places).attended
        found = np.zeros(self.state.graph.n_places, dtype=bool)
        for head in self.moves.keys() & heads:
            found |= self.moves[head].at
        for reader in {reader for head in heads for reader in graph.inputs[head]}:
            if reader in changed:
                looks_back = graph.readers[reader].looks_back
                found |= attended[changed[reader]].any(axis=0) if looks_back else changed[reader]
                if looks_back and graph.readers[reader].port == "qkv":
                    found |= changed[reader]
        return found

    def _values(
        self, sources: Sequence[PortOf], last: int
    ) -> Float[Tensor, "head _candidate batch last d_head"]:
        """Return heads' projections at the last positions; once where all candidates share them."""
        found = [
            self.projected.get(source, self.state.projected[source])[..., -last:, :]
            for source in sources
        ]
        if self.state.graph.moves:
            # Queries matter at fewer positions than their heads where their moves are cut.
            found = [pad(each, (0, 0, max(0, last - each.shape[-2]), 0)) for each in found]
        n = max(values.shape[0] if values.ndim == 4 else 1 for values in found)
        found = [values if values.ndim == 4 else values[None] for values in found]
        if len(found) == 1:
            return found[0][None]
        return torch.stack([values.expand(n, -1, -1, -1) for values in found])

    def _mixed(self, writer: int, span: int) -> CandidateHeads:
        if writer in self.z:
            return self.z[writer][:, :, -span:]
        return self.state.z[writer][:, -span:].expand(self.n, -1, -1, -1)

    def _write(self, writer: int, new: Candidates, at: AtSome | None) -> None:
        self.written[writer] = new
        if at is not None:
            self.changes.sent_at[writer] = at
        self.changes.sent[writer] = new - self.state.written[writer][:, -new.shape[2] :]


def _parted(block: Block, writers: Sequence[int]) -> tuple[Senders, Senders]:
    """Return which of some writers of a block are units, and which are not."""
    assert block.units is not None
    first = block.writers[0] + len(block.units.numbers)
    units = tuple(writer for writer in writers if writer < first)
    return units, tuple(writers[len(units) :])


def _of(candidate: int, values: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    # Copied where there are others, so that their share of the memory is freed.
    return {k: v[0] if len(v) == 1 else v[candidate].clone() for k, v in values.items()}
