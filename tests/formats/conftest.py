"""Circuits of every kind of graph, with effects known and unknown."""

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph
from circuitfind.shape import ModelShape
from tests.test_circuit import WITH_UNITS
from tests.test_graph import GRAPHS, random_mask

GPT2_SMALL = heads_and_mlps(ModelShape(12, 12, 12, 768, 64, 50257, learned_positions=True))
SPLIT = heads_and_mlps(ModelShape(2, 2, 2, 8, 4, 11, learned_positions=True), split_embedding=True)
PLACED = [graph.at_places(["S1", 'b"<&>:\\', "end"]) for graph in GRAPHS[1::2]]
MOVES = [
    graph.at_places(["S1", "end"]).crossing(((0, 0), (0, 1), (1, 1), (1, 0)))
    for graph in GRAPHS
    if graph.split_qkv
]
KINDS = [*GRAPHS, SPLIT, *PLACED, *MOVES, *WITH_UNITS, WITH_UNITS[0].at_places(["S1", "end"])]
ORIGIN = {
    "task": 'io"i\\',
    "model": "tiny <&>",
    "options": {"threshold": 0.1, "order": None, "prune": True},
    "note": "Ünïcode, 'quotes', [brackets] -> {braces}; \n\t a line, and \u2028 another",
}


def circuit_of(graph: Graph, seed: int = 0, *, only_kept: bool = False) -> Circuit:
    """A circuit in which some kept and some cut edges have effects, of awkward sizes."""
    generator = torch.Generator().manual_seed(seed)
    kept = random_mask(graph, seed, 0.4)
    size = graph.edge_mask.shape
    effects = torch.randn(size, generator=generator, dtype=torch.float64)
    effects *= 10 ** torch.randint(-12, 12, size, generator=generator).double()
    unknown = torch.rand(size, generator=generator) < 0.3
    effects[unknown | ~graph.edge_mask | (~kept & only_kept)] = torch.nan
    return Circuit(graph, kept, effects, ORIGIN)


def assert_same(found: Circuit, expected: Circuit, *, origin: bool = True) -> None:
    assert found.graph == expected.graph
    assert torch.equal(found.kept, expected.kept)
    torch.testing.assert_close(found.effects, expected.effects, rtol=0, atol=0, equal_nan=True)
    if origin:
        assert found.to_json() == expected.to_json()


@pytest.fixture(params=range(len(KINDS)))
def graph(request) -> Graph:
    return KINDS[request.param]
