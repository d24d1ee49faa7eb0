"""Which edges there are: the published counts, names that survive a round trip, clear refusals."""

import re

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitfind.circuit import Circuit
from circuitfind.errors import GraphError
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph
from circuitfind.shape import ModelShape
from tests.type_checks import types_checked

thorough = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def shape(n_layers: int, n_heads: int, n_kv_heads: int | None = None, **facts: bool) -> ModelShape:
    return ModelShape(n_layers, n_heads, n_kv_heads or n_heads, 8, 4, 10, **facts)


GPT2 = shape(12, 12, learned_positions=True)
SMALL = heads_and_mlps(shape(2, 2))
GROUPED = heads_and_mlps(shape(2, 4, 2))
PARALLEL = heads_and_mlps(shape(2, 2, parallel_mlp=True))
SHARED_NORM = heads_and_mlps(shape(2, 2, heads_share_norm=True))
GRAPHS = [SMALL, GROUPED, PARALLEL, SHARED_NORM, heads_and_mlps(shape(2, 2), merge_qkv=True)]


# ------------------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("graph", "n_edges"),
    [
        (heads_and_mlps(GPT2), 32_491),
        (heads_and_mlps(GPT2, merge_qkv=True), 11_611),
        (heads_and_mlps(GPT2, split_embedding=True), 32_936),
        (heads_and_mlps(shape(4, 8, has_mlp=False)), 1_281),
        (heads_and_mlps(shape(6, 8, parallel_mlp=True)), 3_580),
    ],
    ids=["gpt2", "gpt2, q/k/v merged", "gpt2, embedding split", "attention only", "pythia-70m"],
)
def test_edges_are_as_many_as_published(graph, n_edges):
    assert graph.n_edges == n_edges == len(graph.edges()) == int(graph.edge_mask.sum())


@pytest.mark.parametrize("n_layers", [1, 2, 5])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("parallel_mlp", [False, True])
@pytest.mark.parametrize("has_mlp", [False, True])
def test_edges_are_as_many_as_counting_by_hand_gives(n_layers, n_kv_heads, parallel_mlp, has_mlp):
    graph = heads_and_mlps(
        shape(n_layers, 4, n_kv_heads, parallel_mlp=parallel_mlp, has_mlp=has_mlp)
    )
    expected, written = 0, 1
    for _ in range(n_layers):
        expected += (4 + 2 * n_kv_heads) * written
        if has_mlp:
            expected += written if parallel_mlp else written + 4
        written += 4 + has_mlp
    assert graph.n_edges == expected + written
    assert graph.n_components == written


def test_an_edge_exists_iff_its_writer_has_run_before_its_reader():
    for graph in GRAPHS:
        for w, writer in enumerate(graph.writers):
            for r, reader in enumerate(graph.readers):
                assert bool(graph.edge_mask[w, r]) == (writer.stage < reader.stage)


def test_writers_and_readers_stand_in_the_order_in_which_they_run():
    for graph in GRAPHS:
        for ends in (graph.writers, graph.readers):
            stages = [end.stage for end in ends]
            assert stages == sorted(stages)


# ------------------------------------------------------------------------------- conventions


def test_a_parallel_mlp_does_not_read_the_heads_of_its_block():
    assert "a1.h0->m1" not in names(PARALLEL)
    assert {"a0.h0->m1", "m0->a1.h0.q", "m1->logits"} <= names(PARALLEL)
    assert "a1.h0->m1" in names(SMALL)


def test_heads_that_share_keys_read_them_once():
    readers = [reader.name for reader in GROUPED.readers if reader.layer == 0 and reader.port]
    assert readers == [
        *(f"a0.h{head}.q" for head in range(4)),
        *(f"a0.kv{head}.k" for head in range(2)),
        *(f"a0.kv{head}.v" for head in range(2)),
    ]
    key = GROUPED.readers[GROUPED.reader_index["a0.kv1.k"]]
    assert [writer.name for writer in GROUPED.fed_by(key)] == ["a0.h2", "a0.h3"]
    query = GROUPED.readers[GROUPED.reader_index["a0.h3.q"]]
    assert [writer.name for writer in GROUPED.fed_by(query)] == ["a0.h3"]


