"""The state of an incremental search: a forward pass that can be continued with more edges cut.

At which positions a component matters is known from the edges that are kept. The metric reads the
logits at its steps only. Through a query, an MLP or the logits a position depends on itself alone;
through a key or a value later positions depend on all earlier ones. And with causal attention no
position before the first difference of clean and corrupted prompts ever changes. So a component
matters either at the positions from the first step on, or at those from the first difference on,
or nowhere: its span, a number of positions counted from the end of the prompts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.graph import Graph, Input
from circuitfind.models.readings import Reading

Stream = Float[Tensor, "batch _span d_model"]
Candidates = Float[Tensor, "candidate batch _span d_model"]
Projected = Float[Tensor, "batch _span d_head"]
PortReading = tuple[int, Reading]
"""A reader, and how one of its ports reads."""


@dataclass(frozen=True)
class Horizon:
    """How many positions, counted from the end, can matter at all.

    Attributes:
        steps: From the first position whose logits the metric reads.
        changes: From the first position that can change, steps included.
    """

    steps: int
    changes: int


@dataclass(frozen=True)
class Spans:
    """At how many positions, counted from the end, each writer and reader matters; 0 is nowhere."""

    writers: NDArray[np.int64]
    readers: NDArray[np.int64]


def spans(graph: Graph, kept: NDArray[np.bool_], horizon: Horizon) -> Spans:
    """Follow the kept edges back from the logits.

    A block whose writers are coupled matters as a whole wherever any of them does.
    """
    writers = np.zeros(len(graph.writers), dtype=np.int64)
    readers = np.zeros(len(graph.readers), dtype=np.int64)
    readers[graph.logits] = horizon.steps
    # In parallel blocks no edge leads from a block's heads to its MLP, so one block at a time is
    # right there too.
    for block in reversed(_indices(graph)):
        own = (kept[block.writers, block.later :] * readers[block.later :]).max(axis=1)
        if block.coupled:
            own[:] = own.max()
        writers[block.writers] = own
        if len(block.readers):
            fed = writers[block.feeds].max(axis=1)
            readers[block.readers] = np.where(block.looks_back & (fed > 0), horizon.changes, fed)
    return Spans(writers, readers)


class _Indices(NamedTuple):
    """A block that writes, as arrays of indices.

    Attributes:
        writers: Its writers.
        readers: Its readers.
        feeds: For each of them, the writers that it feeds; the first one again to fill rows up.
        looks_back: Of each of them, whether earlier positions count.
        later: The first reader behind the block's own.
        coupled: Whether each writer depends on the inputs of all.
    """

    writers: NDArray[np.int64]
    readers: NDArray[np.int64]
    feeds: NDArray[np.int64]
    looks_back: NDArray[np.bool_]
    later: int
    coupled: bool


@lru_cache(maxsize=8)
def _indices(graph: Graph) -> tuple[_Indices, ...]:
    found = []
    for block in graph.blocks:
        if block.writers:
            most = max(map(len, block.feeds), default=0)
            feeds = [[*fed, *fed[:1] * (most - len(fed))] for fed in block.feeds]
            looks_back = [graph.readers[reader].looks_back for reader in block.readers]
            found.append(
                _Indices(
                    np.array(block.writers),
                    np.array(block.readers, dtype=np.int64),
                    np.array(feeds, dtype=np.int64),
                    np.array(looks_back, dtype=bool),
                    max(block.readers, default=-1) + 1,
                    block.coupled,
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
        read: What each reader receives, by reader index.
        projected: Each head's query, key and value, by reader index and port.
        z: Each head's z, by writer index.
        products: Linear maps of what some readers receive, where these were carried along with it.
            They round otherwise than those made anew.
    """

    graph: Graph
    horizon: Horizon
    kept: NDArray[np.bool_]
    spans: Spans
    written: Mapping[int, Stream]
    read: Mapping[int, Stream]
    projected: Mapping[tuple[int, Input], Projected]
    z: Mapping[int, Projected]
    products: Mapping[PortReading, Float[Tensor, "batch _span _width"]] = field(
        default_factory=dict
    )

    @property
    def final(self) -> Stream:
        """What the logits read."""
        return self.read[self.graph.logits]

    def product(self, port: PortReading, stream: Stream) -> Float[Tensor, "batch _span _width"]:
        """Return the linear map of what a reader receives, given that at its last positions."""
        known, (_, reading) = self.products.get(port), port
        if known is None:
            return reading.linear(reading.norm.centre(stream))
        return known[:, -stream.shape[-2] :]

    def keeping(self, kept: NDArray[np.bool_]) -> "ChunkState":
        """Return the state with these edges kept, before anything is brought up to date.

        It has no products, so that rounding does not depend on the way here.
        """
        now = spans(self.graph, kept, self.horizon)
        return replace(self, kept=kept, spans=now, products={})
