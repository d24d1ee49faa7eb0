"""Statistics of families, against definitions written out: pairs, sums over prompts, all splits."""

import dataclasses
import io
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import chisquare

from circuitfind.comparison.attributes import attributes_of, wording_numbers
from circuitfind.comparison.clusters import (
    adjusted_rand,
    cluster_index,
    clusters,
    independent,
    mean_index,
    nearest,
    one_cluster,
    one_cluster_test,
    scaled,
    silhouette,
)
from circuitfind.comparison.families import Attribute, Families, Family, explained, information
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair, collate
from circuitfind.reports.families import families_tables


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


def test_the_index_is_taken_along_the_first_component_of_the_other_half():
    scores, half = np.random.default_rng(3).standard_normal((14, 6)) + 1, np.arange(14) % 3 == 0
    vectors = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    first, second = vectors[half], vectors[~half]
    line = np.linalg.svd(first - first.mean(0))[2][0]
    expected = cluster_index((second @ line)[None])[0]
    assert mean_index(scores[None], [half])[0] == pytest.approx(expected)


def test_draws_of_one_cluster_have_the_mean_and_both_covariances_of_the_scores():
    generator = np.random.default_rng(0)
    units = np.arange(24) % 8
    scores = generator.standard_normal((8, 3))[units] + 0.5 * generator.standard_normal((24, 3)) + 2
    drawn = one_cluster(scores, units, generator.standard_normal, 4000)

    def centres_of(some):
        return np.stack([some[..., units == unit, :].mean(-2) for unit in range(8)], axis=-2)

    def covariance(deviations, freedom):
        return deviations.swapaxes(-1, -2) @ deviations / freedom

    own, theirs = centres_of(scores), centres_of(drawn)
    np.testing.assert_allclose(drawn.mean((0, 1)), scores.mean(0), atol=0.03)
    between = covariance(theirs - theirs.mean(1, keepdims=True), 7).mean(0)
    np.testing.assert_allclose(between, np.cov(own.T), atol=0.05)
    within = covariance(drawn - theirs[:, units], 16).mean(0)
    np.testing.assert_allclose(within, covariance(scores - own[units], 16), atol=0.02)
    alone = one_cluster(scores, np.arange(24), generator.standard_normal, 4000)
    np.testing.assert_allclose(
        np.mean([np.cov(each.T) for each in alone], 0), np.cov(scores.T), atol=0.05
    )


def one_gaussian(seed, n, mean):
    """As many edges as prompts, with variances from 1 to 0.0003 and correlated."""
    generator = np.random.default_rng(seed)
    mixed = generator.standard_normal((n, n)) * np.exp(-np.arange(n) / 6)[:, None]
    return mean * generator.standard_normal(n) + generator.standard_normal((n, n)) @ mixed


def p_values_of(made):
    """Return the Gaussian p of each, of 19 draws: 1/20, 2/20, ..."""
    return np.array(
        [one_cluster_test(*each, n, 19).gaussian_p_value for n, each in enumerate(made)]
    )


@pytest.mark.parametrize("mean", [0, 10])
def test_under_one_gaussian_p_is_uniform_or_larger(mean):
    found = p_values_of((one_gaussian(seed, 20, mean), np.arange(20)) for seed in range(200))
    assert np.mean(found <= 0.05) < 0.1 and np.mean(found <= 0.5) < 0.6
    if mean:
        counts = np.bincount(np.ceil(found * 5 - 1e-9).astype(int) - 1, minlength=5)
        assert chisquare(counts).pvalue > 0.01


