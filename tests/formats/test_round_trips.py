"""What is written in a format of others is read back as it was."""

import re

import networkx as nx
import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.errors import CircuitFileError
from circuitfind.formats import FORMATS, base, export_circuit, import_circuit
from circuitfind.formats.networks import from_networkx, to_networkx
from circuitfind.formats.submission import circuits, importances
from circuitfind.formats.tables import COLUMNS, from_frame, to_frame
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Units
from tests.formats.conftest import GPT2_SMALL, KINDS, assert_same, circuit_of
from tests.test_graph import GRAPHS, SMALL

EVERY_EDGE = ("eap-ig", "acdc", "csv")
"""Formats that hold the effects of cut edges too."""


def expressible(name, graph):
    shape = graph.shape
    if name in ("eap-ig", "acdc") and (graph.places or graph.units):
        return False
    if name == "eap-ig":
        return not graph.split_embedding
    return name != "acdc" or (graph.split_qkv and not shape.grouped and not shape.parallel_mlp)


CASES = [
    (known.name, index)
    for known in FORMATS
    for index, graph in enumerate(KINDS)
    if expressible(known.name, graph)
]


@pytest.mark.parametrize(("name", "index"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_a_circuit_comes_back_as_it_was(name, index, seed, tmp_path):
    graph = KINDS[index]
    circuit = circuit_of(graph, seed, only_kept=name not in EVERY_EDGE)
    path = tmp_path / f"circuit{FORMATS.find(name).suffix}"
    export_circuit(circuit, path, format_name=name)
    # A table does not say to which model it belongs.
    found = import_circuit(path, graph if name == "csv" else None)
    assert_same(found, circuit, origin=name != "csv")
    assert_same(import_circuit(path, graph, format_name=name), circuit, origin=name != "csv")


@pytest.mark.parametrize("name", [known.name for known in FORMATS])
@pytest.mark.parametrize("kept", ["nothing", "everything"])
def test_the_empty_and_the_full_circuit_come_back(name, kept, tmp_path):
    mask = SMALL.edge_mask if kept == "everything" else torch.zeros_like(SMALL.edge_mask)
    unknown = torch.full(mask.shape, torch.nan, dtype=torch.float64)
    circuit = Circuit(SMALL, mask, unknown)
    path = tmp_path / f"circuit{FORMATS.find(name).suffix}"
    export_circuit(circuit, path, format_name=name)
    found = import_circuit(path, SMALL)
    if name == "csv":
        assert torch.equal(found.kept, mask)
    else:
        assert_same(found, circuit)


@pytest.mark.parametrize("name", [known.name for known in FORMATS])
def test_a_file_of_another_model_is_refused(name, tmp_path):
    other = next(
        graph for graph in GRAPHS if graph.shape != SMALL.shape and expressible(name, graph)
    )
    path = tmp_path / f"circuit{FORMATS.find(name).suffix}"
    export_circuit(Circuit(other, other.edge_mask), path, format_name=name)
    with pytest.raises(CircuitFileError, match=str(path)):
        import_circuit(path, SMALL)


def test_networks_come_back_and_can_be_made_elsewhere(graph):
    circuit = circuit_of(graph, only_kept=True)
    assert_same(from_networkx(to_networkx(circuit)), circuit)
    bare = nx.MultiDiGraph()
    for edge in circuit.edges:
        bare.add_edge(*graph.nodes_of(edge), port=edge.port)
    assert torch.equal(from_networkx(bare, graph).kept, circuit.kept)


def test_networks_tables_and_clusters_say_at_which_place():
    graph = SMALL.at_places(["S1", "end"])
    circuit = Circuit(graph, graph.mask_of(["embed->a0.h1.k@S1", "a0.h1->logits@end"]))
    network = to_networkx(circuit)
    assert network.nodes["a0.h1.kv@S1"] == {"stage": 1, "layer": 0, "head": 1, "place": "S1"}
    assert list(network.edges(data="place")) == [
        ("embed@S1", "a0.h1.kv@S1", "S1"),
        ("a0.h1@end", "logits@end", "end"),
    ]
    assert list(to_frame(circuit)["place"]) == ["S1", "end"]
    dot = FORMATS.find("dot").write(circuit)
    assert 'cluster_0 {\n    label="S1";\n    "embed@S1";\n    "a0.h1.kv@S1";\n  }' in dot


def test_networks_and_clusters_say_which_units_of_which_mlp():
    graph = heads_and_mlps(SMALL.shape, units=[Units(0, "neuron", (4, 17))])
    edges = ["embed->m0", "m0.n17->logits", "m0.rest->m1", "m1->logits"]
    circuit = Circuit(graph, graph.mask_of(edges))
    network = to_networkx(circuit)
    assert network.nodes["m0.n17"] == {"stage": 2, "layer": 0, "neuron": 17}
    assert network.nodes["m0"] == network.nodes["m0.rest"] == {"stage": 2, "layer": 0}
    dot = FORMATS.find("dot").write(circuit)
    assert dot.count("cluster") == 1
    inside = re.search(r'subgraph cluster_m0 \{\s+label="m0";(.*?)\}', dot, re.S)[1]
    assert set(inside.split()) == {'"m0";', '"m0.n17";', '"m0.rest";'}
    placed = graph.at_places(["S1", "end"])
    dot = FORMATS.find("dot").write(
        Circuit(placed, placed.mask_of(["m0.n17->logits@end", "embed->m0@S1", "m0.n4->m1@S1"]))
    )
    found = re.findall(r"subgraph (\w+)|(\"m0\S+\");", dot)
    assert [*found[:2], *sorted(found[2:4]), *found[4:]] == [
        ("cluster_0", ""), ("cluster_0_m0", ""), ("", '"m0.n4@S1"'), ("", '"m0@S1"'),
        ("cluster_1", ""), ("cluster_1_m0", ""), ("", '"m0.n17@end"'),
    ]  # fmt: skip


@pytest.mark.parametrize("write", [FORMATS.find("acdc").write, FORMATS.find("eap-ig").write])
@pytest.mark.parametrize("kind", ["neuron", "latent"])
def test_formats_without_units_refuse_them(write, kind):
    graph = heads_and_mlps(SMALL.shape, units=[Units(1, kind, (4, 17))])
    circuit = Circuit(graph, graph.edge_mask, torch.ones(graph.edge_mask.shape))
    complaint = f"has no {kind}s .* such as graphml or csv, or search without --{kind}s$"
    for refuse in (write, importances, circuits):
        with pytest.raises(CircuitFileError, match=complaint):
            refuse(circuit)


@pytest.mark.parametrize("name", ["acdc", "eap-ig"])
def test_formats_without_units_are_not_read_into_a_graph_that_has_them(name, tmp_path):
    graph = heads_and_mlps(SMALL.shape, units=[Units(1, "neuron", (4, 17))])
    export_circuit(Circuit(SMALL, SMALL.edge_mask), tmp_path / "c.json", format_name=name)
    with pytest.raises(CircuitFileError, match=r"c\.json cannot be read .* has no neurons"):
        import_circuit(tmp_path / "c.json", graph)


@pytest.mark.parametrize("write", [*map(FORMATS.find, ("acdc", "eap-ig"))], ids=lambda it: it.name)
def test_formats_without_places_refuse_them(write):
    graph = SMALL.at_places(["S1", "end"])
    with pytest.raises(CircuitFileError, match="has no places .* such as graphml or csv"):
        write.write(Circuit(graph, graph.edge_mask))


@pytest.mark.parametrize("write", [importances, circuits])
def test_submissions_without_places_refuse_them(write):
    graph = SMALL.at_places(["S1", "end"])
    with pytest.raises(CircuitFileError, match="EAP-IG has no places"):
        write(Circuit(graph, graph.edge_mask, torch.ones(graph.edge_mask.shape)))


def test_networks_answer_questions_about_paths():
    network = to_networkx(Circuit(SMALL, SMALL.mask_of(["embed->a0.h1.k", "a0.h1->logits"])))
    assert nx.shortest_path(network, "embed", "logits") == ["embed", "a0.h1", "logits"]
    assert network.nodes["a0.h1"] == {"stage": 1, "layer": 0, "head": 1}


def test_frames_come_back(graph):
    circuit = circuit_of(graph)
    frame = to_frame(circuit)
    assert tuple(frame.columns) == COLUMNS
    assert frame["kept"].sum() == circuit.n_edges
    assert_same(from_frame(frame), circuit)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eap-ig", "acdc", "graphml", "dot", "networkx", "csv"])
def test_a_circuit_of_gpt2_small_comes_back(name, tmp_path):
    circuit = circuit_of(GPT2_SMALL, only_kept=name not in EVERY_EDGE)
    path = tmp_path / f"circuit{FORMATS.find(name).suffix}"
    export_circuit(circuit, path, format_name=name)
    assert_same(import_circuit(path, GPT2_SMALL), circuit, origin=name != "csv")


def test_a_dot_file_of_another_program_is_read(tmp_path):
    text = """
    // written by hand
    digraph "my circuit" {
      graph [rankdir=BT]; node [shape=box]
      embed -> "a0.h1" [port=q, effect="0.5"]
      "a0.h1" -> m0 -> logits /* a chain */
      label="edges -> \\"kept\\""
    }"""
    path = tmp_path / "mine.dot"
    path.write_text(text)
    found = import_circuit(path, SMALL)
    names = ["embed->a0.h1.q", "a0.h1->m0", "m0->logits"]
    assert torch.equal(found.kept, SMALL.mask_of(names))
    assert found.effect(SMALL.edge("embed->a0.h1.q")) == 0.5


@pytest.mark.parametrize("name", ["eap-ig", "acdc"])
def test_a_format_that_lists_every_edge_refuses_a_graph_with_too_many(name, tmp_path, monkeypatch):
    assert base.MOST_LISTED == 5_000_000
    monkeypatch.setattr(base, "MOST_LISTED", SMALL.n_edges - 1)
    circuit = Circuit(SMALL, SMALL.mask_of(["embed->logits"]))
    with pytest.raises(CircuitFileError, match="at most [0-9,]+, and this graph has [0-9,]+; "):
        export_circuit(circuit, tmp_path / "large.json", format_name=name)
    export_circuit(circuit, tmp_path / "large.csv", format_name="csv")
