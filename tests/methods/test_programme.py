"""The integer programme: against all circuits of small graphs, and against the other walks."""

import itertools

import pytest
import torch

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph, Units
from circuitfind.methods.programme import best_connected
from circuitfind.shape import ModelShape
from tests.engine.problems import engine_of

TINY = ModelShape(
    n_layers=2, n_heads=1, n_kv_heads=1, d_model=4, d_head=2, d_vocab=5, has_mlp=False
)


def scores_of(graph: Graph, seed: int) -> EdgeScores:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(graph.edge_mask.shape, generator=generator, dtype=torch.float64)
    return EdgeScores(graph, values.masked_fill(~graph.edge_mask, torch.nan), "nat", "test")


def worth(scores: EdgeScores, circuit: Circuit, *, signed: bool) -> float:
    values = scores.values if signed else scores.values.abs()
    return float(values[circuit.kept].sum())


def best_by_trying(scores: EdgeScores, n: int, *, signed: bool) -> float:
    """Return the largest sum of scores over all circuits without dead ends."""
    graph, best = scores.graph, 0.0
    edges = graph.edge_mask.nonzero()
    for size in range(1, n + 1):
        for some in itertools.combinations(range(len(edges)), size):
            kept = torch.zeros_like(graph.edge_mask)
            kept[tuple(edges[list(some)].T)] = True
            circuit = Circuit(graph, kept)
            if circuit.connected().n_edges == size:
                best = max(best, worth(scores, circuit, signed=signed))
    return best


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("places", [(), ("a", "b")])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_best_of_all_circuits_of_a_small_graph(seed, places, signed):
    graph = heads_and_mlps(TINY, merge_qkv=True)
    graph = graph.at_places(places) if places else graph
    scores = scores_of(graph, seed)
    for n in (1, 2, 4):
        found = best_connected(scores, n, signed=signed)
        assert found.n_edges <= n and found.connected().kept.equal(found.kept)
        expected = best_by_trying(scores, n, signed=signed)
        assert worth(scores, found, signed=signed) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("gpt2", {}),
        ("llama", {}),
        ("gemma2", {}),
        ("gpt-neox-parallel", {}),
        ("llama", {"place_of": ((0, 1, 1, 1, 2, 2), (1, 0, 0, 2, 2, 2))}),
        ("gpt2", {"units": (Units(1, "neuron", (0, 3)),)}),
    ],
)
def test_no_walk_and_no_ranking_finds_more(family, options):
    graph = engine_of(family, **options).graph
    scores = scores_of(graph, seed=0)
    for n in (5, 17, graph.n_edges // 3):
        for signed in (True, False):
            found = best_connected(scores, n, signed=signed)
            assert found.n_edges <= n and found.connected().kept.equal(found.kept)
            best = worth(scores, found, signed=signed)
            for other in (
                scores.top(n, signed=signed).connected(),
                scores.greedy(n, signed=signed),
            ):
                if other.connected().kept.equal(other.kept):
                    assert best >= worth(scores, other, signed=signed) - 1e-6


def test_edges_without_a_score_are_not_taken():
    scores = scores_of(engine_of("gpt2").graph, seed=1)
    scores.values[0] = torch.nan
    assert best_connected(scores, 30).n_edges == 0
    scores.values[:] = torch.nan
    assert best_connected(scores, 30).n_edges == 0
