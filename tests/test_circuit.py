"""Circuits and scores: pruning, ranking, and files that say what was written."""

import json
from itertools import pairwise

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitfind.circuit import Circuit, EdgeScores, load_circuit
from circuitfind.errors import CircuitFileError, GraphError
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Edge, Graph, Units
from circuitfind.shape import ModelShape
from tests.test_graph import GRAPHS, GROUPED, SHARED_NORM, SMALL, random_mask, shape

thorough = settings(max_examples=60, deadline=None, derandomize=True, database=None)
any_mask = st.tuples(
    st.sampled_from(GRAPHS), st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.15, 0.4, 0.9])
)


# ------------------------------------------------------------------------------- dead ends


@thorough
@given(any_mask)
def test_connected_is_removing_dead_ends_until_none_is_left(drawn):
    graph, *_ = drawn
    circuit = Circuit(graph, random_mask(*drawn))
    assert torch.equal(circuit.connected().kept, naively_connected(graph, circuit.kept))


WITH_UNITS = [
    heads_and_mlps(shape(2, 2), units=[Units(0, "neuron", (1, 3)), of_dictionary])
    for of_dictionary in (
        Units(1, "latent", (0, 2), apart=True, skip=True, error="fixed"),
        Units(1, "latent", (0, 2), error="live"),
        Units(1, "latent", (0, 2), error="live", of="resid_pre"),
    )
]


@thorough
@given(
    st.sampled_from([*GRAPHS, *WITH_UNITS]),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.05, 0.15, 0.4]),
)
def test_connected_keeps_what_networkx_finds_between_sources_and_logits(
    whole, n_places, seed, share
):
    graph = whole.at_places([f"p{number}" for number in range(n_places)])
    circuit = Circuit(graph, random_mask(graph, seed, share))
    assert circuit.connected().edges == between_the_ends(circuit)


@thorough
@given(any_mask)
def test_connecting_twice_is_connecting_once_and_adds_nothing(drawn):
    graph, *_ = drawn
    circuit = Circuit(graph, random_mask(*drawn))
    once = circuit.connected()
    assert torch.equal(once.connected().kept, once.kept)
    assert not (once.kept & ~circuit.kept).any()
    assert len(circuit.without(once)) == circuit.n_edges - once.n_edges


def test_dead_ends_of_both_kinds_go_with_what_leads_into_them():
    read_nothing = ["a0.h0->m0", "m0->logits"]
    lead_nowhere = ["embed->a0.h1.q", "a0.h1->m1"]
    kept = SMALL.mask_of([*read_nothing, *lead_nowhere, "embed->logits"])
    assert [edge.name for edge in Circuit(SMALL, kept).connected().edges] == ["embed->logits"]


def test_a_head_lives_if_it_reads_through_any_port():
    names = ["embed->a0.h0.k", "a0.h0->logits"]
    assert connected(SMALL, names) == names
    shared = ["embed->a0.kv1.v", "a0.h3->logits"]
    assert connected(GROUPED, shared) == shared
    assert connected(GROUPED, ["embed->a0.kv0.v", "a0.h3->logits"]) == []


def test_a_head_lives_through_a_norm_that_it_shares():
    names = ["embed->a0.h1.q", "a0.h0->logits"]
    assert connected(SHARED_NORM, names) == names
    assert connected(SMALL, names) == []


# ------------------------------------------------------------------------------- what it says


def test_components_are_those_that_read_or_write_in_the_order_in_which_they_run():
    circuit = Circuit(GROUPED, GROUPED.mask_of(["a0.h3->m1", "embed->a0.kv1.v", "m1->logits"]))
    assert circuit.components == ["embed", "a0.h3", "a0.kv1", "m1", "logits"]
    assert circuit.n_edges == 3


def test_an_effect_is_a_number_or_none_where_it_was_not_measured():
    effects = torch.full(SMALL.edge_mask.shape, torch.nan, dtype=torch.float64)
    edge = SMALL.edge("embed->m0")
    effects[0, SMALL.reader_index["m0"]] = -0.25
    circuit = Circuit(SMALL, SMALL.edge_mask, effects)
    assert circuit.effect(edge) == -0.25
    assert circuit.effect(SMALL.edge("embed->m1")) is None
    assert Circuit(SMALL, SMALL.edge_mask).effect(edge) is None
    network = circuit.network()
    assert network.edges["embed", "m0", "embed->m0"]["effect"] == -0.25
    assert "effect" not in network.edges["embed", "m1", "embed->m1"]


