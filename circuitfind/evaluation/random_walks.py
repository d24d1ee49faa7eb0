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
    if not growth.reaches(int(kept.sum()) + 1, overshoot=True):
        growth.takes_path()
    return growth.kept, [(int(w), int(r)) for w, r in np.argwhere(growth.kept & ~kept)]


def exchanged(graph: Graph, kept: Mask, edge: Edge, generator: np.random.Generator) -> Mask:
    """Cut an edge of a circuit, and add a random one between its components, if there is any."""
    growth = _Growth(graph, generator, kept)
    added = growth.between_used()
    growth.kept[edge] = False
    for writer, reader in added:
        growth.kept[writer, reader] = True
    return growth.kept


class _Growth:
    """A circuit that grows by walks.

    Attributes:
        kept: The edges it has.
    """

    def __init__(
        self, graph: Graph, generator: np.random.Generator, kept: Mask | None = None
    ) -> None:
        # A component at a place is numbered as readers are: those of one at all places together.
        self._generator, self._n_places = generator, graph.n_places
        self._possible = graph.edge_mask.numpy()
        self._leads_to = _leads_to(graph)
        self._follows = [
            (place + graph.n_places * np.flatnonzero(row[place :: graph.n_places])).tolist()
            for row in self._possible
            for place in range(graph.n_places)
        ]
        self._starts = _everywhere(graph, graph.embeddings)
        self._logits = graph.logits
        self.kept = np.zeros_like(self._possible) if kept is None else kept.copy()
        self._used = {*self._starts, *(self._at(*edge) for edge in np.argwhere(self.kept).tolist())}

    def _at(self, writer: int, reader: int) -> int:
        """Return the number of a writer at the place of a reader."""
        return writer * self._n_places + reader % self._n_places

    def reaches(self, n_edges: int, *, overshoot: bool = False) -> bool:
        """Grow to a number of edges, or at least to it, and tell whether that was possible."""
        missing = n_edges - int(self.kept.sum())
        while missing > 0:
            most = self._possible.size if overshoot else missing
            added = next(filter(None, map(self._walk, [most] * _FRUITLESS_WALKS)), None)
            added = added or self.between_used()
            if not added:
                return False
            for writer, reader in added:
                self.kept[writer, reader] = True
                self._used.add(self._at(writer, reader))
            missing -= len(added)
        return True

    def takes_path(self) -> None:
        """Add the shortest path through a random edge that is missing, which walks did not find."""
        missing = np.argwhere(self._possible & ~self.kept).tolist()
        writer, reader = missing[int(self._generator.integers(len(missing)))]
        self.kept[writer, reader] = True
        self._add_before(self._at(writer, reader))
        self._add_after(reader)

    def _add_before(self, component: int) -> None:
        """Add a path from an embedding to a component at a place."""
        if component in self._starts:
            return
        into = self._any([r for r, fed in enumerate(self._leads_to) if component in fed])
        writer = self._starts[0] // self._n_places
        if not self._possible[writer, into]:
            writer = self._any(np.flatnonzero(self._possible[:, into]).tolist())
            self._add_before(self._at(writer, into))
        self.kept[writer, into] = True

    def _add_after(self, reader: int) -> None:
        """Add a path from a reader to the logits."""
        if reader in self._logits:
            return
        component = self._any(self._leads_to[reader])
        last, place = divmod(component, self._n_places)
        following = self._logits[place]
        if not self._possible[last, following]:
            following = self._any(self._follows[component])
            self._add_after(following)
        self.kept[last, following] = True

    def _walk(self, most: int) -> list[Edge]:
        """Return the new edges of a random walk, `most` at most, all on paths to the logits."""
        component, new = self._any(self._starts), list[Edge]()
        while True:
            reader = self._step(component, most - len(new))
            if reader is None:
                return []
            writer = component // self._n_places
            if not self.kept[writer, reader]:
                new.append((writer, reader))
            if reader in self._logits:
                return new
            if len(new) == most:
                # The edge was allowed to be the last one, so a used component follows.
                return new
            component = self._any(self._leads_to[reader])

    def _step(self, component: int, left: int) -> int | None:
        """Choose the next reader of a walk that may add `left` more edges; None if it cannot."""
        readers = self._follows[component]
        if left == 1:
            kept = self.kept[component // self._n_places]
            readers = [r for r in readers if kept[r] or self._ends(r)]
        return self._any(readers) if readers else None

    def _any(self, items: Sequence[int]) -> int:
        return items[int(self._generator.integers(len(items)))]

    def _ends(self, reader: int) -> bool:
        """Return whether an edge into a reader needs no further edge."""
        return reader in self._logits or not self._used.isdisjoint(self._leads_to[reader])

    def between_used(self) -> list[Edge]:
        """Return one edge between components that are in the circuit, if there is one left."""
        free = list(self._free())
        return [free[int(self._generator.integers(len(free)))]] if free else []

    def _free(self) -> Iterator[Edge]:
        for component in sorted(self._used):
            writer = component // self._n_places
            for reader in self._follows[component]:
                if not self.kept[writer, reader] and self._ends(reader):
                    yield writer, reader


def _leads_to(graph: Graph) -> list[list[int]]:
    """Return for each reader the components, at places, that compute with what it receives."""
    n, everywhere = graph.n_places, {fed: _everywhere(graph, fed) for fed in set(graph.feeds)}
    return [
        everywhere[fed] if reader.looks_back else [writer * n + number % n for writer in fed]
        for number, (reader, fed) in enumerate(zip(graph.readers, graph.feeds, strict=True))
    ]


def _everywhere(graph: Graph, writers: Sequence[int]) -> list[int]:
    return [w * graph.n_places + place for w in writers for place in range(graph.n_places)]
