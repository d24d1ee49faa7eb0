"""What circuits of one graph share is counted by hand; what chance shares, by trying everything."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, spearmanr

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.comparison.chance import (
    EXCHANGED_HEADS,
    LAYER_PROFILE,
    exchanges,
    n_exchanges,
    shared_by_exchange,
    shared_by_profile,
)
from circuitfind.comparison.overlap import overlap
from circuitfind.errors import GraphError
from circuitfind.evaluation.random_circuits import layer_blocks
from circuitfind.granularity import heads_and_mlps
from tests.comparison.circuits import circuit, drawn, never_too_small, redrawn, shape

GRAPH = heads_and_mlps(shape())
LEFT = circuit(GRAPH, "embed->a0.h0.v", "a0.h0->a1.h1.k", "embed->a1.h1.q", "a1.h1->logits")
RIGHT = circuit(GRAPH, "embed->a0.h2.v", "a0.h2->a1.h1.k", "embed->a1.h1.q", "a1.h1->logits")


def test_shared_edges_and_components_are_those_counted_by_hand():
    found = overlap(LEFT, RIGHT)
    assert found.edges.both == ("embed->a1.h1.q", "a1.h1->logits")
    assert found.edges.left == ("embed->a0.h0.v", "a0.h0->a1.h1.k")
    assert found.edges.right == ("embed->a0.h2.v", "a0.h2->a1.h1.k")
    assert found.edges.jaccard.value == pytest.approx(2 / 6)
    assert found.edges.coefficient.value == pytest.approx(2 / 4)
    assert found.components.both == ("a1.h1",)
    assert found.components.jaccard.value == pytest.approx(1 / 3)


def test_what_is_expected_is_what_a_calculation_by_hand_gives():
    """One of 3 for embed->a0.*.v, embed->a1.*.q and a1.*->logits; one of 9 for a0.*->a1.*.k."""
    chance = overlap(LEFT, RIGHT).edges.coefficient.chance[LAYER_PROFILE]
    assert chance.expected == pytest.approx((1 / 3 + 1 / 3 + 1 / 3 + 1 / 9) / 4)
    thirds = [math.comb(3, k) * (1 / 3) ** k * (2 / 3) ** (3 - k) for k in range(4)]
    at_least_two = thirds[2] + thirds[3] + thirds[1] / 9
    assert chance.p_value == pytest.approx(at_least_two)


def test_what_circuits_share_and_what_is_expected_is_counted_place_by_place():
    """One of 3 for embed->a0.*.v@a and embed->a1.*.q@b, one of 9 for a0.*->a1.*.k@a."""
    graph = GRAPH.at_places(["a", "b"])
    ends = "embed->a1.h1.q@b", "a0.h0->a1.h1.k@a"
    left = circuit(graph, "embed->a0.h0.v@a", *ends, "a1.h1->logits@a")
    right = circuit(graph, "embed->a0.h2.v@a", *ends, "a1.h1->logits@b")
    found = overlap(left, right).edges
    assert set(found.both) == set(ends)
    chance = found.coefficient.chance[LAYER_PROFILE]
    assert chance.expected == pytest.approx((1 / 3 + 1 / 3 + 1 / 9) / 4)
    assert chance.p_value == pytest.approx(1 / 9 + 2 * (1 / 3 * 2 / 3 * 1 / 9))


def test_equal_circuits_agree_fully_and_disjoint_ones_not_at_all():
    same = overlap(LEFT, LEFT)
    assert same.edges.jaccard.value == same.components.jaccard.value == 1
    other = circuit(GRAPH, "embed->a0.h1.v", "a0.h1->logits")
    apart = overlap(LEFT, other)
    assert apart.edges.jaccard.value == apart.edges.coefficient.value == 0
    assert all(chance.p_value == 1 for chance in apart.edges.jaccard.chance.values())


def test_the_distribution_by_layer_profile_is_that_of_all_random_circuits():
    """Both strata of a small graph are enumerated."""
    graph = heads_and_mlps(shape(n_layers=1, n_heads=3, has_mlp=False))
    left = circuit(graph, "embed->a0.h0.v", "embed->a0.h1.v", "a0.h0->logits")
    right = circuit(graph, "embed->a0.h1.v", "a0.h1->logits", "a0.h2->logits")
    counts = [
        len({0, 1} & {v}) + len({0} & set(logits))
        for v in range(3)
        for logits in itertools.combinations(range(3), 2)
    ]
    found = by_profile(left, right)
    for value, weight in zip(found.values, found.weights, strict=True):
        assert weight == pytest.approx(counts.count(value) / len(counts))


def test_exchanging_heads_tries_every_way_once():
    graph = heads_and_mlps(shape(n_layers=2, n_heads=3))
    ways = exchanges(graph)
    assert ways.complete
    assert len(ways) == n_exchanges(graph) == 36
    assert len({tuple(way) for way in ways.writers}) == 36
    found = shared_by_exchange(LEFT.kept, RIGHT.kept, ways)
    counts = [
        sum(
            edge in {e.name for e in LEFT.edges}
            for edge in (
                f"embed->a0.h{a}.v",
                f"a0.h{a}->a1.h{b}.k",
                f"embed->a1.h{b}.q",
                f"a1.h{b}->logits",
            )
        )
        for a in range(3)
        for b in range(3)
    ]
    for value, weight in zip(found.values, found.weights, strict=True):
        assert weight == pytest.approx(counts.count(value) / 9)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_an_exchanged_head_takes_its_inputs_at_every_place_with_it(n_kv_heads):
    graph = heads_and_mlps(shape(n_heads=4, n_kv_heads=n_kv_heads)).at_places(["a", "b"])
    ways = exchanges(graph, draws=20)
    for writers, readers in zip(ways.writers, ways.readers, strict=True):
        assert sorted(writers) == [*range(len(graph.writers))]
        assert sorted(readers) == [*range(len(graph.readers))]
        becomes = {graph.writers[i]: graph.writers[int(j)] for i, j in enumerate(writers)}
        for reader, number in zip(graph.readers, readers, strict=True):
            other = graph.readers[int(number)]
            same = (other.stage, other.kind, other.port, other.place)
            assert same == (reader.stage, reader.kind, reader.port, reader.place)
            assert {becomes[w] for w in graph.fed_by(reader)} == {*graph.fed_by(other)}


def test_heads_that_share_a_key_move_together():
    graph = heads_and_mlps(shape(n_layers=1, n_heads=4, n_kv_heads=2))
    ways = exchanges(graph)
    assert len(ways) == 2 * 2 * 2
    for writers, readers in zip(ways.writers, ways.readers, strict=True):
        for head in range(4):
            new = graph.writers[writers[graph.writer_index[f"a0.h{head}"]]]
            query = graph.readers[readers[graph.reader_index[f"a0.h{head}.q"]]]
            key = graph.readers[readers[graph.reader_index[f"a0.kv{head // 2}.k"]]]
            assert query.index == new.index
            assert key.index == new.index // 2


@pytest.mark.parametrize("n_kv_heads", [3, 1])
def test_p_values_are_uniform_for_random_circuits_of_one_layer_profile(n_kv_heads):
    """Counts come in steps, so within the step that was met a place is drawn."""
    generator = np.random.default_rng(5)
    graph = heads_and_mlps(shape(n_layers=3, n_kv_heads=n_kv_heads))
    left, start = drawn(graph, 0.3, generator), drawn(graph, 0.4, generator)
    places, stated = [], []
    for _ in range(300):
        right = redrawn(start, generator)
        found = by_profile(left, right)
        places.append(place(found, left, right, generator))
        stated.append(found.chance(n_shared(left, right), found.values / 1).p_value)
    assert kstest(places, "uniform").pvalue > 0.01
    assert never_too_small(stated)


def test_p_values_are_uniform_for_circuits_with_exchanged_heads():
    generator = np.random.default_rng(6)
    graph = heads_and_mlps(shape(n_layers=3, n_heads=4))
    left, start = drawn(graph, 0.3, generator), drawn(graph, 0.3, generator)
    others = exchanges(graph, seed=10_000, draws=300)
    places, stated = [], []
    for seed in range(300):
        right = exchanged(start, others, seed + 1)
        ways = exchanges(graph, seed=seed, draws=99)
        found = shared_by_exchange(left.kept, right.kept, ways)
        places.append(place(found, left, right, generator))
        stated.append(found.chance(n_shared(left, right), found.values / 1).p_value)
    assert kstest(places, "uniform").pvalue > 0.01
    assert never_too_small(stated)


def test_p_values_of_circuits_that_share_half_are_small():
    generator = np.random.default_rng(7)
    graph = heads_and_mlps(shape(n_layers=3, n_heads=4))
    left, noise = drawn(graph, 0.3, generator), drawn(graph, 0.15, generator)
    right = Circuit(graph, (left.kept & drawn(graph, 0.6, generator).kept) | noise.kept)
    for null in (LAYER_PROFILE, EXCHANGED_HEADS):
        assert overlap(left, right).edges.jaccard.chance[null].p_value < 1e-3


def test_the_rank_correlation_is_that_of_scipy_on_edges_measured_in_both():
    generator = np.random.default_rng(8)
    ours, theirs = scores(generator), scores(generator)
    theirs.values[0, 3:9] = torch.nan
    found = overlap(LEFT, RIGHT, effects=(ours, theirs))
    both = GRAPH.edge_mask & ~theirs.values.isnan()
    expected = spearmanr(ours.values[both], theirs.values[both]).statistic
    assert found.n_measured == int(both.sum())
    assert found.correlation.value == pytest.approx(expected)
    (chance,) = found.correlation.chance.values()
    assert 0.01 < chance.p_value <= 1


def test_p_values_of_rank_correlations_are_uniform_for_unrelated_effects():
    generator = np.random.default_rng(9)
    stated = []
    for seed in range(60):
        pair = scores(generator), scores(generator)
        found = overlap(LEFT, RIGHT, effects=pair, seed=seed, draws=1)
        (chance,) = found.correlation.chance.values()
        stated.append(chance.p_value)
    assert kstest(stated, "uniform").pvalue > 0.01


def test_effects_that_differ_by_layer_alone_do_not_count_as_agreement():
    """Late edges have larger effects in both, and that is all: a high correlation, expected."""
    generator = np.random.default_rng(10)
    by_layer = layer_blocks(GRAPH).double()
    pair = tuple(
        EdgeScores(GRAPH, by_layer + 0.1 * scores(generator).values, "", "") for _ in range(2)
    )
    found = overlap(LEFT, RIGHT, effects=pair).correlation
    (chance,) = found.chance.values()
    assert found.value > 0.9
    assert chance.expected > 0.9
    assert chance.p_value > 0.01


def test_circuits_without_effects_have_no_rank_correlation():
    found = overlap(LEFT, RIGHT)
    assert found.correlation.value is None
    assert found.n_measured == 0


def test_an_empty_circuit_and_another_graph_are_refused():
    with pytest.raises(GraphError, match="the circuit is empty"):
        overlap(LEFT, circuit(GRAPH))
    other = heads_and_mlps(shape(n_heads=2))
    with pytest.raises(GraphError, match="another model: n_heads is 2 and 3"):
        overlap(LEFT, circuit(other, "embed->logits"))


def by_profile(left, right):
    masks = (left.kept.numpy(), right.kept.numpy(), left.graph.edge_mask.numpy())
    return shared_by_profile(*masks, layer_blocks(left.graph).numpy())


def n_shared(left, right) -> int:
    return int((left.kept & right.kept).sum())


def place(found, left, right, generator) -> float:
    n = n_shared(left, right)
    above, same = (found.weights[mask].sum() for mask in (found.values > n, found.values == n))
    return float(above + generator.random() * same)


def exchanged(found, ways, number) -> Circuit:
    kept = torch.zeros_like(found.kept)
    for writer, reader in found.kept.nonzero().tolist():
        kept[ways.writers[number, writer], ways.readers[number, reader]] = True
    return Circuit(found.graph, kept)


def scores(generator) -> EdgeScores:
    values = torch.from_numpy(generator.random(tuple(GRAPH.edge_mask.shape)))
    return EdgeScores(GRAPH, values.masked_fill(~GRAPH.edge_mask, torch.nan), "", "exact")
