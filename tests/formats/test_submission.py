"""Scores in others' submissions to MIB: as JSON, and as tensors without any code."""

import json
import math

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.errors import CircuitFileError
from circuitfind.formats.eap_ig import edge_names
from circuitfind.formats.submission import importances, read_importances
from circuitfind.granularity import heads_and_mlps
from circuitfind.shape import ModelShape

SHAPE = ModelShape(2, 3, 3, 24, 8, 50)
GRAPH = heads_and_mlps(SHAPE)
VALUES = torch.randn(
    GRAPH.edge_mask.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
)
NODES = ["input", *(writer.name for writer in GRAPH.writers[1:])]
SOURCES = ["input", "a0.h0", "a0.h1", "a0.h2", "m0", "a1.h0", "a1.h1", "a1.h2", "m1"]
TARGETS = [
    *(f"a{layer}.h{head}<{port}>" if head < 3 else f"m{layer}"
      for layer in range(2)
      for port, heads in (("q", range(3)), ("k", range(3)), ("v", range(4)))
      for head in heads),
    "logits",
]  # fmt: skip
CFG = {"n_layers": 2, "n_heads": 3, "parallel_attn_mlp": False, "d_model": 24}


def score(name):
    writer, reader = name.split("->")
    place = GRAPH.index(
        f"{writer.replace('input', 'embed')}->{reader.replace('<', '.').rstrip('>')}"
    )
    return float(VALUES[place])


def tensors(**more):
    """Return what `to_pt` of the benchmark's graph saves."""
    scores = torch.full((len(SOURCES), len(TARGETS)), -torch.inf, dtype=torch.float64)
    for edge in GRAPH.edges():
        writer, reader = edge_names(edge, GRAPH)[0].split("->")
        scores[SOURCES.index(writer), TARGETS.index(reader)] = score(f"{writer}->{reader}")
    return {
        "cfg": CFG,
        "src_nodes": SOURCES,
        "dst_nodes": TARGETS,
        "edges_scores": scores,
        "edges_in_graph": scores > 0,
        "nodes_in_graph": torch.ones(len(SOURCES), dtype=torch.bool),
        **more,
    }


def plain(**more):
    edges = {name: {"score": score(name), "in_graph": False} for name in all_names()}
    nodes = {name: {"in_graph": True} for name in SOURCES}
    return {"cfg": CFG, "nodes": nodes, "edges": edges, **more}


def all_names():
    return [edge_names(edge, GRAPH)[0] for edge in GRAPH.edges()]


def require_values(found):
    torch.testing.assert_close(
        found.edges.values[GRAPH.edge_mask], VALUES[GRAPH.edge_mask], rtol=0, atol=0
    )


def test_scores_that_were_written_are_read_again(tmp_path):
    circuit = Circuit(GRAPH, GRAPH.edge_mask, VALUES.where(GRAPH.edge_mask, torch.nan))
    for name, text in importances(circuit).items():
        (tmp_path / name).write_text(text)
    found = read_importances(tmp_path, GRAPH)
    require_values(found)
    assert found.components is None


def test_scores_of_components_that_were_written_are_read_again(tmp_path):
    components = torch.tensor([math.nan, *(0.25 * number for number in range(1, 9))]).double()
    unscored = Circuit(GRAPH, GRAPH.edge_mask)
    for name, text in importances(unscored, components).items():
        (tmp_path / name).write_text(text)
    found = read_importances(tmp_path, GRAPH).components
    torch.testing.assert_close(found, components, rtol=0, atol=0, equal_nan=True)


def test_scores_of_others_are_read_from_json_and_from_tensors(tmp_path):
    (tmp_path / "importances.json").write_text(json.dumps(plain()))
    require_values(read_importances(tmp_path, GRAPH))
    torch.save(tensors(), tmp_path / "importances.pt")
    require_values(read_importances(tmp_path / "importances.pt", GRAPH))


