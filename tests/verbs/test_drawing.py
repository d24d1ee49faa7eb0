import re

import torch

from circuitfind.circuit import Circuit
from circuitfind.granularity import heads_and_mlps
from circuitfind.verbs.draw import draw_run, draw_runs


def test_a_circuit_made_in_python_is_drawn_with_its_size(model, tmp_path):
    graph = heads_and_mlps(model.shape)
    kept = torch.zeros_like(graph.edge_mask)
    kept[graph.writer_index["embed"], graph.reader_index["logits"]] = True
    Circuit(graph, kept).save(tmp_path / "mine.json")
    diagram, beside = draw_run(tmp_path / "mine.json")
    assert "1 of 46 edges" in diagram.dot
    assert beside == tmp_path / "mine.svg"
    Circuit(graph, graph.edge_mask).save(tmp_path / "all.json")
    diagram, beside = draw_runs(tmp_path / "mine.json", tmp_path / "all.json")
    assert "mine: 1 edges" in diagram.dot
    assert beside == tmp_path / "difference-all.svg"


def test_a_circuit_file_beside_a_strangers_scorecard_is_not_given_its_figures(discover, tmp_path):
    discover(tmp_path)
    (tmp_path / "circuit.json").rename(tmp_path / "other.json")
    diagram, _ = draw_run(tmp_path / "other.json")
    assert "faithfulness" not in diagram.dot
    assert "program in scramble: acdc, threshold 0.01, resample ablation" in diagram.dot


def test_circuits_of_one_name_are_told_apart_by_their_paths(discover, tmp_path):
    for folder, threshold in (("a", 0.01), ("b", 0.1)):
        discover(tmp_path / folder / "run", options={"threshold": threshold})
    diagram, _ = draw_runs(tmp_path / "a" / "run", tmp_path / "b" / "run")
    assert f"only in {tmp_path / 'a' / 'run'}: " in diagram.dot


def test_circuits_of_one_command_are_told_apart_by_what_differs(discover, tmp_path):
    for folder, seed in (("a", 0), ("b", 1)):
        discover(tmp_path / folder, seed=seed)
    diagram, _ = draw_runs(tmp_path / "a", tmp_path / "b")
    caption = re.findall(r'ALIGN="LEFT" WIDTH="\d+">(.*?)<', diagram.dot)
    assert re.match(r"a: program in scramble: acdc, .* edges, seed 0", " ".join(caption))
    assert " ".join(caption).endswith("seed 1")
