"""Similarity of two circuits of one graph by chance.

Two answers to "compared with what?", both with each circuit's size and layer profile left as it is:

    layer profile     each circuit keeps as many edges between any two layers, port by port, as it
                      does, drawn at random. What two such circuits share is a sum of independent
                      hypergeometric numbers, one for each pair of layers, so expectation and
                      p-value are exact.
    exchanged heads   one circuit stays a connected circuit with the same degrees, but which head of
                      a layer plays which part is drawn at random (key/value heads move with the
                      query heads that share them). Stricter: whatever any connected circuit of this
                      shape would share with the other is not counted as agreement.

A p-value is the probability that chance alone gives at least the overlap that was found.
"""

import itertools
import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.graph import Block, Graph

LAYER_PROFILE, EXCHANGED_HEADS = "layer profile", "exchanged heads"

DRAWS = 9_999
"""Number of exchanges that are drawn where there are too many to try all."""


@dataclass(frozen=True)
class Chance:
    """Expectation and p-value under a null hypothesis.

    Attributes:
        expected: The mean value by chance.
        p_value: The probability of at least the value that was found.
    """

    expected: float
    p_value: float


@dataclass(frozen=True)
class Statistic:
    """A number that says how alike two circuits are, held against chance.

    Attributes:
        value: The number; None if it is undefined.
        chance: What each null hypothesis expects, by its name.
    """

    value: float | None
    chance: dict[str, Chance] = field(default_factory=dict)


@dataclass(frozen=True)
class Distribution:
    """Of a count, under a null hypothesis.

    Attributes:
        values: The counts that can occur.
        weights: Their probabilities.
    """

    values: Int[np.ndarray, " outcome"]
    weights: Float[np.ndarray, " outcome"]

    def chance(self, found: int, scores: Float[np.ndarray, " outcome"]) -> Chance:
        """Return what is expected of a score that grows with the count."""
        expected = float((scores * self.weights).sum())
        return Chance(expected, min(1.0, float(self.weights[self.values >= found].sum())))


def shared_by_profile(
    left: Bool[np.ndarray, "..."],
    right: Bool[np.ndarray, "..."],
    among: Bool[np.ndarray, "..."],
    stratum: Int[np.ndarray, "..."],
) -> Distribution:
    """Return how many members two random sets share, if each keeps its number in every stratum.

    Args:
        left: The members of one set.
        right: The members of the other.
        among: What can be a member at all.
        stratum: The stratum of each candidate.
    """
    size = int(stratum[among].max()) + 1
    all_, ours, theirs = (
        np.bincount(stratum[mask], minlength=size) for mask in (among, left, right)
    )
    least, weights = 0, np.ones(1)
    for n, a, b in zip(all_, ours, theirs, strict=True):
        if a and b:
            least += max(0, int(a + b - n))
            weights = np.convolve(weights, _hypergeometric(int(n), int(a), int(b)))
    return Distribution(least + np.arange(len(weights)), weights)


@cache
def _hypergeometric(n: int, a: int, b: int) -> Float[np.ndarray, " outcome"]:
    """Return the probabilities of what a and b of n things, drawn at random, have in common."""
    outcomes = range(max(0, a + b - n), min(a, b) + 1)
    all_ways = math.comb(n, b)
    return np.array([math.comb(a, k) * math.comb(n - a, b - k) / all_ways for k in outcomes])


Writers = Int[np.ndarray, "way writer"]
"""The new indices of all exchangeable writers, block by block."""


@dataclass(frozen=True)
class Exchanges:
    """Ways to exchange the heads of each layer; the one that changes nothing is among them.

    Attributes:
        writers: In each way, the new index of every writer.
        readers: In each way, the new index of every reader.
        complete: Whether these are all ways.
    """

    writers: Int[np.ndarray, "way writer"]
    readers: Int[np.ndarray, "way reader"]
    complete: bool

    def __len__(self) -> int:
        return len(self.writers)