def test_scores_of_nodes_may_be_missing(tmp_path):
    scores = [math.nan, *(0.5 * number for number in range(1, 9))]
    nodes = {name: {"in_graph": True, "score": s} for name, s in zip(SOURCES, scores, strict=True)}
    file = tmp_path / "importances.json"
    file.write_text(json.dumps(plain(nodes=nodes)))
    found = read_importances(file, GRAPH).components
    expected = torch.tensor([scores[SOURCES.index(name)] for name in NODES], dtype=torch.float64)
    torch.testing.assert_close(found, expected, equal_nan=True)
    torch.save(tensors(nodes_scores=torch.tensor(scores)), tmp_path / "importances.pt")
    found = read_importances(tmp_path / "importances.pt", GRAPH).components
    torch.testing.assert_close(found, expected, equal_nan=True)


class Harmful:
    def __reduce__(self):
        return print, ("this must not run",)


def test_a_pickle_that_could_run_code_is_refused(tmp_path, capsys):
    file = tmp_path / "importances.pt"
    torch.save(tensors(more=Harmful()), file)
    with pytest.raises(CircuitFileError, match="can run code when it is read"):
        read_importances(file, GRAPH)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cfg": {**CFG, "n_heads": 4}}, "its n_heads is 4 and that of the model is 3"),
        ({"edges": {"input->m7": {"score": 1.0}}}, "names 1 edges that this model does not have"),
        ({"edges": {"input->m0": {"score": "high"}}}, "it says .* of the edge 'input->m0'"),
        ({"edges": {"input->m0": {"score": math.nan}}}, "is not finite"),
        ({"nodes": {"m0": {"score": "high"}}}, "the score of a node is 'high'"),
        ({"edges": None}, "its edges is NoneType"),
    ],
)
def test_scores_of_another_model_and_damaged_ones_are_refused(change, said, tmp_path):
    file = tmp_path / "importances.json"
    file.write_text(json.dumps(plain(**change)))
    with pytest.raises(CircuitFileError, match=f"importances.json cannot be used.*{said}"):
        read_importances(file, GRAPH)


def test_what_holds_no_scores_is_refused(tmp_path):
    with pytest.raises(CircuitFileError, match="holds neither of importances.json and"):
        read_importances(tmp_path, GRAPH)
    (tmp_path / "importances.json").write_text("{")
    with pytest.raises(CircuitFileError, match="cannot be used as scores"):
        read_importances(tmp_path, GRAPH)
    (tmp_path / "importances.json").write_text("{}")
    with pytest.raises(CircuitFileError, match="it lacks 'edges'"):
        read_importances(tmp_path, GRAPH)
    (tmp_path / "importances.pt").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(CircuitFileError, match=r"importances\.pt cannot be used"):
        read_importances(tmp_path / "importances.pt", GRAPH)
    missing = {**tensors(), "src_nodes": [*SOURCES[:-1], "m9"]}
    torch.save(missing, tmp_path / "importances.pt")
    with pytest.raises(CircuitFileError, match="it lacks 'm1'"):
        read_importances(tmp_path / "importances.pt", GRAPH)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "was not written by torch.save"),
        (b"hello, this is a text", "was not written by torch.save"),
        (b'{"edges": 1}', "it is damaged"),
        ({"edges_scores": [[0.5]]}, "its edges_scores is no tensor, and must be a tensor of size"),
        ({"edges_scores": torch.zeros(2, 2)}, r"its edges_scores is of size \(2, 2\), and must be"),
        ({"edges_in_graph": 3}, "its edges_in_graph is no tensor"),
        ({"nodes_scores": [1.0]}, "its nodes_scores is no tensor"),
        ({"nodes_scores": torch.ones(3)}, r"its nodes_scores is of size \(3,\)"),
    ],
)
def test_files_of_tensors_that_are_damaged_are_refused(content, said, tmp_path):
    file = tmp_path / "importances.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(tensors(**content), file)
    with pytest.raises(CircuitFileError, match=f"cannot be used as scores.*{said}"):
        read_importances(file, GRAPH)
