"""Clusters of prompts by their edge scores, with a test of whether there are any.

Each prompt is a vector of edge scores, scaled to length 1, so that prompts differ by which edges
matter and not by how much (spherical clustering). Ward's linkage joins these vectors, and the
number of clusters is the one with the largest mean silhouette (Rousseeuw 1987) among 2 to 8.

The test of one cluster has the statistic of SigClust (Liu, Hayes, Nobel & Marron 2008, JASA 103,
1281-1293): the cluster index, the share of the sum of squares that remains within two clusters. It
is taken along a line: half of the prompts, drawn at random, give the line in which they differ
most (their first principal component), the other half is projected onto it and split where the
index is smallest. No prompt helps to find the line on which it is tested, so the noise of many
edges makes no clusters. The statistic is the mean index of ten such halves.

Its null distribution is a parametric bootstrap: the same is done with draws of one cluster that has
the mean and the covariance of the prompts, each draw scaled to length 1 like these. Where prompts
are written from templates, those of one template are no independent draws: templates vary around
the mean, prompts around their template, and halves consist of whole templates. The cluster is
drawn once as a Gaussian and once as flat (uniform along each principal component), the shape of
one cluster that is most easily taken for two; p is the larger of the two. It is approximate: the
covariance is an estimate, and one cluster may have other shapes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from circuitfind.evaluation.random_circuits import p_value

Vectors = Float[np.ndarray, "prompt edge"]
Labels = Int[np.ndarray, " prompt"]
Half = Bool[np.ndarray, " prompt"]
Drawn = Float[np.ndarray, "draw prompt edge"]
Indices = Float[np.ndarray, " draw"]
Shape = Callable[[tuple[int, ...]], NDArray[np.float64]]

MOST = 8
"""How many clusters there are at most."""

FEWEST = 8
"""Prompts without which nothing is tested: four to find a line, four to test on it."""

MOST_TESTED = 256
"""Of more prompts as many, drawn at random, are tested."""

DRAWS = 499
"""Of each null distribution: p is at least 1 / (DRAWS + 1)."""

_HALVES = 10
_AT_ONCE = 1 << 20
_TIE = 1e-9

_FACTOR = 1.5
"""By which lengths may differ from their median, for the mean and covariance of the null: prompts
with scores of another size are then no outliers, since only directions are tested."""

_SAME = 1e-4
"""Vectors of length 1 that are nearer to their mean than that differ by rounding."""


@dataclass(frozen=True)
class Tested:
    """The test of one cluster.

    Attributes:
        index: Mean share of the sum of squares of the tested half that two clusters leave.
        p_value: The larger p: of one Gaussian, or of one flat cluster.
        gaussian_p_value: How often one Gaussian has at most this index.
    """

    index: float
    p_value: float
    gaussian_p_value: float


def scaled(
    scores: Float[np.ndarray, "*draw prompt edge"],
) -> Float[np.ndarray, "*draw prompt edge"]:
    """Return vectors of length 1; those that are 0 stay 0."""
    lengths = np.linalg.norm(scores, axis=-1, keepdims=True)
    found: NDArray[np.float64] = np.divide(
        scores, lengths, out=np.zeros_like(scores), where=lengths > 0
    )
    return found


def are_alike(vectors: Vectors) -> bool:
    """Return whether vectors of length 1 differ by no more than rounding."""
    return bool(np.linalg.norm(vectors - vectors.mean(0), axis=1).max() < _SAME)


def independent(template: Labels | None, n: int) -> Labels:
    """Return which independent draw each of n prompts belongs to: its template, or it alone.

    Fewer than `FEWEST` templates are no sample of templates: prompts are then taken to be
    independent, so that a difference between templates counts as one between prompts.
    """
    if template is None or len(set(template.tolist())) < FEWEST:
        return np.arange(n)
    return template


def one_cluster_test(scores: Vectors, units: Labels, seed: int = 0, draws: int = DRAWS) -> Tested:
    """Test whether scores, scaled to length 1, are draws from one cluster and not from several.

    Args:
        scores: Of at least `FEWEST` different prompts.
        units: Which independent draw each prompt belongs to; at least `FEWEST` of these.
        seed: Fixes the halves and the null distributions.
        draws: How many draws of each null distribution are made.
    """
    if are_alike(scaled(scores)):
        return Tested(1.0, 1.0, 1.0)
    generator = np.random.default_rng([len(scores), seed])
    rows = np.sort(generator.permutation(len(scores))[:MOST_TESTED])
    units = np.unique(units[rows], return_inverse=True)[1]
    halves = _halves(units, generator)
    # The same vectors in as few dimensions as there are prompts: lengths and angles are equal.
    few = np.linalg.qr(_evened(scores[rows]).T)[1].T
    own = float(mean_index(few[None], halves)[0])
    at_once = max(1, _AT_ONCE // len(rows) ** 2)
    sizes = [min(at_once, draws - first) for first in range(0, draws, at_once)]
    p_values = []
    for shape in (generator.standard_normal, partial(_flat, generator)):
        drawn = [mean_index(one_cluster(few, units, shape, n), halves) for n in sizes]
        p_values.append(p_value(-own - _TIE, (-np.concatenate(drawn)).tolist()))
    return Tested(own, max(p_values), p_values[0])


def _evened(scores: Vectors) -> Vectors:
    """Return scores whose lengths are those nearest to their own that differ little."""
    lengths = np.linalg.norm(scores, axis=1, keepdims=True)
    middle = np.median(lengths[lengths > 0])
    found: Vectors = scaled(scores) * np.clip(lengths, middle / _FACTOR, middle * _FACTOR)
    return found


def _halves(units: Labels, generator: np.random.Generator) -> list[Half]:
    """Draw halves of the units: which prompts give the line."""
    n = int(units.max()) + 1
    return [np.isin(units, generator.permutation(n)[: n // 2]) for _ in range(_HALVES)]


def _flat(generator: np.random.Generator, size: tuple[int, ...]) -> Drawn:
    return generator.uniform(-np.sqrt(3), np.sqrt(3), size)


def one_cluster(scores: Vectors, units: Labels, shape: Shape, n: int) -> Drawn:
    """Return n draws of one cluster with the mean and the covariance of some scores.

    Args:
        scores: These scores.
        units: Which independent draw each prompt belongs to: units vary, and prompts within them.
        shape: Draws numbers with mean 0 and variance 1.
        n: How many draws.
    """
    belongs = np.eye(int(units.max()) + 1)[units]
    average = belongs.T / belongs.sum(0)[:, None]
    centres = average @ scores
    mean, n_within = centres.mean(0), len(scores) - len(centres)
    drawn = mean + belongs @ _around(centres - mean, len(centres) - 1, shape, n)
    if n_within:
        noise = _around(scores - centres[units], n_within, shape, n)
        drawn = drawn + noise - belongs @ (average @ noise)
    found: Drawn = drawn
    return found


def _around(deviations: Vectors, freedom: int, shape: Shape, n: int) -> Drawn:
    """Return n draws with the covariance of deviations, independent along each component."""
    _, sizes, components = np.linalg.svd(deviations, full_matrices=False)
    numbers = shape((n, len(deviations), len(sizes)))
    found: Drawn = numbers @ (sizes[:, None] * components / np.sqrt(freedom))
    return found


def mean_index(scores: Drawn, halves: Sequence[Half]) -> Indices:
    """Return the cluster index of each draw, along lines that one half gives, for the other.

    Args:
        scores: Of each prompt, in each draw; scaled to length 1 here.
        halves: Which prompts give the line.
    """
    vectors = scaled(scores)
    cosines = vectors @ vectors.transpose(0, 2, 1)
    found = []
    for half in halves:
        own = cosines[:, half][:, :, half]
        own = own - own.mean(1, keepdims=True)
        own = own - own.mean(2, keepdims=True)
        sizes, components = np.linalg.eigh(own)
        line = components[:, :, -1:] - components[:, :, -1:].mean(1, keepdims=True)
        length = np.sqrt(np.maximum(sizes[:, -1], _SAME**2))
        found.append(
            cluster_index((cosines[:, ~half][:, :, half] @ line)[:, :, 0] / length[:, None])
        )
    mean: Indices = np.mean(found, axis=0)
    return mean


def cluster_index(values: Float[np.ndarray, "draw prompt"]) -> Indices:
    """Return which share of its sum of squares each row keeps within its best two clusters."""
    values = np.sort(values - values.mean(1, keepdims=True), axis=1)
    n = values.shape[1]
    below, sums = np.arange(1, n), values.cumsum(1)[:, :-1]
    between = (sums**2 * n / (below * (n - below))).max(1)
    total = (values**2).sum(1)
    differ = total > n * _SAME**2
    kept = 1 - np.divide(between, total, out=np.zeros_like(total), where=differ)
    shares: Indices = np.clip(kept, 0.0, 1.0)
    return shares


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
    np.fill_diagonal(distances, 0.0)
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
