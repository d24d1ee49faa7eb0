"""Which edges lie on a path of kept edges from what reads nothing to the logits.

A path leads from edge to edge through a component at one place, except that what a key or a value
receives at a place may reach its heads at every place; where moves inside attention are edges, at
those places into which a move from there is kept. Two passes over the blocks find both ends of
all paths at once: where writers are reached, and where readers are used.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.graph import SINGLE_PORTS, Graph


def on_paths(graph: Graph, kept: Bool[Tensor, "writer reader"]) -> Bool[Tensor, "writer reader"]:
    """Return the kept edges on a path of kept edges from what reads nothing to the logits.

    Where heads share a norm, one that reads nothing of the clean run still writes something new:
    another head's change reaches it through the scale of the norm.
    """
    every, (n_writers, n_readers) = kept.cpu().numpy(), graph.n_outer
    edges = every[:n_writers, :n_readers].reshape(n_writers, -1, graph.n_places)
    paths = _Paths(graph, edges, every[graph.inner] if graph.moves else None)
    reached, needed = paths.reached(), paths.needed()
    found = every.copy()
    found[:n_writers, :n_readers] = (edges & reached[:, None] & paths.used).reshape(n_writers, -1)
    if graph.moves:
        found[graph.inner] = paths.used_moves(needed)
    return torch.from_numpy(found)


class _Paths:
    """Two passes over the blocks of a graph.

    Args:
        graph: The graph.
        edges: Its kept edges that are not inside attention, of the merged graph by place.
        moves: Its kept moves (`Graph.inner`), where these are edges.

    Attributes:
        received: At which places readers receive something of the embedding, or of a fixed error.
        used: At which places what readers receive is used for the logits.
    """

    def __init__(
        self,
        graph: Graph,
        edges: Bool[np.ndarray, "writer reader place"],
        moves: Bool[np.ndarray, "head port source destination"] | None,
    ) -> None:
        self._graph, self._edges, self._moves = graph.merged, edges, moves
        self.received, self.used = np.zeros((2, *edges.shape[1:]), dtype=bool)

    def reached(self) -> Bool[np.ndarray, "writer place"]:
        """Return at which places what writers write depends on what reads nothing."""
        graph = self._graph
        reached = np.zeros((len(graph.writers), self._edges.shape[2]), dtype=bool)
        reached[list(graph.sources)] = True
        for block in graph.blocks:
            writers = list(block.writers)
            for reader, fed in zip(block.readers, block.feeds, strict=True):
                self.received[reader] = (self._edges[:, reader] & reached).any(axis=0)
                reached[list(fed)] |= self._written(reader, fed)
            if block.coupled:
                reached[writers] = reached[writers].any(axis=0)
        return reached

    def needed(self) -> Bool[np.ndarray, "writer place"]:
        """Return at which places what writers write is used for the logits."""
        graph, edges, used = self._graph, self._edges, self.used
        used[list(graph.logits)] = True
        needed = np.zeros((len(graph.writers), edges.shape[2]), dtype=bool)
        for block in reversed(graph.blocks):
            writers = list(block.writers)
            needed[writers] = (edges[writers] & used).any(axis=1)
            if block.coupled:
                needed[writers] = needed[writers].any(axis=0)
            for reader, fed in zip(block.readers, block.feeds, strict=True):
                if fed:
                    used[reader] = self._asked(reader, needed[list(fed)], fed)
        return needed

    def used_moves(
        self, needed: Bool[np.ndarray, "writer place"]
    ) -> Bool[np.ndarray, "head port source destination"]:
        """Return the kept moves of what a head receives to a place where it is needed."""
        assert self._moves is not None
        found: NDArray[np.bool_] = self._moves & needed[list(self._graph.heads)][:, None, None]
        for number, head in enumerate(self._graph.heads):
            for axis, port in enumerate(SINGLE_PORTS):
                here = self.received[self._graph.input_of_writer(head, port)]
                found[number, axis] &= here if port == "q" else here[:, None]
        return found

    def _written(
        self, reader: int, fed: Sequence[int]
    ) -> Bool[np.ndarray, "_fed place"] | Bool[np.ndarray, " place"]:
        """Return at which places writers depend on what a reader that feeds them receives."""
        here, moves = self.received[reader], self._moves_of(reader, fed)
        if moves is not None:
            is_query = self._graph.readers[reader].port == "q"
            found: NDArray[np.bool_] = (moves & (here if is_query else here[:, None])).any(axis=1)
            return found
        return _at_places(self._graph, reader, here)

    def _asked(
        self, reader: int, needed: Bool[np.ndarray, "fed place"], fed: Sequence[int]
    ) -> Bool[np.ndarray, " place"]:
        """Return at which places a reader counts for what the writers that it feeds write."""
        moves = self._moves_of(reader, fed)
        if moves is not None:
            axis = 1 if self._graph.readers[reader].port == "q" else 2
            found: NDArray[np.bool_] = (moves & needed[:, None]).any(axis=(0, axis))
            return found
        return _at_places(self._graph, reader, np.asarray(needed.any(axis=0)))

    def _moves_of(
        self, reader: int, fed: Sequence[int]
    ) -> Bool[np.ndarray, "fed source destination"] | None:
        """Return the kept moves by a port of the heads that it feeds; None of other readers."""
        port = self._graph.readers[reader].port
        if self._moves is None or port not in SINGLE_PORTS:
            return None
        heads = [self._graph.head_number[head] for head in fed]
        found: NDArray[np.bool_] = self._moves[heads, SINGLE_PORTS.index(port)]
        return found


def _at_places(
    graph: Graph, reader: int, here: Bool[np.ndarray, " place"]
) -> Bool[np.ndarray, " place"]:
    """Return the places at which a head or MLP belongs together with a reader at some places."""
    return here | here.any() if graph.readers[reader].looks_back else here
