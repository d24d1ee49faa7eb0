"""Clusters of prompts by their edge scores, with a test of whether there are any.

Each prompt is a vector of edge scores, scaled to length 1, so that prompts differ by which edges
matter and not by how much (spherical clustering). Ward's linkage joins these vectors, and the
number of clusters is the one with the largest mean silhouette (Rousseeuw 1987) among 2 to 8.

The test of one cluster is that of SigClust (Liu, Hayes, Nobel & Marron 2008, JASA 103, 1281-1293):
one cluster is one Gaussian, and the statistic is the cluster index, the share of the sum of squares
that remains within two clusters. We differ in how many dimensions it looks at, so that no
covariance has to be estimated: half of the prompts, drawn at random, are clustered in two, and the
other half is projected onto the line through the two centres. Whatever its mean and covariance, a
Gaussian is then one normal variable, and the index of the best split of such a line depends on
neither. So p is exact under one Gaussian; no prompt is used both to find the line and to test it.
A single cluster of another shape may have a smaller index, above all a flat one: the same p under
a uniform distribution on the line is given beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

Vectors = Float[np.ndarray, "prompt edge"]
Labels = Int[np.ndarray, " prompt"]

MOST = 8
"""How many clusters there are at most."""

FEWEST = 8
"""Prompts without which nothing is tested: four to find two clusters, four to test them."""

DRAWS = 9_999
"""Of the null distribution: p is at least 1 / (DRAWS + 1)."""

_SAME = 1e-4
"""Vectors of length 1 that are nearer to their mean than that differ by rounding."""


@dataclass(frozen=True)
class Tested:
    """The test of one cluster.

    Attributes:
        index: Share of the sum of squares of the tested half that remains within two clusters.
        p_value: How often one Gaussian has at most this index.
        flat_p_value: How often a uniform distribution has.
    """

    index: float
    p_value: float
    flat_p_value: float


def scaled(scores: Vectors) -> Vectors:
    """Return vectors of length 1; those that are 0 stay 0."""
    lengths = np.linalg.norm(scores, axis=1, keepdims=True)
    found: Vectors = np.divide(scores, lengths, out=np.zeros_like(scores), where=lengths > 0)
    return found


def are_alike(vectors: Vectors) -> bool:
    """Return whether vectors of length 1 differ by no more than rounding."""
    return bool(np.linalg.norm(vectors - vectors.mean(0), axis=1).max() < _SAME)


def one_cluster_test(vectors: Vectors, seed: int = 0, draws: int = DRAWS) -> Tested:
    """Test whether vectors are draws from one Gaussian rather than from several clusters.

    Args:
        vectors: At least `FEWEST`, of different prompts.
        seed: Fixes which half finds the line and which is tested, and the null distribution.
        draws: How many draws of the null distribution are made.
    """
    if are_alike(vectors):
        return Tested(1.0, 1.0, 1.0)
    generator = np.random.default_rng([len(vectors), seed])
    order = generator.permutation(len(vectors))
    first, second = (vectors[half] for half in np.array_split(order, 2))
    labels = split(first, 2)
    line = first[labels == 1].mean(0) - first[labels == 0].mean(0)
    (index,) = cluster_index((second @ line)[None])
    shapes = (generator.standard_normal, generator.random)
    nulls = [cluster_index(shape((draws, len(second)))) for shape in shapes]
    p_values = [(1 + int((null <= index).sum())) / (1 + draws) for null in nulls]
    return Tested(float(index), *p_values)


def cluster_index(values: Float[np.ndarray, "draw prompt"]) -> Float[np.ndarray, " draw"]:
    """Return which share of its sum of squares each row keeps within its best two clusters."""
    values = np.sort(values - values.mean(1, keepdims=True), axis=1)
    n = values.shape[1]
    below, sums = np.arange(1, n), values.cumsum(1)[:, :-1]
    between = (sums**2 * n / (below * (n - below))).max(1)
    total = (values**2).sum(1)
    kept: Float[np.ndarray, " draw"] = 1 - np.divide(
        between, total, out=np.zeros_like(total), where=total > 0
    )
    return kept


def split(vectors: Vectors, n: int) -> Labels:
    """Return the numbers, from 0, of n clusters by Ward's linkage."""
    from scipy.cluster.hierarchy import fcluster, linkage

    found: Labels = fcluster(linkage(vectors, "ward"), n, "maxclust").astype(np.int64) - 1
    return found


def clusters(vectors: Vectors, numbers: Sequence[int]) -> tuple[Labels, float]:
    """Return the clusters with the largest silhouette, the largest cluster first, and it.

    Args:
        vectors: Of length 1.
        numbers: How many clusters there may be.
    """
    found = [split(vectors, n) for n in numbers]
    best, labels = max(((silhouette(vectors, each), each) for each in found), key=itemgetter(0))
    rank = np.argsort(np.argsort(-np.bincount(labels), kind="stable"))
    return rank[labels], best


def silhouette(vectors: Vectors, labels: Labels) -> float:
    """Return the mean silhouette by cosine distance; 0 for a prompt on its own."""
    distances = 1 - vectors @ vectors.T
    belongs = np.eye(labels.max() + 1)[labels]
    if belongs.shape[1] == 1:
        return 0.0
    sizes, sums = belongs.sum(0), distances @ belongs
    own = sums[belongs > 0] / np.maximum(sizes[labels] - 1, 1)
    other = np.where(belongs > 0, np.inf, sums / sizes).min(1)
    larger = np.maximum(own, other)
    rates = np.divide(other - own, larger, out=np.zeros_like(own), where=larger > 0)
    return float(np.where(sizes[labels] > 1, rates, 0.0).mean())


def nearest(
    vectors: Vectors, labels: Labels, others: Float[np.ndarray, "other edge"]
) -> Int[np.ndarray, " other"]:
    """Return the cluster of each of some other vectors: the one with the nearest centre."""
    centres = np.stack([vectors[labels == number].mean(0) for number in range(labels.max() + 1)])
    squares = (centres**2).sum(1) - 2 * others @ centres.T
    found: Int[np.ndarray, " other"] = squares.argmin(1)
    return found


def adjusted_rand(one: Labels, other: Labels) -> float:
    """Return the adjusted Rand index (Hubert & Arabie 1985): 1 if equal, 0 as by chance."""
    table = contingency(one, other)
    together, rows, columns, every = (
        float((each * (each - 1) / 2).sum())
        for each in (table, table.sum(1), table.sum(0), table.sum(keepdims=True))
    )
    expected, most = rows * columns / every, (rows + columns) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)


def contingency(one: Labels, other: Labels) -> NDArray[np.int64]:
    """Return how many prompts have each two labels."""
    table = np.zeros((one.max() + 1, other.max() + 1), dtype=np.int64)
    np.add.at(table, (one, other), 1)
    return table
