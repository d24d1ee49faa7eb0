"""The state of an incremental search: a forward pass that can be continued with more edges cut.

At which positions a component matters is known from the edges that are kept. The metric reads the
logits at its steps only. Through a query, an MLP or the logits a position depends on itself alone;
through a key or a value later positions depend on all earlier ones. And with causal attention no
position before the first difference of clean and corrupted prompts ever changes. So a component
matters either at the positions from the first step on, or at those from the first difference on,
or nowhere: its span, a number of positions counted from the end of the prompts.

Where edges tell places apart, this is followed back for each place: a reader matters at its own
place only, and a key or value there if a place that may attend to it matters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.engine.horizon import AtPlaces, Horizon
from circuitfind.graph import SINGLE_PORTS, Graph, Input, Port
from circuitfind.models.readings import Reading

Stream = Float[Tensor, "batch _span d_model"]
Candidates = Float[Tensor, "candidate batch _span d_model"]
Projected = Float[Tensor, "batch _span d_head"]
Mixed = Float[Tensor, "batch _span _width"]
_NUMBER: dict[Port | None, int] = {port: number for number, port in enumerate(SINGLE_PORTS)}

PortReading = tuple[int, Reading]
"""A reader, and how one of its ports reads."""


@dataclass(frozen=True)
class Spans:
    """At how many positions, counted from the end, components matter; 0 is nowhere.

    Attributes:
        writers_at: Each writer, by place.
        readers_at: Each reader of the merged graph, by place.
        heads: The writers at which moves inside attention arrive.
    """

    writers_at: NDArray[np.int64]
    readers_at: NDArray[np.int64]
    heads: tuple[int, ...] = ()

    @cached_property
    def writers(self) -> NDArray[np.int64]:
        """Each writer, at any place."""
        found: NDArray[np.int64] = self.writers_at.max(axis=1)
        return found

    @cached_property
    def outer_readers(self) -> NDArray[np.int64]:
        """Each reader that is not inside attention."""
        return self.readers_at.reshape(-1)

    @cached_property
    def readers(self) -> NDArray[np.int64]:
        """Each reader."""
        if not self.heads:
            return self.outer_readers
        return np.concatenate([self.outer_readers, self.writers_at[list(self.heads)].reshape(-1)])

    @cached_property
    def inputs(self) -> NDArray[np.int64]:
        """Each reader of the merged graph, at any place."""
        found: NDArray[np.int64] = self.readers_at.max(axis=1)
        return found


def spans(
    graph: Graph,
    kept: NDArray[np.bool_],
    horizon: Horizon,
    known: Spans | None = None,
    changed: NDArray[np.bool_] | None = None,
) -> Spans:
    """Follow the kept edges back from the logits.

    A block whose writers are coupled matters as a whole wherever any of them does.

    Args:
        graph: The graph.
        kept: The edges that are kept.
        horizon: How many positions can matter at all.
        known: What is known of a graph that differs in edges at some places only.
        changed: These places; by default all.
    """
    n_places, at = graph.n_places, horizon.at(graph.n_places)
    moves = _moves(graph, kept) if graph.moves else None
    n_writers, n_readers = graph.n_outer
    kept = kept[:n_writers, :n_readers]
    if known is None:
        writers = np.zeros((n_writers, n_places), dtype=np.int64)
        readers = np.zeros((len(graph.merged.readers), n_places), dtype=np.int64)
        readers[graph.merged.logits] = at.steps
    else:
        writers, readers = known.writers_at.copy(), known.readers_at.copy()
    changed = np.ones(n_places, dtype=bool) if changed is None else changed.copy()
    edges = kept.reshape(len(kept), -1, n_places)
    # In parallel blocks no edge leads from a block's heads to its MLP, so one block at a time is
    # right there too.
    for block in reversed(_indices(graph.merged)):
        before = writers[block.writers]
        for place in np.flatnonzero(changed):
            own = (edges[block.writers, block.later :, place] * readers[block.later :, place]).max(
                axis=1
            )
            writers[block.writers, place] = own.max() if block.coupled else own
        if len(block.readers) and (known is None or (before != writers[block.writers]).any()):
            if moves is not None and block.ports is not None:
                new = _through_moves(block, block.ports, writers, moves, at)
            else:
                fed = writers[block.feeds].max(axis=1)
                read_back = (at.attended & (fed > 0)[:, None, :]).any(axis=2) * at.changes
                new = np.where(block.looks_back[:, None], read_back, fed)
            changed |= (readers[block.readers] != new).any(axis=0)
            readers[block.readers] = new
    return Spans(writers, readers, graph.heads if graph.moves else ())


def _moves(graph: Graph, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which moves are kept, by writer; none of a writer that is not a head."""
    found = np.zeros((graph.n_outer[0], len(SINGLE_PORTS), graph.n_places, graph.n_places), bool)
    found[list(graph.heads)] = kept[graph.inner]
    return found


