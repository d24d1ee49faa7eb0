"""Statistics of families, against definitions written out: pairs, sums over prompts, all splits."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy.stats import kstest

from circuitfind.comparison.attributes import attributes_of, wording_numbers
from circuitfind.comparison.clusters import (
    adjusted_rand,
    cluster_index,
    clusters,
    nearest,
    one_cluster_test,
    scaled,
    silhouette,
)
from circuitfind.comparison.families import Attribute, Families, explained, information
from circuitfind.prompts import Pair, collate


def vectors_of(n, seed=0, n_edges=6):
    return scaled(np.random.default_rng(seed).standard_normal((n, n_edges)) + 1)


def labels_of(n, n_groups, seed=0):
    drawn = np.random.default_rng(seed).integers(0, n_groups, n - n_groups)
    return np.concatenate([np.arange(n_groups), drawn])


def two_groups(generator, n, apart):
    offset = np.zeros(12)
    offset[:6] = apart
    noise = generator.standard_normal((n, 12))
    return scaled(10 + noise + np.where(np.arange(n)[:, None] % 2, offset, -offset))


@pytest.mark.parametrize("seed", range(3))
def test_the_adjusted_rand_index_counts_pairs(seed):
    one, other = labels_of(15, 3, seed), labels_of(15, 4, seed + 10)
    a, b, c, d = 0, 0, 0, 0
    for i, j in itertools.combinations(range(15), 2):
        together = one[i] == one[j], other[i] == other[j]
        a, b, c, d = (
            n + (together == kind)
            for n, kind in zip(
                (a, b, c, d), itertools.product((True, False), repeat=2), strict=True
            )
        )
    expected = 2 * (a * d - b * c) / ((a + b) * (b + d) + (a + c) * (c + d))
    assert adjusted_rand(one, other) == pytest.approx(expected)
    assert adjusted_rand(one, (one + 1) % 3) == 1


def test_the_silhouette_is_its_definition():
    vectors, labels = vectors_of(12), labels_of(12, 3)
    labels[labels == 2] = 0
    labels[-1] = 2
    rates = []
    for i in range(12):
        mean = {
            k: np.mean(
                [1 - vectors[i] @ vectors[j] for j in range(12) if labels[j] == k and j != i]
            )
            for k in range(3)
            if any(labels[j] == k and j != i for j in range(12))
        }
        own = mean.pop(labels[i], None)
        other = min(mean.values())
        rates.append(0.0 if own is None else (other - own) / max(own, other))
    assert silhouette(vectors, labels) == pytest.approx(np.mean(rates))


def test_the_cluster_index_is_that_of_the_best_of_all_splits():
    values = np.random.default_rng(1).standard_normal(8)

    def within(some):
        return sum((value - np.mean(some)) ** 2 for value in some)

    splits = (
        [[v for v, side in zip(values, sides, strict=True) if side == k] for k in (0, 1)]
        for sides in itertools.product((0, 1), repeat=8)
        if 0 < sum(sides) < 8
    )
    best = min(within(one) + within(other) for one, other in splits)
    assert cluster_index(values[None])[0] == pytest.approx(best / within(values))


def test_under_one_gaussian_p_is_uniform():
    found = []
    for seed in range(400):
        generator = np.random.default_rng(seed)
        # As many edges as prompts, with variances from 1 to 0.0003 and correlated.
        mixed = generator.standard_normal((24, 24)) * np.exp(-np.arange(24) / 6)[:, None]
        scores = 10 * generator.standard_normal(24) + generator.standard_normal((24, 24)) @ mixed
        found.append(one_cluster_test(scaled(scores), seed, draws=999).p_value)
    assert kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) < 0.05) < 0.08


def test_under_one_flat_cluster_the_p_of_flat_ones_is_uniform_and_no_smaller_than_the_other():
    found = []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        line = generator.random((24, 1)) * generator.standard_normal(12)
        found.append(one_cluster_test(10 + line, seed, draws=999))
    assert kstest([each.flat_p_value for each in found], "uniform").pvalue > 0.01
    assert all(each.p_value <= each.flat_p_value + 0.02 for each in found)


def test_two_clusters_are_found_where_there_are_two_and_one_where_there_is_one():
    generator = np.random.default_rng(0)
    two = two_groups(generator, 40, apart=4.0)
    tested = one_cluster_test(two)
    assert tested.p_value == tested.flat_p_value == 1 / 10_000 and tested.index < 0.15
    labels, rate = clusters(two, range(2, 8))
    assert adjusted_rand(labels, np.arange(40) % 2) == 1 and rate > 0.5
    assert np.array_equal(nearest(two, labels, two), labels)
    assert one_cluster_test(two_groups(generator, 40, apart=0.0)).p_value > 0.05


def test_prompts_that_differ_by_rounding_are_one_cluster():
    vectors = scaled(np.ones((10, 5)) + 1e-9 * np.random.default_rng(0).standard_normal((10, 5)))
    assert one_cluster_test(vectors).p_value == 1


def test_information_is_the_sum_of_entropies_less_the_joint_one():
    one, other = labels_of(30, 2), labels_of(30, 5, seed=3)

    def entropy(values):
        counts = [values.count(value) for value in set(values)]
        return -sum(n / 30 * math.log(n / 30) for n in counts)

    lists = one.tolist(), other.tolist()
    expected = entropy(lists[0]) + entropy(lists[1]) - entropy(list(zip(*lists, strict=True)))
    assert information(one[None], other)[0] == pytest.approx(expected)


def test_what_fixes_the_families_explains_all_and_what_is_drawn_explains_nothing():
    labels = labels_of(60, 2)
    drawn = labels_of(60, 20, seed=5)
    given = {
        "fixes": [f"{2 * n + k % 2}" for k, n in enumerate(labels)],
        "noise": drawn.astype(str),
    }
    fixes, noise = explained(labels, {name: list(values) for name, values in given.items()})
    assert (fixes.name, fixes.share, fixes.p_value) == ("fixes", 1.0, 2 / 1000)
    assert abs(noise.share) < 0.2 and noise.p_value > 0.05
    assert [sum(column) for column in zip(*fixes.counts, strict=True)] == np.bincount(
        labels
    ).tolist()
    assert fixes.adjusted_rand == adjusted_rand(labels, 2 * labels + np.arange(60) % 2)


def test_the_explanation_has_fewest_values_of_those_that_explain_nearly_all():
    shares = {("a", "b", "c", "d"): 0.9, ("e", "f", "g"): 0.82, ("h", "i"): 0.7}
    attributes = tuple(
        Attribute("".join(values), values, ((1, 1),) * len(values), 0.0, share, 0.01)
        for values, share in shares.items()
    )
    found = Families(8, "eap", 0.9, 0.1, 0.01, 0.02, 0.5, (), attributes, (), "discovery", (), 1.0)
    assert found.explanation is found.attribute("efg")
    assert found.verdict.endswith(
        "one cluster is ruled out (p 0.01); efg explains 82% of the split"
    )
    assert dataclasses.replace(found, attributes=()).explanation is None
    worse = dataclasses.replace(attributes[0], share=-0.01, p_value=1.0)
    assert dataclasses.replace(found, attributes=(worse,)).explanation is worse


def pairs():
    """Two wordings of one length and one of another, with names in two orders."""
    wordings = ([9, 1, 8, 2, 7], [9, 1, 5, 2, 4], [9, 1, 8, 2, 7, 3])
    for number, tokens in enumerate(itertools.islice(itertools.cycle(wordings), 18)):
        clean = [20 + number if token == 1 else token for token in tokens]
        first, second = (1, 3) if number % 2 else (3, 1)
        yield Pair(
            clean,
            [*clean[:-1], 0],
            [[3]],
            positions={"IO": first, "S": second},
            template=number % 3,
        )


def test_prompts_differ_in_wording_length_and_order():
    prompts = collate(list(pairs()))
    assert wording_numbers(prompts).tolist() == [0, 1, 2] * 6
    found = attributes_of(prompts, None)
    # Templates and the last token group as the wording does, the positions as the order; there is
    # one answer.
    assert set(found) == {"length", "wording", "order"}
    assert found["wording"][:3] == ["9 _ 8 2 7", "9 _ 5 2 4", "9 _ 8 2 7 3"]
    assert found["order"][:2] == ["S IO", "IO S"] and found["length"][:3] == ["5", "5", "6"]
