"""EAP-IG's and MIB's files, against a reader that follows their description and nothing of ours.

The description is that of `Graph` in https://github.com/hannamw/EAP-IG: how `from_model` builds the
edges of a model, what `from_json` takes from a file, and what `prune` removes.
"""

import json

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.errors import CircuitFileError
from circuitfind.formats.eap_ig import edge_names, read, write
from circuitfind.formats.submission import PERCENTAGES, circuits, importances
from circuitfind.granularity import heads_and_mlps
from circuitfind.shape import ModelShape
from tests.formats.conftest import GPT2_SMALL, SPLIT, circuit_of
from tests.test_graph import GROUPED, PARALLEL, SMALL


def edges_by_description(cfg):
    """The edges of a model as EAP-IG builds them, in its order."""
    stream, edges = ["input"], []
    for layer in range(cfg["n_layers"]):
        heads = [f"a{layer}.h{head}" for head in range(cfg["n_heads"])]
        edges += [f"{w}->{head}<{x}>" for w in stream for head in heads for x in "qkv"]
        stream_of_mlp = stream if cfg["parallel_attn_mlp"] else [*stream, *heads]
        edges += [f"{w}->m{layer}" for w in stream_of_mlp]
        stream = [*stream, *heads, f"m{layer}"]
    return [*edges, *(f"{w}->logits" for w in stream)]


def read_by_description(text):
    """Return the edges in the graph, the nodes in the graph and the scores of a file."""
    content = json.loads(text)
    known = set(edges_by_description(content["cfg"]))
    assert set(content["edges"]) <= known
    in_graph = {name for name, said in content["edges"].items() if said["in_graph"]}
    scores = {name: said["score"] for name, said in content["edges"].items() if "score" in said}
    nodes = {name for name, said in content["nodes"].items() if said["in_graph"]}
    return in_graph, nodes, scores


def pruned_by_description(edges):
    """Remove nodes without an edge in or an edge out, and their edges, until none is left."""
    while True:
        writes = {edge.split("->")[0] for edge in edges}
        reads = {edge.split("->")[1].split("<")[0] for edge in edges}
        nodes = {node for node in writes if node in reads or node == "input"}
        left = {
            edge
            for edge in edges
            if edge.split("->")[0] in nodes
            and edge.split("->")[1].split("<")[0] in nodes | {"logits"}
        }
        if left == edges:
            return left
        edges = left


@pytest.mark.parametrize("parallel", [False, True])
def test_the_edges_of_a_model_are_those_of_eap_ig_by_name(parallel):
    graph = heads_and_mlps(ModelShape(3, 4, 4, 8, 2, 11, parallel_mlp=parallel))
    cfg = {"n_layers": 3, "n_heads": 4, "parallel_attn_mlp": parallel}
    ours = [name for edge in graph.edges() for name in edge_names(edge, graph)]
    assert sorted(ours) == sorted(edges_by_description(cfg))


def test_gpt2_small_has_the_32491_edges_of_eap_ig_by_name():
    cfg = {"n_layers": 12, "n_heads": 12, "parallel_attn_mlp": False}
    expected = edges_by_description(cfg)
    assert len(expected) == 32_491
    written = json.loads(write(Circuit(GPT2_SMALL, GPT2_SMALL.edge_mask)))
    assert set(written["edges"]) == set(expected)
    assert len(written["edges"]) == GPT2_SMALL.n_edges == 32_491
    assert written["cfg"] == {**cfg, "d_model": 768}


@pytest.mark.parametrize(
    ("graph", "seed"), [(SMALL, 0), (SMALL, 1), (SMALL, 2), (PARALLEL, 3), (GPT2_SMALL, 0)]
)
def test_a_circuit_read_by_the_formats_rules_is_the_same_circuit(graph, seed):
    circuit = circuit_of(graph, seed)
    in_graph, nodes, scores = read_by_description(write(circuit))
    assert in_graph == {theirs(edge.name) for edge in circuit.edges}
    for edge in graph.edges():
        assert scores[theirs(edge.name)] == (circuit.effect(edge) or 0.0)
    read_nodes = {name.split("->")[1].split("<")[0] for name in in_graph} | {"input"}
    assert nodes == ({name.split("->")[0] for name in in_graph} & read_nodes) | {"logits"}


def test_what_eap_ig_prunes_is_what_we_call_dead_ends():
    for seed in range(20):
        circuit = circuit_of(SMALL, seed)
        in_graph, *_ = read_by_description(write(circuit))
        expected = {theirs(edge.name) for edge in circuit.connected().edges}
        assert pruned_by_description(in_graph) == expected


def theirs(name):
    """Our name of an edge as EAP-IG writes it, for graphs in which each is one of theirs."""
    writer, reader = name.split("->")
    head, dot, port = reader.rpartition(".")
    named = f"{head}<{port}>" if dot else reader
    return f"{'input' if writer == 'embed' else writer}->{named}"


