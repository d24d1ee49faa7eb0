"""The same circuit is recognised under other names, and another one is not."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from circuitfind.api import discover
from circuitfind.circuit import Circuit
from circuitfind.comparison.chance import EXCHANGED_HEADS, exchanges
from circuitfind.comparison.effects import Effects
from circuitfind.comparison.looks import Looks
from circuitfind.comparison.matching import (
    compare_matched,
    distances,
    links_of,
    match,
    shared_by_match,
)
from circuitfind.comparison.profiles import Profiles, profiles
from circuitfind.errors import PromptError
from circuitfind.granularity import heads_and_mlps
from circuitfind.models.loading import load_model
from circuitfind.question import make_problem
from tests.comparison.circuits import circuit, drawn, never_too_small, shape
from tests.comparison.rebuilt import with_heads_reordered, with_weights_shuffled

N_EDGES = 60
SMALL = heads_and_mlps(shape(n_layers=2, n_heads=2, has_mlp=False))


@pytest.fixture(scope="module")
def originals():
    return {name: found_in(load_model(name)) for name in ("ioi-small", "llama-4l")}


@pytest.mark.parametrize("name", ["ioi-small", "llama-4l"])
def test_a_copy_with_its_heads_in_another_order_has_the_same_circuit(name, originals):
    left, known = originals[name]
    model, orders = with_heads_reordered(name, seed=0)
    assert any(order != sorted(order) for order in orders)
    right, other = found_in(model)
    matched = match(known, other)
    found = compare_matched(left, right, matched)
    assert found.edges.jaccard.value == 1
    assert found.components.jaccard.value == 1
    assert found.edges.jaccard.chance[EXCHANGED_HEADS].p_value < 0.02
    assert min(row.similarity for row in found.counterparts) > 0.999
    for layer, order in enumerate(orders):
        for place, head in enumerate(order):
            row = {row.left: row.right for row in found.counterparts}
            assert row[f"a{layer}.h{head}"] == f"a{layer}.h{place}"


def test_heads_are_matched_to_themselves_where_latents_write_for_their_mlps(originals):
    model = load_model("ioi-small")
    apart = profiles(make_problem(model, "ioi", n_prompts=8, latents="zoo", shortlist=6))
    _, known = originals["ioi-small"]
    pairs = [(apart.graph.writers[i], known.graph.writers[j]) for i, j, _ in match(apart, known)]
    heads = [(left.name, right.name) for left, right in pairs if left.kind == "head"]
    assert len(heads) == 16 and all(left == right for left, right in heads)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_copy_with_its_weights_shuffled_has_another_circuit(seed, originals):
    left, known = originals["ioi-small"]
    right, other = found_in(with_weights_shuffled("ioi-small", seed))
    found = compare_matched(left, right, match(known, other))
    assert found.edges.jaccard.chance[EXCHANGED_HEADS].p_value > 0.05
    assert found.edges.jaccard.value < 0.6


def test_models_of_other_sizes_and_families_are_matched(originals):
    (left, known), (right, other) = (originals[name] for name in ("ioi-small", "llama-4l"))
    found = compare_matched(left, right, match(known, other))
    assert len({row.left for row in found.counterparts}) == len(found.counterparts) == 21
    assert 0 < found.edges.jaccard.value < 1
    smaller, fewest = found_in(load_model("attn-2l"))
    found = compare_matched(left, smaller, match(known, fewest))
    assert len(found.counterparts) == 9
    n_shared = len(found.edges.both)
    assert n_shared + len(found.edges.right) == smaller.n_edges
    assert n_shared + len(found.edges.left) == left.n_edges


def test_the_match_is_the_best_of_all():
    """All ways to assign 4 heads to 4 are tried."""
    left, right = random_profiles(0), random_profiles(1)
    rows = torch.arange(1, 5)
    cost = distances(left, right, rows, rows)
    best = min(
        itertools.permutations(range(4)), key=lambda p: sum(float(cost[i, p[i]]) for i in range(4))
    )
    assert [(i, j) for i, j, _ in match(left, right)] == [(0, 0)] + [
        (i + 1, j + 1) for i, j in enumerate(best)
    ]


def test_distances_are_those_calculated_by_hand():
    left, right = random_profiles(0), random_profiles(0)
    for each, head, look, effect in ((left, 0, 0.5, 0.25), (right, 2, -0.25, 0.125)):
        each.looks.excess[:] = 0
        each.effects.edges[:] = 0
        each.effects.by_place[:] = 0
        each.looks.excess[1, 0, 1 + head] = look
        each.effects.by_place[1, 1 + head] = effect
        each.effects.edges[1 + head, -1] = effect
    row, column = torch.tensor([1]), torch.tensor([3])
    # Looks: |0.5 + 0.25| / 2 where both act; effects: two differences of 0.125; depth: 1/5, 3/5.
    assert float(distances(left, right, row, column)) == pytest.approx(0.375 + 0.25 + 0.4)


def test_heads_that_share_a_key_have_an_edge_each():
    graph = heads_and_mlps(shape(n_layers=1, n_heads=4, n_kv_heads=2))
    found = circuit(graph, "embed->a0.kv0.k", "embed->a0.h0.q", "a0.h0->logits", "a0.h1->logits")
    names = sorted(name_of(graph, item) for item in links_of(found))
    assert names == [
        "a0.h0->logits", "a0.h1->logits", "embed->a0.h0.k", "embed->a0.h0.q", "embed->a0.h1.k",
    ]  # fmt: skip


def test_a_graph_that_merges_queries_keys_and_values_is_compared_without_ports():
    split, merged = heads_and_mlps(shape()), heads_and_mlps(shape(), merge_qkv=True)
    left = circuit(split, "embed->a0.h0.q", "embed->a0.h0.v", "a0.h0->logits")
    right = circuit(merged, "embed->a0.h0.qkv", "a0.h0->logits")
    same = [(i, i, 1.0) for i in range(len(split.writers))]
    found = compare_matched(left, right, same)
    assert found.edges.jaccard.value == 1
    assert found.edges.both == ("embed->a0.h0.qkv", "a0.h0->logits")


def test_what_has_no_counterpart_is_in_one_circuit_alone():
    large, small = (
        heads_and_mlps(shape(n_layers=2)),
        heads_and_mlps(shape(n_layers=1, has_mlp=False)),
    )
    left = circuit(large, "embed->a0.h0.v", "a0.h0->m1", "m1->logits", "a0.h1->logits")
    right = circuit(small, "embed->a0.h2.v", "a0.h2->logits", "a0.h1->logits")
    found = compare_matched(left, right, [(0, 0, 1.0), (1, 3, 0.5), (6, 2, 0.5)])
    assert found.edges.both == ("embed->a0.h0.v",)
    assert found.edges.left == ("a0.h0->m1", "a0.h1->logits", "m1->logits")
    assert found.edges.right == ("a0.h1->logits", "a0.h2->logits")
    assert found.edges.jaccard.value == pytest.approx(1 / 6)
    assert found.components.both == ("a0.h0",)


def test_p_values_are_not_too_small_if_what_heads_do_says_nothing_of_their_wiring():
    generator = np.random.default_rng(3)
    graph = heads_and_mlps(shape(n_layers=2, n_heads=4))
    left, start = drawn(graph, 0.3, generator), drawn(graph, 0.3, generator)
    ways = exchanges(graph, seed=1, draws=150)
    same = [(i, i, 1.0) for i in range(len(graph.writers))]
    places = []
    for number in range(150):
        right = torch.zeros_like(start.kept)
        for writer, reader in start.kept.nonzero().tolist():
            right[ways.writers[number, writer], ways.readers[number, reader]] = True
        found = compare_matched(left, Circuit(graph, right), same).edges.jaccard
        places.append(found.chance[EXCHANGED_HEADS].p_value)
    assert never_too_small(places)
    assert np.mean(places) < 0.65


@pytest.mark.parametrize(
    ("n_kv_heads", "n_times"),
    [(2, 40), *(pytest.param(n, 300, marks=pytest.mark.slow) for n in (4, 2))],
)
def test_p_values_are_uniform_for_unrelated_circuits_of_unlike_models(n_kv_heads, n_times):
    """Another depth, other heads, what heads do at random; within a step a place is drawn."""
    generator = np.random.default_rng(11)
    left_graph = heads_and_mlps(shape(n_layers=2, n_heads=3))
    right_graph = heads_and_mlps(shape(n_layers=3, n_heads=4, n_kv_heads=n_kv_heads, has_mlp=False))
    places, stated = [], []
    for seed in range(n_times):
        known = random_profiles(2 * seed, left_graph)
        other = random_profiles(2 * seed + 1, right_graph)
        left, right = drawn(left_graph, 0.4, generator), drawn(right_graph, 0.4, generator)
        matched = match(known, other)
        found = compare_matched(left, right, matched, seed=seed, draws=99).edges
        stated.append(found.jaccard.chance[EXCHANGED_HEADS].p_value)
        ways = exchanges(right_graph, seed=seed, draws=99).writers
        counterpart = np.full(len(right_graph.writers) + 1, -1)
        counterpart[[j for _, j, _ in matched]] = [i for i, _, _ in matched]
        counterpart[-1] = len(left_graph.writers)
        items = links_of(left), links_of(right)
        null = shared_by_match(left_graph, items, counterpart, ways)
        above, same = (
            null.weights[where].sum()
            for where in (null.values > len(found.both), null.values == len(found.both))
        )
        assert stated[-1] == pytest.approx(above + same)
        places.append(float(above + generator.random() * same))
    assert kstest(places, "uniform").pvalue > 0.01
    assert never_too_small(stated)


def test_circuits_of_tasks_with_other_positions_are_refused():
    left, right = random_profiles(0), random_profiles(1, places=("first", "(answer)"))
    with pytest.raises(
        PromptError, match="the prompts name end here and first there; compare circuits"
    ):
        match(left, right)


def found_in(model) -> tuple[Circuit, Profiles]:
    problem = make_problem(model, "ioi", n_prompts=16, metric="logit-difference")
    return discover(problem, "eap-ig", n_edges=N_EDGES).circuit, profiles(problem)


def name_of(graph, item) -> str:
    ports = ("", ".q", ".k", ".v", ".qkv")
    names = [*(writer.name for writer in graph.writers), "logits"]
    return f"{names[item[0]]}->{names[item[1]]}{ports[item[2]]}"


def random_profiles(seed: int, graph=SMALL, places=("end", "(answer)")) -> Profiles:
    generator = torch.Generator().manual_seed(seed)
    n_writers, n_readers = len(graph.writers), len(graph.readers)

    def draw(*sizes):
        return torch.rand(*sizes, generator=generator, dtype=torch.float64)

    seen = Looks(places, ("previous", "right"), draw(2, 2, n_writers))
    by_place = draw(2, n_writers) / 20
    contributions = Effects("kl", 1.0, draw(n_writers, n_readers) / 20, places, by_place)
    return Profiles(graph, seen, contributions)