def test_templates_that_differ_are_no_clusters_where_they_are_the_independent_draws():
    units = np.arange(32) % 8

    def made(seed):
        generator = np.random.default_rng(seed)
        return one_gaussian(seed, 8, 10)[units] + 0.03 * generator.standard_normal((32, 8))

    assert np.mean(p_values_of((made(seed), units) for seed in range(60)) <= 0.05) < 0.13
    assert np.mean(p_values_of((made(seed), np.arange(32)) for seed in range(60)) <= 0.05) > 0.25
    assert independent(units, 32) is units
    assert independent(units // 2, 32).tolist() == independent(None, 32).tolist() == [*range(32)]


def test_one_flat_cluster_is_not_ruled_out():
    found = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        line = 10 + generator.random((32, 1)) * generator.standard_normal(12)
        found.append(one_cluster_test(line, np.arange(32), seed, 39))
    assert np.mean([each.gaussian_p_value <= 0.05 for each in found]) > 0.2
    assert np.mean([each.p_value <= 0.05 for each in found]) < 0.13


def test_two_clusters_are_found_where_there_are_two_and_one_where_there_is_one():
    generator, alone = np.random.default_rng(0), np.arange(40)
    two = two_groups(generator, 40, apart=4.0)
    tested = one_cluster_test(two, alone)
    assert tested.p_value == tested.gaussian_p_value == 1 / 500 and tested.index < 0.15
    strong = two * generator.lognormal(size=(40, 1))
    assert one_cluster_test(strong, alone).p_value < 0.02
    labels, rate = clusters(two, range(2, 8))
    assert adjusted_rand(labels, np.arange(40) % 2) == 1 and rate > 0.5
    assert np.array_equal(nearest(two, labels, two), labels)
    assert one_cluster_test(two_groups(generator, 40, apart=0.0), alone).p_value > 0.05


def test_two_clusters_within_each_template_are_found():
    units = np.arange(32) // 4
    offset = np.where(np.arange(32)[:, None] % 2, 4.0, -4.0) * [1, 1, 1, 0, 0, 0]
    scores = 10 + offset + np.random.default_rng(0).standard_normal((32, 6))
    assert one_cluster_test(scores, units, draws=99).p_value < 0.05


def test_prompts_that_differ_by_rounding_are_one_cluster_even_beside_a_single_other_one():
    scores = np.ones((10, 5)) + 1e-9 * np.random.default_rng(0).standard_normal((10, 5))
    assert one_cluster_test(scores, np.arange(10)).p_value == 1
    scores[3] = [1, 2, 3, 4, 5]
    assert one_cluster_test(scores, np.arange(10), draws=99).p_value > 0.05
    scores[:] = 0
    assert one_cluster_test(scores, np.arange(10)).p_value == 1


def test_information_is_the_sum_of_entropies_less_the_joint_one():
    one, other = labels_of(30, 2), labels_of(30, 5, seed=3)

    def entropy(values):
        counts = [values.count(value) for value in set(values)]
        return -sum(n / 30 * math.log(n / 30) for n in counts)

    lists = one.tolist(), other.tolist()
    expected = entropy(lists[0]) + entropy(lists[1]) - entropy(list(zip(*lists, strict=True)))
    assert information(one[None], other)[0] == pytest.approx(expected)


def test_what_fixes_the_families_explains_all_and_what_is_drawn_explains_nothing():
    labels, alone = labels_of(60, 2), np.arange(60)
    drawn = labels_of(60, 20, seed=5)
    given = {
        "fixes": [f"{2 * n + k % 2}" for k, n in enumerate(labels)],
        "noise": drawn.astype(str),
    }
    fixes, noise = explained(labels, {name: list(values) for name, values in given.items()}, alone)
    assert (fixes.name, fixes.share, fixes.p_value) == ("fixes", 1.0, 2 / 1000)
    assert abs(noise.share) < 0.2 and noise.p_value > 0.05
    assert [sum(column) for column in zip(*fixes.counts, strict=True)] == np.bincount(
        labels
    ).tolist()
    assert fixes.adjusted_rand == adjusted_rand(labels, 2 * labels + np.arange(60) % 2)


def families_of(attributes=(), n_prompts=8, names=("family 1", "family 2")):
    """Return two families of four prompts each."""
    rows = range(4), range(4, 8)
    two = [
        Family(name, tuple(some), 4, "", ("embed->logits",), ())
        for name, some in zip(names, rows, strict=True)
    ]
    tested = "8 prompts", 0.1, 0.01, 0.01, None, 0.5
    return Families(
        n_prompts, "eap", 0.9, *tested, tuple(two), attributes, (), "discovery", (), 1.0
    )


def test_figures_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="families are not called family 1, family 2"):
        families_of(names=("family 1", "../family"))
    with pytest.raises(ValueError, match="families do not share out 9 prompts"):
        families_of(n_prompts=9)
    with pytest.raises(ValueError, match="does not count the prompts of each family"):
        families_of((Attribute("length", ("1", "2"), ((1,), (2,)), 0.0, 0.1, 0.2),))


