"""Draw a random circuit of a given size whose edges all lie on paths from embedding to logits.

Walks start at an embedding and follow uniformly random edges to the logits, until there are as
many edges as wanted. The last walk must not overshoot: while it may add one more edge only, that
edge has to lead to the logits or to a component that is in the circuit already.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from circuitfind.errors import MethodError
from circuitfind.graph import Graph

_FRUITLESS_WALKS = 50
_RESTARTS = 100

Mask = NDArray[np.bool_]
Edge = tuple[int, int]
"""Indices of a writer and a reader."""


def connected_mask(graph: Graph, n_edges: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return the mask of a random connected circuit.

    Args:
        graph: What to draw from.
        n_edges: How many edges it has.
        generator: Where chance comes from.

    Raises:
        MethodError: The graph has not as many edges, or no connected circuit of that size was
            found.
    """
    if not 0 <= n_edges <= graph.n_edges:
        raise MethodError(f"a circuit of {n_edges} edges was asked for; there are {graph.n_edges}")
    if n_edges == graph.n_edges:
        return graph.edge_mask.numpy().copy()
    for _ in range(_RESTARTS):
        growth = _Growth(graph, generator)
        if growth.reaches(n_edges):
            return growth.kept
    raise MethodError(f"found no connected circuit of {n_edges} edges; try another number")


def inflated(graph: Graph, kept: Mask, generator: np.random.Generator) -> tuple[Mask, list[Edge]]:
    """Add a random walk that has at least one new edge to a circuit that is not the full graph.

    Returns:
        The larger circuit, and the edges that are new.
    """
    growth = _Growth(graph, generator, kept)
    growth.reaches(int(kept.sum()) + 1, overshoot=True)
    return growth.kept, [(int(w), int(r)) for w, r in np.argwhere(growth.kept & ~kept)]


class _Growth:
    """A circuit that grows by walks.

    Attributes:
        kept: The edges it has.
    """

    def __init__(
        self, graph: Graph, generator: np.random.Generator, kept: Mask | None = None
    ) -> None:
        self._graph, self._generator = graph, generator
        self._possible = graph.edge_mask.numpy()
        self._leads_to = graph.feeds
        self._follows = [np.flatnonzero(row).tolist() for row in self._possible]
        self._starts, self._logits = graph.embeddings, graph.logits
        self.kept = np.zeros_like(self._possible) if kept is None else kept.copy()
        self._used = {*self._starts, *np.flatnonzero(self.kept.any(axis=1)).tolist()}

    def reaches(self, n_edges: int, *, overshoot: bool = False) -> bool:
        """Grow to a number of edges, or at least to it, and tell whether that was possible."""
        missing = n_edges - int(self.kept.sum())
        while missing > 0:
            most = self._possible.size if overshoot else missing
            added = next(filter(None, map(self._walk, [most] * _FRUITLESS_WALKS)), None)
            added = added or self._between_used()
            if not added:
                return False
            for writer, reader in added:
                self.kept[writer, reader] = True
                self._used.add(writer)
            missing -= len(added)
        return True

    def _walk(self, most: int) -> list[Edge]:
        """Return the new edges of a random walk, `most` at most, all on paths to the logits."""
        writer, new = self._any(self._starts), list[Edge]()
        while True:
            reader = self._step(writer, most - len(new))
            if reader is None:
                return []
            if not self.kept[writer, reader]:
                new.append((writer, reader))
            if reader in self._logits:
                return new
            if len(new) == most:
                # The edge was allowed to be the last one, so a used component follows.
                return new
            writer = self._any(self._leads_to[reader])

    def _step(self, writer: int, left: int) -> int | None:
        """Choose the next reader of a walk that may add `left` more edges; None if it cannot."""
        readers = self._follows[writer]
        if left == 1:
            readers = [r for r in readers if self.kept[writer, r] or self._ends(r)]
        return self._any(readers) if readers else None

    def _any(self, items: Sequence[int]) -> int:
        return items[int(self._generator.integers(len(items)))]

    def _ends(self, reader: int) -> bool:
        """Return whether an edge into a reader needs no further edge."""
        return reader in self._logits or any(w in self._used for w in self._leads_to[reader])

    def _between_used(self) -> list[Edge]:
        """Return one edge between components that are in the circuit, if there is one left."""
        free = list(self._free())
        return [free[int(self._generator.integers(len(free)))]] if free else []

    def _free(self) -> Iterator[Edge]:
        for writer in sorted(self._used):
            for reader in self._follows[writer]:
                if not self.kept[writer, reader] and self._ends(reader):
                    yield writer, reader