def exchanges(graph: Graph, *, seed: int = 0, draws: int = DRAWS) -> Exchanges:
    """Return all ways to exchange heads within their layers, or some drawn at random."""
    complete = n_exchanges(graph) <= draws
    ways = _all_ways(graph) if complete else _drawn_ways(graph, seed, draws)
    writers = np.tile(np.arange(len(graph.writers)), (len(ways), 1))
    writers[:, _exchangeable(graph)] = ways
    readers = np.tile(np.arange(len(graph.readers)), (len(ways), 1))
    for block in filter(_is_exchangeable, graph.blocks):
        inputs = np.array([graph.outer.inputs[writer] for writer in block.writers])
        for reader, fed in zip(block.readers, block.feeds, strict=True):
            port = graph.outer.inputs[fed[0]].index(reader)
            readers[:, reader] = inputs[writers[:, fed[0]] - block.writers[0], port]
    if graph.moves:
        rows, columns = graph.inner
        heads = np.searchsorted(graph.heads, writers[:, list(graph.heads)])
        writers[:, rows.flatten()] = rows[heads].reshape(len(ways), -1)
        readers[:, columns.flatten()] = columns[heads].reshape(len(ways), -1)
    return Exchanges(writers, readers, complete)


def n_exchanges(graph: Graph) -> int:
    """Return in how many ways exchangeable writers can be exchanged."""
    return math.prod(
        math.factorial(len(block.exchangeable))
        * math.prod(math.factorial(len(group)) for group in block.exchangeable)
        for block in graph.blocks
    )


def _is_exchangeable(block: Block) -> bool:
    return bool(block.exchangeable)


def _exchangeable(graph: Graph) -> list[int]:
    return [writer for block in filter(_is_exchangeable, graph.blocks) for writer in block.writers]


def _all_ways(graph: Graph) -> Writers:
    by_block = [_ways(block) for block in filter(_is_exchangeable, graph.blocks)]
    return np.array([list(itertools.chain(*way)) for way in itertools.product(*by_block)])


def _ways(block: Block) -> list[list[int]]:
    """Return all orders of a block's writers: of its groups, and within each."""
    within = [list(itertools.permutations(range(len(group)))) for group in block.exchangeable]
    return [
        [group[place] for group, order in zip(groups, orders, strict=True) for place in order]
        for groups in itertools.permutations(block.exchangeable)
        for orders in itertools.product(*within)
    ]


def _drawn_ways(graph: Graph, seed: int, draws: int) -> Writers:
    """Draw orders; the first one changes nothing."""
    generator = np.random.default_rng(seed)
    blocks = list(filter(_is_exchangeable, graph.blocks))
    most = max(len(block.exchangeable) for block in blocks)
    size = max(len(block.exchangeable[0]) for block in blocks)
    groups = generator.random((draws + 1, len(blocks), most))
    places = generator.random((draws + 1, len(blocks), most, size))
    drawn = []
    for i, block in enumerate(blocks):
        known = np.array(block.exchangeable)
        order = groups[:, i, : len(known)].argsort(-1)
        within = places[:, i, : len(known), : known.shape[1]].argsort(-1)
        drawn.append(np.take_along_axis(known[order], within, axis=-1).reshape(draws + 1, -1))
    found = np.concatenate(drawn, axis=1)
    found[0] = _exchangeable(graph)
    return found


def shared_by_exchange(
    left: Bool[Tensor, "writer reader"], right: Bool[Tensor, "writer reader"], ways: Exchanges
) -> Distribution:
    """Return how many edges two circuits share if the heads of the right one are exchanged."""
    kept = left.numpy()
    found = np.zeros(len(ways), dtype=np.int64)
    # Edge by edge: ways x edges at once would be large for large circuits.
    for writer, reader in right.nonzero().tolist():
        found += kept[ways.writers[:, writer], ways.readers[:, reader]]
    return counted(found)


def counted(found: Int[np.ndarray, " way"]) -> Distribution:
    """Return the distribution of a number over equally probable ways."""
    values, counts = np.unique(found, return_counts=True)
    return Distribution(values, counts / len(found))