def test_a_file_of_eap_ig_is_read_without_our_header():
    circuit = circuit_of(SMALL)
    content = json.loads(write(circuit))
    unscored = set(content.pop("circuitfind")["unscored"])
    with pytest.raises(CircuitFileError, match="name the model"):
        read(json.dumps(content))
    found = read(json.dumps(content), SMALL)
    assert torch.equal(found.kept, circuit.kept)
    # Without the header, an edge without a score and one with the score 0 are the same.
    for edge in SMALL.edges():
        assert found.effect(edge) == (0.0 if edge.name in unscored else circuit.effect(edge))


def test_an_edge_of_a_shared_key_is_kept_if_one_of_its_heads_keeps_it():
    content = {
        "cfg": {"n_layers": GROUPED.shape.n_layers, "n_heads": GROUPED.shape.n_heads},
        "nodes": {},
        "edges": {
            "input->a0.h0<k>": {"score": 0.25, "in_graph": False},
            "input->a0.h1<k>": {"score": 0.5, "in_graph": True},
            "input->a0.h2<k>": {"score": 4.0, "in_graph": False},
        },
    }
    found = read(json.dumps(content), GROUPED)
    assert [edge.name for edge in found.edges] == ["embed->a0.kv0.k"]
    assert found.effect(GROUPED.edge("embed->a0.kv0.k")) == 0.75
    assert found.effect(GROUPED.edge("embed->a0.kv1.k")) == 4.0


def test_a_file_that_keeps_nodes_only_keeps_the_edges_between_them():
    edges = {name: {"in_graph": False} for name in json.loads(write(full(SMALL)))["edges"]}
    content = {
        "cfg": {},
        "nodes": {"a0.h1": {"in_graph": True}, "m1": {"in_graph": True}},
        "edges": edges,
    }
    found = read(json.dumps(content), SMALL)
    ends = {"embed", "a0.h1", "m1", "logits"}
    expected = [
        e.name for e in SMALL.edges() if e.writer.component in ends and e.reader.component in ends
    ]
    assert [edge.name for edge in found.edges] == expected


def full(graph):
    return Circuit(graph, graph.edge_mask)


BROKEN = {
    "another size": (lambda c: c["cfg"].update(n_layers=9), "n_layers is 9 and that of the model"),
    "an edge too many": (lambda c: c["edges"].update({"m9->m3": {}}), "such as 'm9->m3'"),
    "a score in words": (lambda c: c["edges"].update({"input->m0": {"score": "a"}}), "it says"),
    "an edge that is a number": (lambda c: c["edges"].update({"input->m0": 3}), "not a JSON obj"),
    "a list of edges": (lambda c: c.update(edges=[]), "its edges is list"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused(case):
    change, said = BROKEN[case]
    content = json.loads(write(full(SMALL)))
    change(content)
    with pytest.raises(CircuitFileError, match=said):
        read(json.dumps(content))


# ------------------------------------------------------------------------------- submissions


@pytest.mark.parametrize(
    "graph",
    [SMALL, GROUPED, pytest.param(GPT2_SMALL, marks=pytest.mark.slow)],
    ids=["small", "grouped", "gpt2"],
)
def test_a_submission_holds_ten_circuits_that_are_small_enough(graph):
    circuit = circuit_of(graph)
    files = circuits(circuit)
    assert list(files) == [f"{percentage:g}.json" for percentage in PERCENTAGES]
    total, sizes, before = len(edges_by_description(json.loads(files["0.json"])["cfg"])), [], set()
    for percentage, text in zip(PERCENTAGES, files.values(), strict=True):
        in_graph, _, scores = read_by_description(text)
        assert not scores
        assert len(in_graph) <= percentage / 100 * total
        assert before <= in_graph
        before = in_graph
        sizes.append(len(in_graph))
    assert sizes[0] == 0
    if graph is GPT2_SMALL:
        assert sizes[1:] == [int(percentage / 100 * total) for percentage in PERCENTAGES[1:]]


def test_the_largest_scores_are_chosen_and_with_sign_the_highest():
    effects = torch.full(SMALL.edge_mask.shape, torch.nan, dtype=torch.float64)
    effects[SMALL.edge_mask] = torch.linspace(-3, 1, SMALL.n_edges, dtype=torch.float64)
    circuit = Circuit(SMALL, SMALL.edge_mask, effects)
    for signed, chosen in ((False, effects.abs()), (True, effects)):
        in_graph, *_ = read_by_description(circuits(circuit, signed=signed)["10.json"])
        values = sorted(
            float(chosen[SMALL.edge_mask & (chosen == v)][0])
            for v in chosen.unique()
            if not v.isnan()
        )
        assert len(in_graph) == int(0.1 * SMALL.n_edges)
        limit = values[-len(in_graph)]
        names = {theirs(e.name) for e in SMALL.edges((chosen >= limit) & SMALL.edge_mask)}
        assert in_graph == names


def test_importances_are_the_scores_of_all_edges():
    circuit = circuit_of(SMALL)
    assert importances(circuit) == {"importances.json": write(circuit)}
    with pytest.raises(CircuitFileError, match="no edge has a score"):
        importances(full(SMALL))


def test_two_embeddings_cannot_be_expressed():
    with pytest.raises(CircuitFileError, match="have one embedding and this circuit has two"):
        write(full(SPLIT))
