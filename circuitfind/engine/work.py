"""Which components a pass with some edges cut has to run, from either of two runs.

Only components matter that lead to the logits along kept edges, and of these only those change that
receive something else than in the run that the pass starts from.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from circuitfind.engine.horizon import Horizon
from circuitfind.engine.state import spans
from circuitfind.graph import UNIT_KINDS, Graph

Kept = NDArray[np.bool_]
"""True where an edge is kept: `[writer, reader]`."""

Writers = NDArray[np.bool_]
Readers = NDArray[np.bool_]

Start = Literal["clean", "replaced"]
"""The run that a pass starts from: with every edge kept, or with every edge cut."""

_MLP_WIDTH = 4
"""How many times as wide as the stream an MLP's hidden layer is taken to be."""

_ANYWHERE = Horizon(1, 1)


@dataclass(frozen=True)
class Work:
    """What a pass has to do.

    Attributes:
        start: The run that it starts from.
        run: The components to run, by writer index.
        changed: Edges that carry `current output - output in that run`.
        replaced: Edges that carry `replacement - clean output`; none from the replaced run.
        moves: Which moves inside attention are kept (`Graph.inner`); None where they are no edges.
        cost: Multiplications at each position, about.
    """

    start: Start
    run: Writers
    changed: Kept
    replaced: Kept
    moves: NDArray[np.bool_] | None
    cost: int

    @property
    def n_streams(self) -> int:
        """How many changes are held together."""
        return int(self.changed.any(axis=1).sum() + self.replaced.any(axis=1).sum())

    def is_same(self, other: "Work") -> bool:
        """Return whether another pass does just the same."""
        return self.start == other.start and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("run", "changed", "replaced", "moves")
        )


def least_work(graph: Graph, kept: Kept, *, empty_is_a_run: bool) -> Work:
    """Return the work of a pass from the run that makes it less."""
    works = [
        work(graph, kept, start, empty_is_a_run=empty_is_a_run) for start in ("replaced", "clean")
    ]
    return min(works, key=lambda each: each.cost)


def work(graph: Graph, kept: Kept, start: Start, *, empty_is_a_run: bool) -> Work:
    """Return the work of a pass.

    Args:
        graph: The graph.
        kept: The edges that are kept.
        start: The run to start from.
        empty_is_a_run: Whether the graph without edges is a run of the model (resample ablation):
            a component that receives the same as in it then writes the same.
    """
    leads = spans(graph, kept, _ANYWHERE)
    moves = graph.moves_of(kept) if graph.moves else None
    n_writers, n_readers = graph.n_outer
    kept, graph = kept[:n_writers, :n_readers], graph.outer
    live = leads.outer_readers > 0
    sources = np.zeros(len(kept), dtype=bool)
    sources[list(graph.sources)] = True
    travels = kept & live
    nothing, cut = np.zeros_like(kept), graph.edge_mask.numpy() & ~kept & live
    if start == "clean":
        senders = _reached(graph, travels, cut, _with_cut_moves(graph, moves))
    elif empty_is_a_run:
        senders, cut = _reached(graph, travels, nothing, sources), nothing
    else:
        senders, cut = np.ones_like(sources), nothing
    run = senders & ~sources & (leads.writers > 0)
    costs = _costs(graph)
    return Work(
        start,
        run,
        travels & (run if start == "clean" else run | sources)[:, None],
        cut,
        moves,
        # The streams of the replaced run are formed once, for all passes.
        int(costs.run[run].sum() + costs.form[cut.any(axis=1)].sum()),
    )


def _with_cut_moves(graph: Graph, moves: NDArray[np.bool_] | None) -> Writers:
    """Return which writers are heads some of whose moves are cut."""
    found = np.zeros(len(graph.writers), dtype=bool)
    if moves is not None:
        found[list(graph.heads)] = ~moves.all(axis=(1, 2, 3))
    return found


def _reached(graph: Graph, travels: Kept, always: Kept, senders: Writers) -> Writers:
    """Return which writers write something else.

    Args:
        graph: The graph.
        travels: Edges that carry something else if their writer writes something else.
        always: Edges that carry something else in any case.
        senders: Writers that write something else in any case.
    """
    senders = senders.copy()
    receives: Readers = np.any(always, axis=0)
    for block in graph.blocks:
        for reader, writers in zip(block.readers, block.feeds, strict=True):
            if receives[reader] or travels[senders, reader].any():
                senders[list(writers)] = True
        if block.coupled:
            senders[list(block.writers)] = senders[list(block.writers)].any()
    return senders


class _Costs(NamedTuple):
    """Multiplications at a position, by writer.

    Attributes:
        run: Of running the component.
        form: Of forming its output from what is remembered: `z` of a head.
    """

    run: NDArray[np.int64]
    form: NDArray[np.int64]


@lru_cache(maxsize=8)
def _costs(graph: Graph) -> _Costs:
    shape = graph.shape
    head, mlp = shape.d_head * shape.d_model, 2 * _MLP_WIDTH * shape.d_model**2
    is_head = np.array([writer.kind == "head" for writer in graph.writers])
    is_unit = np.array([writer.kind in UNIT_KINDS for writer in graph.writers])
    unit = 3 * shape.d_model
    return _Costs(
        np.where(is_head, 4 * head, np.where(is_unit, unit, mlp)),
        np.where(is_head, head, np.where(is_unit, shape.d_model, 0)),
    )