def test_merged_ports_and_split_embeddings_have_their_names():
    graph = heads_and_mlps(
        shape(1, 2, learned_positions=True), merge_qkv=True, split_embedding=True
    )
    assert [writer.name for writer in graph.writers] == [
        "embed",
        "pos_embed",
        "a0.h0",
        "a0.h1",
        "m0",
    ]
    assert [reader.name for reader in graph.readers] == ["a0.h0.qkv", "a0.h1.qkv", "m0", "logits"]


@pytest.mark.parametrize("graph", GRAPHS, ids=range(len(GRAPHS)))
def test_every_edge_is_found_again_by_its_name(graph):
    edges = graph.edges()
    assert [graph.edge(edge.name) for edge in edges] == edges
    assert len({edge.name for edge in edges}) == len(edges)
    assert torch.equal(graph.mask_of(edge.name for edge in edges), graph.edge_mask)


@thorough
@given(st.sampled_from(GRAPHS), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_a_mask_and_the_names_of_its_edges_say_the_same(graph, seed, share):
    kept = random_mask(graph, seed, share)
    assert torch.equal(graph.mask_of(edge.name for edge in graph.edges(kept)), kept)


# ------------------------------------------------------------------------------- blocks


sizes = st.fixed_dictionaries(
    {name: st.integers(1, 3) for name in ("n_layers", "n_kv", "group")}
    | {name: st.booleans() for name in ("merge_qkv", "split_embedding")}
    | {name: st.booleans() for name in ("has_mlp", "parallel_mlp", "heads_share_norm")}
)


def built(n_layers, n_kv, group, merge_qkv, split_embedding, **facts: bool) -> Graph:
    return heads_and_mlps(
        shape(n_layers, n_kv * group, n_kv, learned_positions=True, **facts),
        merge_qkv=merge_qkv and group == 1,
        split_embedding=split_embedding,
    )


@thorough
@given(sizes)
def test_every_writer_and_reader_is_in_one_block_and_runs_when_its_block_does(sizes):
    graph = built(**sizes)
    writers = [index for block in graph.blocks for index in block.writers]
    readers = [index for block in graph.blocks for index in block.readers]
    assert writers == list(range(len(graph.writers)))
    assert readers == list(range(len(graph.readers)))
    assert len({block.name for block in graph.blocks}) == len(graph.blocks)
    for block in graph.blocks:
        ends = [*map(graph.writers.__getitem__, block.writers)]
        ends += [*map(graph.readers.__getitem__, block.readers)]
        assert {end.stage for end in ends} == {block.stage}
        if block.kind in ("attention", "mlp"):
            assert {end.layer for end in ends} == {block.layer}
    assert (graph.blocks[0].layer, graph.blocks[-1].layer) == (-1, graph.shape.n_layers)


@thorough
@given(sizes)
def test_a_reader_feeds_the_heads_of_its_name_or_of_its_group(sizes):
    graph = built(**sizes)
    for reader, fed in zip(graph.readers, graph.feeds, strict=True):
        if reader.kind == "kv group":
            size = sizes["group"]
            heads = [f"a{reader.layer}.h{reader.index * size + i}" for i in range(size)]
        else:
            heads = [] if reader.name == "logits" else [reader.name.removesuffix(f".{reader.port}")]
        assert [graph.writers[writer].name for writer in fed] == heads
        assert [writer.name for writer in graph.fed_by(reader)] == heads
    for writer, inputs in enumerate(graph.inputs):
        assert all(writer in graph.feeds[reader] for reader in inputs)
    assert sum(map(len, graph.inputs)) == sum(map(len, graph.feeds))


@thorough
@given(sizes)
def test_what_a_component_is_agrees_with_its_name(sizes):
    graph = built(**sizes)
    names = {"embedding": "embed|pos_embed", "head": r"a\d+\.h\d+", "kv group": r"a\d+\.kv\d+"}
    for end in (*graph.writers, *graph.readers):
        assert re.fullmatch({**names, "mlp": r"m\d+", "logits": "logits"}[end.kind], end.component)
    for reader in graph.readers:
        assert reader.looks_back == reader.name.endswith((".k", ".v", ".qkv"))


@thorough
@given(sizes)
def test_components_that_are_exchangeable_read_and_are_read_alike(sizes):
    graph = built(**sizes)
    for block in graph.blocks:
        assert sorted(i for group in block.exchangeable for i in group) == (
            list(block.writers) if block.kind == "attention" else []
        )
        for group in block.exchangeable:
            shared = [{r for r in graph.inputs[w] if graph.readers[r].port != "q"} for w in group]
            assert len(group) == 1 or all(readers == shared[0] for readers in shared)
        assert len({len(group) for group in block.exchangeable}) <= 1


def test_graphs_of_the_same_parts_are_equal_and_of_other_sizes_are_not():
    again = heads_and_mlps(shape(2, 2))
    assert again == SMALL and hash(again) == hash(SMALL)
    assert heads_and_mlps(ModelShape(2, 2, 2, 16, 4, 10)) != SMALL


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a0.h0", "'a0.h0' is not an edge; edges look like 'a0.h1->a1.h0.q'"),
        ("", "'' is not an edge"),
        ("m9->logits", "no writer named 'm9' in this model; its 7 writers are embed, a0.h0, a0.h1"),
        ("a0.h0.q->m1", "no writer named 'a0.h0.q'"),
        ("a0.h0->a1.h0", "no reader named 'a1.h0' in this model; its 15 readers are a0.h0.q"),
        ("a0.h0->m1->logits", "no reader named 'm1->logits'"),
        (
            "m1->a0.h0.q",
            r"m1 writes at stage 4, not before a0.h0.q has read the stream \(stage 1\)",
        ),
        ("a0.h0->a0.h1.q", "no edge 'a0.h0->a0.h1.q'"),
        ("logits->m0", "no writer named 'logits'"),
    ],
)
def test_a_name_that_is_no_edge_is_refused_with_the_reason(name, line):
    with pytest.raises(GraphError, match=line):
        SMALL.edge(name)


