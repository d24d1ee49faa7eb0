"""Every circuit of a small graph up to a size, measured: what there is, and what there is not.

Where dead ends change nothing (resample ablation), only circuits without any are measured: every
other one does what a smaller one of these does.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import torch

from circuitfind.circuit import Circuit
from circuitfind.evaluation.measured import Mask, Measured
from circuitfind.graph import Graph
from circuitfind.paths import on_paths

MOST_SUBSETS = 20_000
"""Sets of edges that are looked at, at most."""

_TOGETHER = 256


@dataclass(frozen=True)
class Enumerated:
    """All circuits up to a size that are faithful enough.

    Attributes:
        circuits: They, the smallest first, with the faithfulness of each.
        n_subsets: How many sets of edges there are up to that size.
        n_measured: How many of them were measured.
    """

    circuits: tuple[tuple[Circuit, float], ...]
    n_subsets: int
    n_measured: int


def candidates(graph: Graph) -> list[tuple[int, int]]:
    """Return the edges on a path from what reads nothing to the logits, as indices."""
    return [tuple(pair) for pair in on_paths(graph, graph.edge_mask).nonzero().tolist()]


def n_subsets(graph: Graph, n: int) -> int | None:
    """Return how many sets of at most n of these edges there are, the empty one left out.

    None if they are more than `MOST_SUBSETS`.
    """
    n_edges = len(candidates(graph))
    return n_sets(n_edges, range(1, min(n, n_edges) + 1), MOST_SUBSETS)


def n_sets(n: int, sizes: Sequence[int], most: int) -> int | None:
    """Return how many sets of some sizes n edges have.

    None if they are more than `most`: of a large graph the number itself takes long.
    """
    total = 0
    for size in sizes:
        total += math.comb(n, size)
        if total > most:
            return None
    return total


def enumerate_circuits(
    measured: Measured,
    n: int,
    target: float,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Enumerated:
    """Measure every circuit of at most n edges.

    Args:
        measured: Measures them.
        n: The largest size.
        target: How faithful a circuit must be.
        on_progress: Called with how many sets of edges are done.
    """
    graph = measured.problem.graph
    prunes = measured.problem.pruning_is_free
    found: list[tuple[Circuit, float]] = []
    n_measured, done = 0, 0
    subsets = masks_of(graph, candidates(graph), range(1, n + 1))
    while some := list(islice(subsets, _TOGETHER)):
        done += len(some)
        masks = [m for m in some if not prunes or torch.equal(on_paths(graph, m), m)]
        n_measured += len(masks)
        shares = measured.faithfulness(masks) if masks else []
        pairs = zip(masks, shares, strict=True)
        found += [(Circuit(graph, mask), share) for mask, share in pairs if share >= target]
        on_progress(done)
    return Enumerated(tuple(found), done, n_measured)


def masks_of(
    graph: Graph, edges: Sequence[tuple[int, int]], sizes: Sequence[int]
) -> Iterator[Mask]:
    """Yield a mask of every set of some edges, given as indices, that has one of some sizes."""
    for size in sizes:
        for chosen in combinations(edges, size):
            mask = torch.zeros_like(graph.edge_mask)
            for index in chosen:
                mask[index] = True
            yield mask