def test_circuits_of_different_graphs_are_not_compared():
    other = Circuit(GROUPED, GROUPED.edge_mask)
    with pytest.raises(GraphError, match="belongs to another model: n_heads is 2 and 4 here"):
        Circuit(SMALL, SMALL.edge_mask).without(other)
    merged = heads_and_mlps(SMALL.shape, merge_qkv=True)
    with pytest.raises(GraphError, match=r"other options \(split q/k/v or embedding\)"):
        Circuit(SMALL, SMALL.edge_mask).without(Circuit(merged, merged.edge_mask))


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(GraphError, match="does not fit a graph of 7 writers and 15 readers"):
        Circuit(SMALL, GROUPED.edge_mask)
    with pytest.raises(GraphError, match="keeps a pair that is no edge"):
        Circuit(SMALL, torch.ones_like(SMALL.edge_mask))


# ------------------------------------------------------------------------------- files


@thorough
@given(any_mask)
def test_a_circuit_survives_its_file_unchanged(tmp_path_factory, drawn):
    graph, seed, _ = drawn
    circuit = circuit_with_effects(graph, random_mask(*drawn), seed)
    path = tmp_path_factory.mktemp("circuit") / "circuit.json"
    circuit.save(path)
    loaded = load_circuit(path, graph)
    assert loaded.graph == graph and loaded.origin == circuit.origin
    assert torch.equal(loaded.kept, circuit.kept)
    torch.testing.assert_close(
        loaded.effects.masked_fill(~loaded.kept, 0),
        circuit.effects.masked_fill(~circuit.kept, 0),
        rtol=0,
        atol=0,
        equal_nan=True,
    )
    assert loaded.to_json() == circuit.to_json()


def test_equal_circuits_are_equal_byte_for_byte():
    first, again = (circuit_with_effects(SMALL, random_mask(SMALL, 1, 0.5), 3) for _ in range(2))
    assert first.to_json() == again.to_json()


def test_an_infinite_effect_is_not_written_as_json_that_others_cannot_read():
    effects = torch.full(SMALL.edge_mask.shape, torch.inf)
    with pytest.raises(ValueError, match="not JSON compliant"):
        Circuit(SMALL, SMALL.edge_mask, effects).to_json()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda c: c["edges"][0].update(edge="m7->logits"), "no writer named 'm7'"),
        (lambda c: c["edges"][0].update(edge="m1->m0"), "no edge 'm1->m0'"),
        (lambda c: c["edges"][0].update(edge="embed"), "'embed' is not an edge"),
        (lambda c: c["edges"][0].pop("edge"), "is not a circuit file: KeyError at 'edge'"),
        (lambda c: c["edges"][0].update(effect="much"), "'much', which is not a number"),
        (lambda c: c.update(edges=7), "is not a circuit file: TypeError"),
        (lambda c: c.update(format="other 3"), "its format is 'other 3', not 'circuitfind circuit"),
        (lambda c: c.pop("format"), "is not a circuit of this kind: it has no format"),
        (lambda c: c["shape"].update(n_layers=0), "sizes are positive integers"),
        (lambda c: c["shape"].update(n_layers=2.0), "its shape.n_layers is 2.0, not of type int"),
        (lambda c: c["shape"].update(n_layers=10**9), "is larger than that of any model"),
        (lambda c: c["shape"].update(n_layers=10**4000), "is larger than that of any model"),
        (
            lambda c: c["shape"].update(n_layers=1000, n_heads=20, n_kv_heads=20),
            r"1,000 layers with 20 heads is larger .* 1,281,\d+,\d+ pairs .* at most 268,435,456",
        ),
        (lambda c: c["edges"].append(c["edges"][0]), "it names the edge 'embed->m0' twice"),
        (lambda c: c["edges"][0].update(effect=10**400), "the effect of 'embed->m0' is not finite"),
        (lambda c: c["shape"].pop("d_model"), "its shape lacks the field 'd_model'"),
        (lambda c: c["graph"].update(split_embedding=True), "no position embedding to split"),
    ],
)
def test_a_file_that_says_something_impossible_is_refused(tmp_path, change, line):
    path = tmp_path / "circuit.json"
    content = json.loads(Circuit(SMALL, SMALL.mask_of(["embed->m0"])).to_json())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(CircuitFileError, match=line) as refusal:
        load_circuit(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "circuit.json"
    text = Circuit(SMALL, SMALL.edge_mask).to_json()
    path.write_text(text[: int(share * len(text))])
    with pytest.raises(CircuitFileError, match="is not valid JSON, or was cut short"):
        load_circuit(path)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"circuit"', "{}"])
def test_json_that_is_no_circuit_is_refused(tmp_path, text):
    path = tmp_path / "circuit.json"
    path.write_text(text)
    with pytest.raises(CircuitFileError, match="is not a circuit file"):
        load_circuit(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"digraph { a -> b }"])
