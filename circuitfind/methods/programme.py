"""The best connected circuit of a size by an integer programme.

Of all circuits of at most n edges that have no dead end, the one whose scores add up to most
(arXiv 2510.25786 chooses edges so). Taking edges by rank leaves dead ends, and a best-first walk
takes a weak edge only if it is the best at hand; this weighs all of them together. In large graphs
only the edges with the highest scores, and those of the walk, can be chosen.

    maximise  sum of score_e x_e    with x_e 0 or 1, at most n of them 1
    an edge into a reader needs a kept edge that leads on from what the reader feeds
    an edge out of a writer needs a kept edge that leads into the writer
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array
from torch import Tensor

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.errors import MethodError
from circuitfind.graph import Graph
from circuitfind.limits import require

MOST_CANDIDATES = 4_000
"""Among so many edges, or 4 n if these are more, is chosen."""

SECONDS = 60.0
"""After so long the best circuit that was found is taken."""

_IS_KEPT = 0.5

_Key = tuple[int, tuple[int, ...]]
"""A writer, and its inputs at a place."""


def best_connected(scores: EdgeScores, n: int, *, signed: bool = False) -> Circuit:
    """Keep at most n edges without a dead end whose scores add up to most.

    Edges without a score are not taken.

    Args:
        scores: The scores.
        n: How many edges at most.
        signed: Whether scores count by value; otherwise by size.

    Raises:
        MethodError: The programme was not solved in time.
    """
    require(edges=n)
    graph = scores.graph
    writers, readers = _candidates(scores, n, signed=signed).nonzero(as_tuple=True)
    kept = torch.zeros_like(graph.edge_mask)
    if not len(writers):
        return Circuit(graph, kept, scores.values)
    ranked = scores.values[writers, readers].double()
    values = (ranked if signed else ranked.abs()).numpy()
    programme = _Programme(graph, writers.tolist(), readers.tolist())
    found = milp(
        np.concatenate([-values, np.zeros(programme.n - len(values))]),
        constraints=programme.constraints(n),
        integrality=programme.is_edge,
        bounds=Bounds(0, 1),
        options={"time_limit": SECONDS},
    )
    if found.x is None:
        raise MethodError(
            f"the integer programme of {len(values):,} edges was not solved in {SECONDS:.0f} "
            "seconds; choose another walk (top or greedy)"
        )
    chosen = torch.from_numpy(found.x[: len(values)] > _IS_KEPT)
    kept[writers[chosen], readers[chosen]] = True
    return Circuit(graph, kept, scores.values)


def _candidates(scores: EdgeScores, n: int, *, signed: bool) -> Bool[Tensor, "writer reader"]:
    """Return the edges among which is chosen: those with a score, of many only the best."""
    scored = scores.graph.edge_mask & ~scores.values.isnan()
    most = max(MOST_CANDIDATES, 4 * n)
    if int(scored.sum()) <= most:
        return scored
    # Those of the walk are connected, so there is a circuit that is at least as good.
    return scores.top(most, signed=signed).kept | scores.greedy(n, signed=signed).kept


def _inputs_at(graph: Graph, writer: int, reader: int) -> tuple[int, ...]:
    """Return the readers on which depends what a reader receives from a writer."""
    block = graph.block_of[graph.writers[writer].component]
    writers = block.writers if block.coupled else (writer,)
    return tuple(sorted({each for w in writers for each in graph.inputs_at(w, reader)}))


class _Programme:
    """The constraints of a programme, collected row by row: what one sum is at most the other.

    Its variables are the edges, and after them whether readers are live, and whether writers are
    read and reached at a place.

    Args:
        graph: The graph.
        writers: The writer of each edge.
        readers: Its reader.
    """

    def __init__(self, graph: Graph, writers: Sequence[int], readers: Sequence[int]) -> None:
        self.n = self._n_edges = len(writers)
        self._entries: list[tuple[int, int, float]] = []
        self._n_rows = 0
        into, out = defaultdict[int, list[int]](list), defaultdict[_Key, list[int]](list)
        for edge, (writer, reader) in enumerate(zip(writers, readers, strict=True)):
            into[reader].append(edge)
            out[writer, _inputs_at(graph, writer, reader)].append(edge)
        read_from = defaultdict[int, list[int]](list)
        for (_, inputs), edges in out.items():
            is_read = self._at_most_sum_of(edges)
            for reader in inputs:
                read_from[reader].append(is_read)
            if inputs:
                self._need(edges, [edge for reader in inputs for edge in into[reader]])
        for reader, edges in into.items():
            if reader not in graph.logits:
                self._need(edges, read_from[reader])

    def _at_most_sum_of(self, others: Sequence[int]) -> int:
        """Add a variable that is 0 unless one of the others is not."""
        variable, self.n = self.n, self.n + 1
        self._row([variable], others)
        return variable

    def _need(self, edges: Sequence[int], others: Sequence[int]) -> None:
        """Allow edges only where one of the others is not 0."""
        variable = self._at_most_sum_of(others)
        for edge in edges:
            self._row([edge], [variable])

    def _row(self, lesser: Sequence[int], greater: Sequence[int]) -> None:
        row, self._n_rows = self._n_rows, self._n_rows + 1
        self._entries += [(row, column, 1.0) for column in lesser]
        self._entries += [(row, column, -1.0) for column in greater]

    @property
    def is_edge(self) -> NDArray[np.int64]:
        """1 for each edge; 0 for the other variables, which need not be whole numbers."""
        return (np.arange(self.n) < self._n_edges).astype(np.int64)

    def constraints(self, n: int) -> list[LinearConstraint]:
        """Return all constraints, and that at most n edges are kept."""
        rows, columns, signs = zip(*self._entries, strict=True)
        sums = coo_array((signs, (rows, columns)), shape=(self._n_rows, self.n)).tocsr()
        size = coo_array(self.is_edge[None, :].astype(float)).tocsr()
        return [LinearConstraint(sums, ub=0), LinearConstraint(size, ub=n)]
