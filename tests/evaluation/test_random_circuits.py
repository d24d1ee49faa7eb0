"""Random circuits share with a circuit what their null says; p-values are uniform under it."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from circuitfind.circuit import Circuit
from circuitfind.errors import MethodError
from circuitfind.evaluation.random_circuits import p_value, random_circuits
from circuitfind.evaluation.random_walks import connected_mask, inflated
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Units
from circuitfind.shape import ModelShape
from tests.type_checks import types_checked

SHAPE = {"n_layers": 3, "n_heads": 4, "d_model": 8, "d_head": 2, "d_vocab": 10}
GRAPHS = {
    "plain": heads_and_mlps(ModelShape(**SHAPE, n_kv_heads=4)),
    "grouped": heads_and_mlps(ModelShape(**SHAPE, n_kv_heads=2)),
    "parallel": heads_and_mlps(ModelShape(**SHAPE, n_kv_heads=4, parallel_mlp=True)),
    "attention only": heads_and_mlps(ModelShape(**SHAPE, n_kv_heads=4, has_mlp=False)),
    "merged": heads_and_mlps(ModelShape(**SHAPE, n_kv_heads=4), merge_qkv=True),
    "split embedding": heads_and_mlps(
        ModelShape(**SHAPE, n_kv_heads=4, learned_positions=True), split_embedding=True
    ),
}
PLACED = ("grouped", "merged")
GRAPHS |= {f"{name} with places": GRAPHS[name].at_places(["b", "S", "end"]) for name in PLACED}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("n_edges", [1, 2, 3, 4, 10, 60])
def test_random_circuits_of_a_size_are_connected_and_meet_it_exactly(graph, n_edges):
    circuit = some_circuit(graph, n_edges)
    for drawn in random_circuits(circuit, 10, null="size", seed=1):
        assert drawn.n_edges == n_edges
        assert drawn.connected().n_edges == n_edges


def test_where_latents_take_the_stream_apart_all_paths_lead_through_them():
    latents = Units(1, "latent", (3, 5), error="live", of="resid_mid")
    graph = heads_and_mlps(ModelShape(**SHAPE, n_kv_heads=2), units=[latents])
    for n_edges in (2, 3, 20):
        circuit = some_circuit(graph, n_edges)
        assert circuit.n_edges == n_edges
        for null in ("size", "degree"):
            for drawn in random_circuits(circuit, 3, null=null, seed=1):
                assert drawn.connected().n_edges == drawn.n_edges == n_edges
                assert "mid1" in drawn.components
    with pytest.raises(MethodError, match="found no connected circuit of 1 edges"):
        connected_mask(graph, 1, np.random.default_rng(0))


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_nearly_and_wholly_full_graphs_are_met_exactly_too(graph):
    for missing in (0, 1, 5):
        mask = connected_mask(graph, graph.n_edges - missing, np.random.default_rng(0))
        assert mask.sum() == graph.n_edges - missing
        assert Circuit(graph, torch.from_numpy(mask)).connected().n_edges == mask.sum()


@pytest.mark.parametrize("name", PLACED)
def test_an_added_walk_lies_on_paths_to_the_logits(name):
    graph, generator = GRAPHS[f"{name} with places"], np.random.default_rng(0)
    for n_edges in (1, 5, 40, graph.n_edges - 1):
        kept = connected_mask(graph, n_edges, generator)
        for _ in range(3):
            larger, new = inflated(graph, kept, generator)
            assert new and set(new) == set(map(tuple, np.argwhere(larger & ~kept)))
            assert Circuit(graph, torch.from_numpy(larger)).connected().n_edges == larger.sum()


@pytest.mark.parametrize("missing", ["m2->logits@S", "a1.h0->m1@b", "embed->a2.kv0.k@end"])
def test_an_edge_that_walks_hardly_find_is_added_all_the_same(missing, monkeypatch):
    monkeypatch.setattr("circuitfind.evaluation.random_walks._FRUITLESS_WALKS", 0)
    graph, component = GRAPHS["grouped with places"], missing.partition("->")[0]
    others = {edge.name for edge in graph.edges() if edge.writer.name == component} - {missing}
    kept = graph.mask_of(edge for edge in graph.edges() if edge.name != missing)
    for rest in (kept, kept & ~graph.mask_of(others)):
        larger, new = inflated(graph, rest.numpy(), np.random.default_rng(0))
        assert new and not (rest.numpy() & ~larger).any()
        used = {edge.name for edge in Circuit(graph, torch.from_numpy(larger)).connected().edges}
        assert {graph.edge(edge).name for edge in new} <= used


@pytest.mark.parametrize("name", GRAPHS)
def test_one_place_changes_nothing_that_is_drawn(name):
    graph = GRAPHS[name].merged
    one = graph.at_places(["everywhere"])
    circuit = some_circuit(graph, 30)
    for null in ("degree", "layer", "size"):
        whole, placed = (
            random_circuits(Circuit(of, circuit.kept), 2, null=null) for of in (graph, one)
        )
        assert all(torch.equal(a.kept, b.kept) for a, b in zip(whole, placed, strict=True))


def test_walks_reach_every_edge_at_every_place():
    """Each edge is on a walk to the logits: embedding, head at any place, MLP, and the logits."""
    shape = ModelShape(**{**SHAPE, "n_layers": 1, "n_heads": 2}, n_kv_heads=1)
    graph, generator = heads_and_mlps(shape).at_places(["a", "b"]), np.random.default_rng(0)
    seen = sum(connected_mask(graph, 4, generator).astype(int) for _ in range(300))
    assert ((seen > 0) == graph.edge_mask.numpy()).all()


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("n_edges", [3, 40])
def test_random_circuits_of_equal_degree_keep_every_degree_and_are_connected(graph, n_edges):
    circuit = some_circuit(graph, n_edges)
    drawn = random_circuits(circuit, 10, null="degree", seed=1)
    for other in drawn:
        assert degrees(other) == degrees(circuit)
        assert other.connected().n_edges == n_edges
    if n_edges > 3:
        assert len({other.kept.numpy().tobytes() for other in drawn}) == 10


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_random_circuits_of_equal_layers_keep_the_edges_between_layers(graph):
    circuit = some_circuit(graph, 40)
    for other in random_circuits(circuit, 10, null="layer", seed=1):
        assert profile(other) == profile(circuit)
        assert not torch.equal(other.kept, circuit.kept)


@pytest.mark.parametrize("null", ["degree", "layer", "size"])
def test_a_seed_fixes_what_is_drawn(null):
    circuit = some_circuit(GRAPHS["plain"], 30)
    one, same, other = (
        [drawn.kept for drawn in random_circuits(circuit, 3, null=null, seed=seed)]
        for seed in (0, 0, 1)
    )
    assert all(map(torch.equal, one, same)) and not any(map(torch.equal, one, other))


@pytest.mark.parametrize("null", ["degree", "layer", "size"])
def test_p_values_of_circuits_that_are_random_are_uniform(null):
    """Kolmogorov-Smirnov: circuits drawn from the null have uniform p-values by any statistic."""
    shape = {**SHAPE, "n_layers": 2, "n_heads": 3}
    graph, n_draws = heads_and_mlps(ModelShape(**shape, n_kv_heads=3)), 19
    first = some_circuit(graph, 40)
    weights = torch.randn(graph.edge_mask.shape, generator=torch.Generator().manual_seed(0))
    values = []
    for seed, circuit in enumerate(random_circuits(first, 100, null=null, seed=7)):
        drawn = random_circuits(circuit, n_draws, null=null, seed=1000 + seed)
        values.append(p_value(weight(circuit, weights), [weight(c, weights) for c in drawn]))
    # Multiples of 1/20, moved by a seeded share of a step, are uniform iff these are.
    spread = np.array(values) - np.random.default_rng(0).random(len(values)) / (n_draws + 1)
    assert kstest(spread, "uniform").pvalue > 0.05


def test_a_p_value_counts_the_circuit_itself_among_the_random_ones():
    assert p_value(3.0, [1.0, 2.0, 2.5]) == 1 / 4
    assert p_value(2.0, [1.0, 2.0, 2.5]) == 3 / 4
    assert p_value(0.0, []) == 1


def test_unknown_nulls_and_impossible_sizes_are_refused():
    circuit = some_circuit(GRAPHS["plain"], 5)
    with (
        types_checked(check=False),
        pytest.raises(MethodError, match="choose one of degree, layer"),
    ):
        random_circuits(circuit, 1, null="nothing")
    with pytest.raises(MethodError, match="a circuit of 9999 edges was asked for; there are"):
        connected_mask(circuit.graph, 9999, np.random.default_rng(0))


# ------------------------------------------------------------------------------- helpers


def some_circuit(graph, n_edges, seed=5):
    mask = connected_mask(graph, n_edges, np.random.default_rng(seed))
    return Circuit(graph, torch.from_numpy(mask))


def weight(circuit, weights):
    return float(weights[circuit.kept].sum())


def degrees(circuit):
    """How many edges each component writes at each place and each port reads there.

    Heads of a layer in any order.
    """
    graph, written, read = circuit.graph, Counter(), Counter()
    for edge in circuit.edges:
        written[edge.writer.name, edge.reader.place] += 1
        read[edge.reader.name] += 1
    rows = Counter()
    for writer, inputs in zip(graph.writers, graph.inputs, strict=True):
        ports = tuple(read[graph.readers[r].name] for r in inputs)
        name = writer.name if writer.index is None else f"a head of layer {writer.layer}"
        by_place = tuple(written[writer.name, place] for place in graph.places or (None,))
        rows[name, by_place, ports] += 1
    return rows, [read[graph.readers[r].name] for r in graph.logits]


def profile(circuit):
    return Counter(
        (
            edge.writer.layer,
            edge.writer.index is None,
            edge.reader.layer,
            edge.reader.port,
            edge.reader.place,
        )
        for edge in circuit.edges
    )