def test_a_file_that_is_no_json_is_refused(tmp_path, content):
    path = tmp_path / "circuit.json"
    path.write_bytes(content)
    with pytest.raises(CircuitFileError, match="is not valid JSON"):
        load_circuit(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CircuitFileError, match=r"cannot read the circuit .*: No such file"):
        load_circuit(tmp_path / "nope.json")
    with pytest.raises(CircuitFileError, match=r"cannot read the circuit .*circuit.json: No such"):
        load_circuit(tmp_path)


def test_a_circuit_of_another_model_is_refused(tmp_path):
    path = tmp_path / "circuit.json"
    Circuit(SMALL, SMALL.edge_mask).save(path)
    with pytest.raises(CircuitFileError, match="another model: n_layers is 2 and 3 here"):
        load_circuit(path, heads_and_mlps(shape(3, 2)))
    wider = ModelShape(2, 2, 2, 16, 4, 10)
    with pytest.raises(CircuitFileError, match="another model: d_model is 8 and 16 here"):
        load_circuit(path, heads_and_mlps(wider))
    with pytest.raises(CircuitFileError, match="other options"):
        load_circuit(path, heads_and_mlps(SMALL.shape, merge_qkv=True))


# ------------------------------------------------------------------------------- scores


@thorough
@given(any_mask, st.integers(0, 120), st.booleans())
def test_the_top_scores_are_the_first_of_all_sorted(drawn, n, signed):
    graph, scores = scored(drawn)
    rows = [(edge.name, value(scores, edge)) for edge in graph.edges()]
    rows = [(name, score) for name, score in rows if score == score]
    order = sorted(rows, key=lambda row: -row[1] if signed else -abs(row[1]))
    assert [(edge.name, score) for edge, score in scores.ranked(signed=signed)] == order
    circuit = scores.top(n, signed=signed)
    assert sorted(edge.name for edge in circuit.edges) == sorted(name for name, _ in order[:n])


@thorough
@given(any_mask, st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.booleans())
def test_above_keeps_scores_of_at_least_the_threshold(drawn, threshold, signed):
    graph, scores = scored(drawn)
    sizes = [(edge.name, value(scores, edge)) for edge in graph.edges()]
    expected = [name for name, v in sizes if (v if signed else abs(v)) >= threshold]
    assert [edge.name for edge in scores.above(threshold, signed=signed).edges] == expected


@thorough
@given(any_mask, st.integers(0, 60), st.booleans())
def test_greedy_takes_the_best_edge_into_what_it_has_reached_each_time(drawn, n, signed):
    graph, scores = scored(drawn)
    ranked = [edge for edge, _ in scores.ranked(signed=signed)]
    reached, chosen = {"logits"}, []
    while len(chosen) < n:
        open_edges = [
            edge for edge in ranked if edge not in chosen and reached & _fed(graph, edge.reader)
        ]
        if not open_edges:
            break
        chosen.append(open_edges[0])
        reached.add(open_edges[0].writer.component)
    circuit = scores.greedy(n, signed=signed)
    assert sorted(e.name for e in circuit.edges) == sorted(e.name for e in chosen)


def test_ties_stand_in_the_order_of_the_graph():
    scores = EdgeScores(SMALL, torch.ones(SMALL.edge_mask.shape), "nats", "test")
    assert [edge for edge, _ in scores.ranked()] == SMALL.edges()
    places = [SMALL.edges().index(edge) for edge in scores.top(10).edges]
    assert all(before < after for before, after in pairwise(places))


# ------------------------------------------------------------------------------- helpers