def test_a_mask_with_an_impossible_pair_is_refused():
    with pytest.raises(GraphError, match="keeps a pair that is no edge of the graph"):
        SMALL.edges(torch.ones_like(SMALL.edge_mask))


def test_merging_the_ports_of_grouped_heads_is_refused():
    with pytest.raises(GraphError, match=r"cannot be merged .* \(4 share 2\); keep them split"):
        heads_and_mlps(shape(1, 4, 2), merge_qkv=True)


def test_splitting_an_embedding_without_positions_is_refused():
    with pytest.raises(GraphError, match="no position embedding to split from `embed`"):
        heads_and_mlps(shape(1, 2), split_embedding=True)


@pytest.mark.parametrize("sizes", [(0, 2, 2), (1, 0, 2), (1, 2, 0), (-1, 2, 2)])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(GraphError, match="a model's sizes are positive integers"):
        ModelShape(*sizes, 8, 4, 10)


def test_heads_that_cannot_share_keys_evenly_are_refused():
    with pytest.raises(GraphError, match="4 query heads cannot be shared out evenly over 3"):
        ModelShape(1, 4, 3, 8, 4, 10)


# ------------------------------------------------------------------------------- networkx


@thorough
@given(st.sampled_from(GRAPHS), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_network_holds_exactly_the_kept_edges(graph, seed, share):
    kept = random_mask(graph, seed, share)
    network = graph.network(kept)
    found = [data["name"] for *_, data in network.edges(data=True) if data["kind"] == "edge"]
    assert sorted(found) == sorted(edge.name for edge in graph.edges(kept))
    for writer, reader, data in network.edges(data=True):
        if data["kind"] == "edge":
            edge = graph.edge(data["name"])
            assert (writer, reader) == (edge.writer.component, edge.reader.component)
            assert data["port"] == (edge.reader.port or "")


@pytest.mark.parametrize("graph", GRAPHS, ids=range(len(GRAPHS)))
def test_the_network_has_no_cycles_and_runs_in_the_order_of_the_stages(graph):
    network = graph.network()
    assert nx.is_directed_acyclic_graph(network)
    stage = nx.get_node_attributes(network, "stage")
    for before, after, data in network.edges(data=True):
        within = data["kind"] in ("group", "norm")
        assert stage[before] <= stage[after] if within else stage[before] < stage[after]


def test_the_network_leads_from_shared_keys_to_the_heads_that_use_them():
    groups = [(a, b) for a, b, kind in GROUPED.network().edges(data="kind") if kind == "group"]
    assert sorted(set(groups)) == [
        (f"a{layer}.kv{head // 2}", f"a{layer}.h{head}") for layer in (0, 1) for head in range(4)
    ]


def test_the_network_shows_that_heads_act_through_a_shared_norm():
    network = SHARED_NORM.network(SHARED_NORM.mask_of(["a0.h0->m0", "m0->logits"]))
    assert nx.has_path(network, "a0.h1", "logits")
    assert "a1.norm" not in network
    assert not nx.has_path(SMALL.network(SMALL.mask_of(["a0.h0->m0", "m0->logits"])), "a0.h1", "m0")


# ------------------------------------------------------------------------------- helpers


def names(graph: Graph) -> set[str]:
    return {edge.name for edge in graph.edges()}


def random_mask(graph: Graph, seed: int, share: float) -> torch.Tensor:
    drawn = torch.rand(graph.edge_mask.shape, generator=torch.Generator().manual_seed(seed))
    return graph.edge_mask & (drawn < share)


@pytest.mark.parametrize(
    ("field", "given", "line"),
    [
        ("n_heads", 2.0, "n_heads must be a whole number, or a tuple of such, not 2.0"),
        ("n_heads", [2, 2], r"n_heads must be a whole number, .* not \[2, 2\]"),
        ("n_heads", (2, None), r"n_heads must be .* not \(2, None\)"),
        ("n_layers", True, "n_layers must be a whole number, not True"),
        ("has_mlp", "no", "has_mlp must be True or False, or a tuple of such, not 'no'"),
        ("heads_share_norm", 1, "heads_share_norm must be True or False, not 1"),
    ],
)
def test_sizes_of_another_type_are_refused(field, given, line):
    sizes = {"n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "d_model": 8, "d_head": 4, "d_vocab": 9}
    with types_checked(check=False), pytest.raises(GraphError, match=line):
        ModelShape(**sizes | {field: given})


@pytest.mark.parametrize(
    ("mask", "line"),
    [
        (SMALL.edge_mask.float(), "a mask is a tensor of True and False, not torch.float32"),
        ([True], "a mask is a tensor of True and False, not list"),
        (SMALL.edge_mask.T, "does not fit a graph of"),
    ],
)
def test_what_is_not_a_mask_of_the_graph_is_refused(mask, line):
    with types_checked(check=False), pytest.raises(GraphError, match=line):
        Circuit(SMALL, mask)


def test_moves_lead_from_a_port_of_a_head_at_a_place_to_the_head_at_another():
    graph = heads_and_mlps(GPT2).at_places(["a", "b"]).crossing(((0, 0), (0, 1), (1, 1)))
    edge = graph.edge("a7.h3.k@a->a7.h3@b")
    assert (edge.writer.component, edge.port, edge.writer.place) == ("a7.h3", "k", "a")
    assert graph.nodes_of(edge) == ("a7.h3.kv@a", "a7.h3@b")
    assert graph.n_components == len(heads_and_mlps(GPT2).writers)
    assert graph.outer == heads_and_mlps(GPT2).at_places(["a", "b"])
    for name in ("a7.h3.k@b->a7.h3@a", "a7.h3.k@a->a7.h2@b", "a7.h3->a7.h3@b", "a7.h3.k@a->m7@a"):
        with pytest.raises(GraphError, match="moves inside attention lead from a port"):
            graph.edge(name)


def test_moves_are_refused_where_there_are_none():
    graph = heads_and_mlps(GPT2)
    placed, merged = graph.at_places(["a"]), heads_and_mlps(GPT2, merge_qkv=True).at_places(["a"])
    tries = (
        (graph, ((0, 0),), "tell places apart first"),
        (merged, ((0, 0),), "keep q, k and v apart"),
        (placed, ((0, 1),), "pairs of places by number"),
        (placed, (), "at least one"),
        (placed.crossing(((0, 0),)), ((0, 0),), "already"),
    )
    for refused, moves, message in tries:
        with pytest.raises(GraphError, match=message):
            refused.crossing(moves)