def test_names_that_look_like_markup_are_printed():
    named = Attribute("position of [/b]", ("1", "2"), ((4, 0), (0, 4)), 1.0, 1.0, 0.01)
    console = Console(width=200, file=io.StringIO())
    for table in families_tables(families_of((named,))):
        console.print(table)
    assert console.file.getvalue().count("position of [/b]") == 3


def test_the_explanation_has_fewest_values_of_those_that_explain_nearly_all():
    shares = {("a", "b", "c", "d"): 0.9, ("e", "f", "g"): 0.82, ("h", "i"): 0.7}
    attributes = tuple(
        Attribute("".join(values), values, ((1, 1),) * len(values), 0.0, share, 0.01)
        for values, share in shares.items()
    )
    found = families_of(attributes)
    assert found.explanation is found.attribute("efg")
    assert found.verdict.endswith(
        "one cluster is ruled out (p 0.01, 8 prompts); efg explains 82% of the split"
    )
    assert dataclasses.replace(found, attributes=()).explanation is None
    worse = dataclasses.replace(attributes[0], share=-0.01, p_value=1.0)
    assert dataclasses.replace(found, attributes=(worse,)).explanation is worse
    lucky = dataclasses.replace(attributes[0], share=1.0, p_value=0.2)
    both = dataclasses.replace(found, attributes=(lucky, *attributes[1:]))
    assert both.explanation is attributes[1]
    assert dataclasses.replace(found, asked=3).verdict.startswith("2 families (3 were asked for):")


def test_what_is_fixed_by_the_template_explains_less_surely_than_by_the_prompt():
    """Eight templates of five prompts; families and an attribute agree on six of the templates."""
    units = np.arange(40) // 5
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])[units]
    values = {"place": list("aaababbb"), "template": list("abcdefgh")}
    given = {name: [each[unit] for unit in units] for name, each in values.items()}
    by_template = {each.name: each for each in explained(labels, given, units)}
    by_prompt = {each.name: each for each in explained(labels, given, np.arange(40))}
    assert by_prompt["place"].p_value < 0.05 < by_template["place"].p_value
    assert by_template["template"].p_value == by_prompt["template"].p_value == 2 / 1000
    assert by_template["place"].share == by_prompt["place"].share


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


def test_wordings_and_tokens_that_look_alike_have_names_of_their_own():
    """In each of two chains of prompts, neighbours differ in one token and the ends in all."""
    chains = [[9, 1, 2, 3], [9, 1, 2, 4], [9, 1, 5, 4], [8, 1, 5, 4], [8, 6, 5, 4]]
    tokens = [*chains, *([token + 10 for token in each] for each in chains)]
    prompts = collate([Pair(each, [*each[:-1], 0], [[each[-1]]]) for each in tokens])
    same = Vocabulary(SimpleNamespace(decode=lambda tokens: "?", encode=lambda *_, **__: [0]))
    for vocabulary in (None, same):
        found = attributes_of(prompts, vocabulary)
        assert found["wording"] == ["_ _ _ _"] * 5 + ["_ _ _ _ (2)"] * 5
    assert found["answer"] == ["?"] + ["? (2)"] * 4 + ["? (3)"] + ["? (4)"] * 4


def test_prompts_differ_in_wording_length_and_order():
    prompts = collate(list(pairs()))
    assert wording_numbers(prompts).tolist() == [0, 1, 2] * 6
    found = attributes_of(prompts, None)
    # Templates and the last token group as the wording does, the positions as the order; there is
    # one answer.
    assert set(found) == {"length", "wording", "order"}
    assert found["wording"][:3] == ["9 _ 8 2 7", "9 _ 5 2 4", "9 _ 8 2 7 3"]
    assert found["order"][:2] == ["S IO", "IO S"] and found["length"][:3] == ["5", "5", "6"]