def _through_moves(
    block: "_Indices",
    ports: NDArray[np.int64],
    writers: NDArray[np.int64],
    moves: NDArray[np.bool_],
    at: AtPlaces,
) -> NDArray[np.int64]:
    """Return where the readers of heads matter, some of whose moves are cut."""
    used = writers[block.feeds] > 0
    kept = moves[block.feeds, ports[:, None]] & used[:, :, None, :] & at.attended
    read_back = kept.any(axis=(1, 3)) * at.changes
    asked = np.where(kept.any(axis=2), writers[block.feeds], 0).max(axis=1)
    found: NDArray[np.int64] = np.where(block.looks_back[:, None], read_back, asked)
    return found


class _Indices(NamedTuple):
    """A block that writes, as arrays of indices.

    Attributes:
        writers: Its writers.
        readers: Its readers.
        feeds: For each of them, the writers that it feeds; the first one again to fill rows up.
        looks_back: Of each of them, whether earlier positions count.
        later: The first reader behind the block's own.
        coupled: Whether each writer depends on the inputs of all.
        ports: Of each reader of a head, which of its ports it is; None of other blocks.
    """

    writers: NDArray[np.int64]
    readers: NDArray[np.int64]
    feeds: NDArray[np.int64]
    looks_back: NDArray[np.bool_]
    later: int
    coupled: bool
    ports: NDArray[np.int64] | None


@lru_cache(maxsize=8)
def _indices(graph: Graph) -> tuple[_Indices, ...]:
    found = []
    for block in graph.blocks:
        if block.writers:
            most = max(map(len, block.feeds), default=0)
            feeds = [[*fed, *fed[:1] * (most - len(fed))] for fed in block.feeds]
            looks_back = [graph.readers[reader].looks_back for reader in block.readers]
            ports = [graph.readers[reader].port for reader in block.readers]
            is_split = block.kind == "attention" and graph.split_qkv
            found.append(
                _Indices(
                    np.array(block.writers),
                    np.array(block.readers, dtype=np.int64),
                    np.array(feeds, dtype=np.int64),
                    np.array(looks_back, dtype=bool),
                    max(block.readers, default=-1) + 1,
                    block.coupled,
                    np.array([_NUMBER[port] for port in ports]) if is_split else None,
                )
            )
    return tuple(found)


@dataclass(frozen=True)
class ChunkState:
    """A forward pass on some prompts, with some edges cut.

    Tensors of a component hold at least the positions of its span, and always the last ones; keys
    and values hold all positions. What matters nowhere is not kept up to date: edges are only
    ever cut, so nothing will read it again.

    Attributes:
        graph: What the indices refer to.
        horizon: How many positions can matter at all.
        kept: True where an edge is kept.
        spans: At how many positions components matter, which follows from the edges kept.
        written: What each writer writes, by writer index; of heads only where they share a norm.
        read: What each input receives, by the index of its reader in the merged graph.
        projected: Each head's query, key and value, by that index and port.
        z: Each head's z, and each unit's activation, by writer index.
        products: Linear maps of what some inputs receive, where these were carried along with it.
            They round otherwise than those made anew.
    """

    graph: Graph
    horizon: Horizon
    kept: NDArray[np.bool_]
    spans: Spans
    written: Mapping[int, Stream]
    read: Mapping[int, Stream]
    projected: Mapping[tuple[int, Input], Projected]
    z: Mapping[int, Mixed]
    products: Mapping[PortReading, Float[Tensor, "batch _span _width"]] = field(
        default_factory=dict
    )

    @property
    def final(self) -> Stream:
        """What the logits read."""
        return self.read[self.graph.merged.logits[0]]

    def product(self, port: PortReading, stream: Stream) -> Float[Tensor, "batch _span _width"]:
        """Return the linear map of what a reader receives, given that at its last positions."""
        known, (_, reading) = self.products.get(port), port
        if known is None:
            return reading.linear(reading.norm.centre(stream))
        return known[:, -stream.shape[-2] :]

    @property
    def edges(self) -> NDArray[np.bool_]:
        """True where an edge that is not inside attention is kept."""
        n_writers, n_readers = self.graph.n_outer
        return self.kept[:n_writers, :n_readers]

    @cached_property
    def moves(self) -> NDArray[np.bool_]:
        """Which moves inside attention are kept (`Graph.inner`)."""
        return self.graph.moves_of(self.kept)

    def moves_without(
        self, reader: int, writers: Sequence[int], *, nested: bool
    ) -> Bool[np.ndarray, "candidate head port source destination"]:
        """Return the moves that are kept with each of some cut, or with those before it too."""
        rows, columns = self.graph.inner
        cut = rows[None] == np.array(writers)[:, None, None, None, None]
        cut = cut & (columns == reader)
        return self.moves & ~(np.logical_or.accumulate(cut) if nested else cut)

    def keeping(self, kept: NDArray[np.bool_]) -> "ChunkState":
        """Return the state with these edges kept, before anything is brought up to date.

        It has no products, so that rounding does not depend on the way here.
        """
        n = self.graph.n_places
        if self.graph.moves:
            return replace(
                self, kept=kept, spans=spans(self.graph, kept, self.horizon), products={}
            )
        changed = (self.kept != kept).any(axis=0).reshape(-1, n).any(axis=0)
        now = spans(self.graph, kept, self.horizon, self.spans, changed)
        return replace(self, kept=kept, spans=now, products={})
