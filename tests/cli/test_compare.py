"""The command `compare`: what it writes and prints, and what it refuses."""

import json
import re
from pathlib import Path

import pytest

from circuitfind.circuit import load_circuit
from circuitfind.comparison.result import load_comparison
from circuitfind.granularity import heads_and_mlps
from circuitfind.reports.diagram import Diagram
from tests.comparison.circuits import circuit, shape


@pytest.fixture
def runs(cli, program):
    for name, threshold in (("a", 0.01), ("b", 0.1)):
        words = ["discover", "program", "--model", program, "--prompts", 4, "--out", name]
        assert cli(*words, "--threshold", threshold).code == 0
    return ["a", "b"]


def test_two_runs_are_compared(cli, runs):
    answer = cli("compare", *runs, "--out", "out")
    assert answer.code == 0, answer.err
    left, right = (load_circuit(f"{name}/circuit.json") for name in runs)
    n_shared = int((left.kept & right.kept).sum())
    assert f"{n_shared}, {left.n_edges - n_shared}, {right.n_edges - n_shared}" in answer.out
    assert "out/difference-a-b.dot\nout/difference-a-b.svg\n" in answer.out
    dot = Path("out/difference-a-b.dot").read_text(encoding="utf-8")
    assert Path("out/difference-a-b.svg").read_text(encoding="utf-8") == Diagram(dot).svg()
    counted = [str(len(load_circuit(f"{name}/circuit.json").heads_and_mlps)) for name in runs]
    stored = [json.loads(Path(name, "scorecard.json").read_text()) for name in runs]
    assert counted == [str(each["scorecard"]["n_components"]) for each in stored]
    assert all(
        re.search(rf"^{n} .* {c}$", answer.out, re.M) for n, c in zip(runs, counted, strict=True)
    )
    found = load_comparison("out/comparison.json")
    assert found.pairs[0].overlap.edges.jaccard.value == pytest.approx(
        n_shared / (left.n_edges + right.n_edges - n_shared)
    )
    assert found.pairs[0].overlap.n_measured > n_shared
    asked = [(side.question["task"], side.question["n_prompts"]) for side in found.circuits]
    assert asked == [("program", 4)] * 2
    assert cli("compare", *runs, "--out", "other", "--json").json == json.loads(found.to_json())


def test_repeating_the_command_reads_the_result(cli, runs):
    first = cli("compare", *runs, "--out", "out")
    again = cli("compare", *runs, "--out", "out")
    assert again.out == first.out
    assert "its results are read" in again.err


def test_one_model_on_the_same_prompts_is_measured_once(cli, runs, program):
    words = ["discover", "program", "--model", program, "--threshold", 0.05]
    assert cli(*words, "--prompts", 4, "--out", "c").code == 0
    assert cli(*words, "--prompts", 6, "--out", "other").code == 0
    answer = cli("compare", *runs, "c", "--json")
    assert answer.err.count("measuring what the components") == 1
    assert "in 1 times a model" in answer.err
    sides = [each["roles"] for each in answer.json["circuits"]]
    assert sides[0] == sides[1] == sides[2]
    answer = cli("compare", *runs, "other")
    assert answer.err.count("measuring what the components") == 2


def test_an_interrupted_comparison_is_taken_up_where_nobody_named_a_directory(cli, runs, tmp_path):
    assert cli("compare", *runs).code == 0
    (tmp_path / "runs/comparison-a-b/comparison.json").unlink()
    assert cli("compare", *runs).code == 0
    assert [place.name for place in (tmp_path / "runs").iterdir()] == ["comparison-a-b"]


def test_what_cannot_be_compared_is_said_in_a_line(cli, runs, complaint, tmp_path):
    complaint(cli("compare", "a"), "give two or more run directories or circuit files, not 1")
    complaint(cli("compare", "a", "a"), "a is given twice")
    complaint(cli("compare", "a", "nowhere"), "cannot read the circuit")
    content = json.loads((tmp_path / "a" / "circuit.json").read_text())
    (tmp_path / "empty.json").write_text(json.dumps(content | {"edges": []}))
    complaint(cli("compare", "a", "empty.json"), "empty.json: the circuit is empty")
    assert cli("compare", *runs, "--out", "out").code == 0
    said = "out holds another comparison .seed is 0 there and 1 here.; choose another --out"
    complaint(cli("compare", *runs, "--out", "out", "--seed", 1), said)
    said = "out holds another comparison .not the same circuits.; choose another --out"
    complaint(cli("compare", *reversed(runs), "--out", "out"), said)
    complaint(cli("compare", *runs, "--out", "a"), "a holds something else than a comparison: the")
    words = ["discover", "program", "--model", "or-gate", "--threshold", 0.1, "--out", "out"]
    complaint(cli(*words), "out holds something else than a run: the format of config.json is")
    complaint(cli("compare", *runs, "--draws", 0), "draws")