def connected(graph: Graph, names: list[str]) -> list[str]:
    return [edge.name for edge in Circuit(graph, graph.mask_of(names)).connected().edges]


def naively_connected(graph: Graph, kept: torch.Tensor) -> torch.Tensor:
    """Take away any edge that nothing feeds or nothing uses, until there is none."""
    edges = {edge.name: edge for edge in graph.edges(kept)}
    while True:
        writing = [edge.writer for edge in edges.values()]
        reading = [edge.reader for edge in edges.values()]
        gone = [
            name
            for name, edge in edges.items()
            if not is_fed(graph, edge.writer, reading) or not is_used(graph, edge.reader, writing)
        ]
        if not gone:
            return graph.mask_of(edges)
        for name in gone:
            del edges[name]


def between_the_ends(circuit: Circuit) -> list[Edge]:
    """The edges between what sources lead to and what leads to the logits."""
    graph, network = circuit.graph, circuit.graph.network(circuit.kept)
    kinds = dict(network.nodes(data="kind"))
    starts = {graph.writers[writer].name for writer in graph.sources}
    first = [node for node in network if node.partition("@")[0] in starts]
    last = [node for node in network if kinds[node] == "logits"]
    reached = set(first).union(*(nx.descendants(network, node) for node in first))
    used = set(last).union(*(nx.ancestors(network, node) for node in last))
    return [
        edge
        for edge in circuit.edges
        if {graph.nodes_of(edge)[0], graph.norm_node(edge)} & reached
        and graph.nodes_of(edge)[1] in used
    ]


def is_fed(graph, writer, reading):
    """Whether a writer is the embedding or something with a kept edge feeds what it writes."""
    return writer.stage == 0 or any(
        writer.name in acting(graph, fed) for reader in reading for fed in _fed(graph, reader)
    )


def is_used(graph, reader, writing):
    """Whether a reader is the logits or what it feeds has a kept edge somewhere."""
    return reader.name == "logits" or any(
        writer.name in acting(graph, fed) for writer in writing for fed in _fed(graph, reader)
    )


def acting(graph, component):
    """The writers whose output changes when what this component computes changes."""
    layer_heads = [
        [f"a{layer}.h{head}" for head in range(graph.shape.n_heads)]
        for layer in range(graph.shape.n_layers)
    ]
    if graph.shape.heads_share_norm:
        for heads in layer_heads:
            if component in heads:
                return heads
    return [component]


def circuit_with_effects(graph: Graph, kept: torch.Tensor, seed: int) -> Circuit:
    generator = torch.Generator().manual_seed(seed)
    effects = torch.randn(kept.shape, generator=generator, dtype=torch.float64) / 3
    effects[torch.rand(kept.shape, generator=generator) < 0.3] = torch.nan
    origin = {"task": "ioi", "threshold": 0.1, "names": ["é", "x"], "nested": {"a": None}}
    return Circuit(graph, kept, effects, origin)


def scored(drawn) -> tuple[Graph, EdgeScores]:
    """Scores with many ties, some of them missing."""
    graph, seed, share = drawn
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-3, 4, graph.edge_mask.shape, generator=generator).double() / 2
    values[torch.rand(values.shape, generator=generator) > share + 0.1] = torch.nan
    return graph, EdgeScores(graph, values, "nats", "test")


def value(scores, edge):
    graph = scores.graph
    return float(scores.values[graph.index(edge)])


def test_a_graph_of_the_size_of_the_largest_models_is_allowed():
    large = heads_and_mlps(ModelShape(80, 64, 8, d_model=8192, d_head=128, d_vocab=128_000))
    assert (len(large.writers), len(large.readers)) == (1 + 80 * 65, 1 + 80 * (64 + 8 + 8 + 1))


def test_a_file_that_names_something_twice_is_refused(tmp_path):
    path = tmp_path / "circuit.json"
    text = Circuit(SMALL, SMALL.mask_of(["embed->m0"])).to_json()
    path.write_text(text.replace('"origin": {}', '"origin": {}, "edges": []'))
    with pytest.raises(CircuitFileError, match="names 'edges' twice in one object"):
        load_circuit(path)


def _fed(graph, reader):
    """Names of what computes with what a reader receives; the logits themselves of theirs."""
    return {writer.name for writer in graph.fed_by(reader)} or {reader.name}
