"""Overlap of two circuits of one graph, by edges and by components, compared with chance."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from circuitfind.circuit import Circuit, EdgeScores, as_circuit
from circuitfind.comparison.chance import (
    DRAWS,
    EXCHANGED_HEADS,
    LAYER_PROFILE,
    Chance,
    Distribution,
    Statistic,
    exchanges,
    shared_by_exchange,
    shared_by_profile,
)
from circuitfind.comparison.common_graph import on_common_graph, scores_on
from circuitfind.errors import GraphError
from circuitfind.evaluation.random_circuits import layer_blocks
from circuitfind.limits import require

FEWEST_RANKED = 3
"""A rank correlation of fewer edges says nothing."""

EXCHANGED_EFFECTS = "exchanged effects"

_PERMUTATIONS = 999
_ROUNDING = 1e-12

Counts = Int[np.ndarray, " outcome"]


@dataclass(frozen=True)
class Shared:
    """Two sets.

    Attributes:
        both: What is in both, by name.
        left: What is in the left one alone.
        right: What is in the right one alone.
        jaccard: Size of the intersection over that of the union.
        coefficient: Size of the intersection over that of the smaller set.
    """

    both: tuple[str, ...]
    left: tuple[str, ...]
    right: tuple[str, ...]
    jaccard: Statistic
    coefficient: Statistic


@dataclass(frozen=True)
class Overlap:
    """Overlap of two circuits of one graph.

    Attributes:
        edges: The edges.
        components: The heads and MLPs that read or write along a kept edge.
        correlation: Spearman's rank correlation of the effects of the edges that were measured in
            both; its null hypothesis exchanges effects between edges that join the same layers.
        n_measured: How many edges were measured in both.
    """

    edges: Shared
    components: Shared
    correlation: Statistic
    n_measured: int


def overlap(
    left: Circuit,
    right: Circuit,
    *,
    effects: tuple[EdgeScores | None, EdgeScores | None] = (None, None),
    seed: int = 0,
    draws: int = DRAWS,
) -> Overlap:
    """Compare two circuits of one graph by the names of their edges.

    Where they tell different places apart, at those that both have (`common_graph`).

    Args:
        left: A circuit.
        right: Another one.
        effects: What was measured of either, kept or not; by default the effects of kept edges.
        seed: Fixes what is drawn at random.
        draws: How many exchanges of heads are drawn where there are too many to try all.

    Raises:
        GraphError: The circuits belong to different graphs, or one keeps no edge.
        LimitError: A number is outside its range.
    """
    require(seed=seed, draws=draws)
    left, right = on_common_graph(as_circuit(left), as_circuit(right))
    require_edges(left, right)
    ours, theirs = (
        _own(circuit) if found is None else scores_on(circuit.graph, found)
        for found, circuit in zip(effects, (left, right), strict=True)
    )
    correlation, n_measured = rank_correlation(ours, theirs, seed=seed)
    return Overlap(
        _shared_edges(left, right, seed, draws),
        _shared_components(left, right),
        correlation,
        n_measured,
    )


def require_edges(*circuits: Circuit) -> None:
    """Refuse circuits that keep nothing.

    Raises:
        GraphError: One of them keeps no edge.
    """
    for circuit in circuits:
        if not circuit.n_edges:
            raise GraphError(
                "the circuit is empty, so there is nothing to compare or to knock out; lower its "
                "threshold, or give another one"
            )


def _own(circuit: Circuit) -> EdgeScores | None:
    if circuit.effects is None:
        return None
    return EdgeScores(circuit.graph, circuit.effects, "", "")


def edges_by_profile(left: Circuit, right: Circuit) -> Statistic:
    """Return the Jaccard index of two circuits' edges, held against their layer profiles alone.

    Undefined for circuits of different graphs, and where one keeps no edge.
    """
    if left.graph != right.graph:
        return Statistic(None)
    n_shared = int((left.kept & right.kept).sum())
    nulls = {LAYER_PROFILE: _profile(left, right)}
    return _held(n_shared, (left.n_edges, right.n_edges), jaccard, nulls)


def _shared_edges(left: Circuit, right: Circuit, seed: int, draws: int) -> Shared:
    ways = exchanges(left.graph, seed=seed, draws=draws)
    by_exchange = shared_by_exchange(left.kept.cpu(), right.kept.cpu(), ways)
    return shared(
        [edge.name for edge in left.graph.edges()],
        {edge.name for edge in left.edges},
        {edge.name for edge in right.edges},
        {LAYER_PROFILE: _profile(left, right), EXCHANGED_HEADS: by_exchange},
    )


def _profile(left: Circuit, right: Circuit) -> Distribution:
    graph = left.graph
    ours, theirs = (circuit.kept.cpu().numpy() for circuit in (left, right))
    blocks = layer_blocks(graph).numpy()
    return shared_by_profile(ours, theirs, graph.edge_mask.numpy(), blocks)


def _shared_components(left: Circuit, right: Circuit) -> Shared:
    later = left.graph.heads_and_mlps
    names = [writer.name for writer in later]
    ours, theirs = set(left.heads_and_mlps), set(right.heads_and_mlps)
    in_left, in_right = (np.array([name in found for name in names]) for found in (ours, theirs))
    # A head could be any other of its layer; an MLP can only be itself.
    kinds = list(dict.fromkeys((writer.stage, writer.kind) for writer in later))
    stratum = np.array([kinds.index((writer.stage, writer.kind)) for writer in later])
    by_profile = shared_by_profile(in_left, in_right, np.ones(len(names), dtype=bool), stratum)
    return shared(names, ours, theirs, {LAYER_PROFILE: by_profile})


def shared(
    names: Sequence[str], left: Set[str], right: Set[str], nulls: Mapping[str, Distribution]
) -> Shared:
    """Compare two sets of names.

    Args:
        names: All names, in the order in which they are listed.
        left: The names in one set.
        right: Those in the other.
        nulls: How many names such sets share by chance, by null hypothesis.
    """

    def listed(found: Set[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in found)

    return compared(listed(left & right), listed(left - right), listed(right - left), nulls)


def compared(
    both: tuple[str, ...],
    left: tuple[str, ...],
    right: tuple[str, ...],
    nulls: Mapping[str, Distribution],
) -> Shared:
    """Hold what two sets share against chance.

    Args:
        both: What is in both.
        left: What is in the left one alone.
        right: What is in the right one alone.
        nulls: How many members such sets share by chance, by null hypothesis.
    """
    sizes = len(both) + len(left), len(both) + len(right)
    by_union, by_smaller = (
        _held(len(both), sizes, score, nulls) for score in (jaccard, coefficient)
    )
    return Shared(both, left, right, by_union, by_smaller)


Score = Callable[[Counts, int, int], Float[np.ndarray, " outcome"]]
"""From how many members sets share and the sizes of the sets to how alike they are."""


def _held(
    n_shared: int, sizes: tuple[int, int], score: Score, nulls: Mapping[str, Distribution]
) -> Statistic:
    if not min(sizes):
        return Statistic(None)
    chance = {
        name: null.chance(n_shared, score(null.values, *sizes)) for name, null in nulls.items()
    }
    return Statistic(float(score(np.array([n_shared]), *sizes)[0]), chance)


def jaccard(n_shared: Counts, left: int, right: int) -> Float[np.ndarray, " outcome"]:
    """Return the intersection's size over the union's."""
    shares: Float[np.ndarray, " outcome"] = n_shared / (left + right - n_shared)
    return shares


def coefficient(n_shared: Counts, left: int, right: int) -> Float[np.ndarray, " outcome"]:
    """Return the intersection's size over the smaller set's."""
    shares: Float[np.ndarray, " outcome"] = n_shared / min(left, right)
    return shares


def rank_correlation(
    left: EdgeScores | None, right: EdgeScores | None, *, seed: int = 0
) -> tuple[Statistic, int]:
    """Return Spearman's rank correlation of two sets of effects, and of how many edges it is.

    By chance, effects are exchanged at random between edges that join the same layers.
    """
    if left is None or right is None:
        return Statistic(None), 0
    both = left.graph.edge_mask & ~left.values.isnan().cpu() & ~right.values.isnan().cpu()
    ours, theirs = (_centred_ranks(scores.values.cpu()[both].numpy()) for scores in (left, right))
    n, scale = int(both.sum()), float(np.sqrt((ours**2).sum() * (theirs**2).sum()))
    if n < FEWEST_RANKED or not scale:
        return Statistic(None), n
    found = float((ours * theirs).sum()) / scale
    generator, stratum = np.random.default_rng(seed), layer_blocks(left.graph)[both].numpy()
    # Sorted by stratum and then by chance: each effect meets another of its stratum.
    order = np.lexsort((np.arange(n), stratum))
    drawn = np.array(
        [
            float((ours[order] * theirs[np.lexsort((generator.random(n), stratum))]).sum())
            for _ in range(_PERMUTATIONS)
        ]
    )
    drawn = np.append(drawn / scale, found)
    # A tie must not depend on the order of a sum.
    p_value = float((drawn >= found - _ROUNDING).mean())
    return Statistic(found, {EXCHANGED_EFFECTS: Chance(float(drawn.mean()), p_value)}), n


def _centred_ranks(values: Float[np.ndarray, " edge"]) -> Float[np.ndarray, " edge"]:
    ranks: Float[np.ndarray, " edge"] = rankdata(values)
    return ranks - ranks.mean() if len(ranks) else ranks