def test_circuits_made_by_hand_are_compared_without_their_models(cli, runs, tmp_path):
    content = json.loads((tmp_path / "a" / "circuit.json").read_text())
    edges = [{**row, "effect": None} for row in content["edges"]]
    (tmp_path / "mine.json").write_text(json.dumps(content | {"origin": {}, "edges": edges}))
    answer = cli("compare", "mine.json", "b", "--out", "out", "--json")
    (pair,) = answer.json["pairs"]
    assert pair["same_model"] is None
    assert pair["overlap"]["correlation"]["value"] is None


GRAPH = heads_and_mlps(shape(has_mlp=False))


def placed(places, *edges):
    return circuit(GRAPH.at_places(places), *edges)


LEFT = placed(
    ("S1", "S2", "end"),
    *("embed->a0.h0.v@S1", "embed->a0.h0.v@S2", "a0.h0->a1.h1.k@S2", "a1.h1->logits@end"),
)


def test_how_circuits_with_different_places_are_compared_is_said_in_a_line(cli, tmp_path):
    LEFT.save(tmp_path / "left.json")
    circuit(GRAPH, "embed->a0.h0.v", "embed->a1.h1.q").save(tmp_path / "whole.json")
    placed(("IO", "S2"), "embed->a0.h0.v@S2", "a1.h1->logits@IO").save(tmp_path / "other.json")
    reordered = placed(("end", "S2", "S1"), "embed->a0.h0.v@S1")
    reordered.save(tmp_path / "reordered.json")

    pair = compared(cli, "whole", "with the places of left merged: an edge is kept if it is kept")
    assert pair["overlap"]["edges"]["both"] == ["embed->a0.h0.v"]
    assert pair["places"] == []
    drawn = Path("left-whole/difference-left-whole.dot").read_text()
    assert "embed->a1.h1.q" in drawn and "@" not in drawn
    said = "at the places that both have (S2), without 2 and 1 edges at other places"
    pair = compared(cli, "other", said)
    assert pair["overlap"]["edges"]["both"] == ["embed->a0.h0.v@S2"]
    assert pair["places"] == ["S2"]
    pair = compared(cli, "reordered", "")
    assert pair["overlap"]["edges"]["both"] == ["embed->a0.h0.v@S1"]
    assert pair["places"] is None
    answer = cli("draw", "left.json", "--against", "other.json", "--out", "both.dot")
    drawn = Path("both.dot").read_text()
    assert answer.code == 0 and said in " ".join(re.sub("<[^>]*>", " ", drawn).split())
    assert "@S2" in drawn and "@IO" not in drawn
    table = cli("compare", "left.json", "other.json", "--out", "left-other")
    assert "compared at places" in table.out and "S2" in table.out


def compared(cli, name: str, said: str) -> dict:
    answer = cli("compare", "left.json", f"{name}.json", "--out", f"left-{name}", "--json")
    assert answer.code == 0, answer.err
    lines = [line for line in answer.err.splitlines() if line.startswith("left and")]
    assert [said in line for line in lines] == [True] * bool(said)
    assert Path(f"left-{name}", f"difference-left-{name}.svg").exists()
    (pair,) = answer.json["pairs"]
    return pair


def test_circuits_without_edges_at_common_places_are_refused(cli, complaint, tmp_path):
    LEFT.save(tmp_path / "left.json")
    placed(("a", "b"), "embed->logits@a").save(tmp_path / "none.json")
    placed(("a", "S1"), "embed->logits@a").save(tmp_path / "nowhere.json")
    complaint(
        cli("compare", "left.json", "none.json"),
        r"left and none have no place in common \(S1, S2, end; a, b\), .* same --places",
    )
    complaint(
        cli("compare", "left.json", "nowhere.json"),
        r"nowhere keeps no edge at the places that left and nowhere have in common \(S1\)",
    )
    complaint(
        cli("draw", "left.json", "--against", "none.json"),
        r"none.json cannot be drawn against left.json: .* have no place in common",
    )
