"""`dissociate`: what it writes, how it resumes, and what it refuses."""

import json

import pytest

from circuitfind.engine.masked_pass import MaskedPasses

WORDS = ["dissociate", "one", "other", "--draws", 2, "--out", "both"]


@pytest.fixture
def runs(cli):
    """Two tasks of one model: prompts of a gate in which both inputs change, or one of them."""
    for name, task in (("one", "and-gate"), ("other", "and-gate:both")):
        words = ["discover", task, "--model", "and-gate", "--prompts", 8, "--threshold", 0.001]
        assert cli(*words, "--out", name).code == 0


def test_every_task_is_measured_without_every_circuit(cli, runs, tmp_path):
    answer = cli(*WORDS)
    assert answer.code == 0, answer.err
    # Two tasks: full and empty graph, two circuits, two random ones for each.
    assert "16 passes: 2 circuits, 2 random ones for each" in answer.err
    assert "warning: with so few random circuits p is at least 0.33; give --draws 20" in answer.err
    assert answer.out.splitlines()[-3:] == [
        f"both/dissociation.{suffix}" for suffix in ("json", "csv", "svg")
    ]
    found = json.loads((tmp_path / "both" / "dissociation.json").read_text())
    # With both bits changed there are four pairs, and the search has all of them.
    assert [each["prompts"] for each in found["columns"]] == ["held-out", "discovery"]
    assert "and-gate:both: there are no held-out prompts: of 8 with another seed, 8" in answer.err
    assert [each["effect"] for each in found["effects"]] == pytest.approx([1.0] * 4)
    # The gate has few inputs, so that both tasks have the same.
    pair = found["pairs"][0]
    assert pair["verdict"] is None and pair["undecided"] == "same prompts"
    assert [each["value"] for each in pair["differences"]] == pytest.approx([0, 0], abs=1e-9)
    assert {each["low"] for each in pair["differences"]} == {None}
    assert "same prompts" in answer.out
    assert not (tmp_path / "both" / "passes.jsonl").exists()
    (tmp_path / "both" / "passes.jsonl").write_text("left")
    (tmp_path / "both" / "dissociation.csv").unlink()
    again = cli(*WORDS)
    assert again.out.splitlines()[-2:] == [f"both/dissociation.{end}" for end in ("json", "svg")]
    assert not (tmp_path / "both" / "passes.jsonl").exists()
    again = cli(*WORDS, "--json")
    assert "both is finished: its results are read" in again.err
    assert again.json == {name: v for name, v in found.items() if name != "format"}


def test_an_interrupted_dissociation_makes_no_pass_twice(cli, runs, tmp_path, monkeypatch):
    measure, made = MaskedPasses.final, []

    def interrupted(passes, *given):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(1)
        return measure(passes, *given)

    whole = cli(*WORDS[:-1], "whole", "--json")
    monkeypatch.setattr(MaskedPasses, "final", interrupted)
    answer = cli(*WORDS)
    assert answer.code == 130 and "repeat the command to resume in both" in answer.err
    assert len((tmp_path / "both" / "passes.jsonl").read_bytes().splitlines()) == 5
    monkeypatch.setattr(MaskedPasses, "final", measure)
    resumed = cli(*WORDS, "--json")
    assert "passes of an interrupted dissociation that are not repeated: 5\n" in resumed.err
    assert resumed.json == whole.json


def test_what_cannot_be_done_is_one_line(cli, runs, complaint, tmp_path):
    assert cli(*WORDS).code == 0
    complaint(cli(*WORDS, "--seed", 1), "both holds another dissociation .*seed is 0 there and 1")
    (tmp_path / "text.txt").write_text("0 1")
    complaint(cli(*WORDS, "--text", "text.txt"), "another dissociation .the text is not the same")
    complaint(cli("dissociate", "one"), "give two or more run directories or circuit files, not 1")
    complaint(cli("dissociate", "one", "one"), "one is given twice")
    complaint(cli(*WORDS, "--text", "gone.txt"), "the text gone.txt cannot be read")
    (tmp_path / "text.txt").write_bytes(b"\xff")
    complaint(cli(*WORDS, "--text", "text.txt"), "cannot be read .it is not UTF-8")
    (tmp_path / "text.txt").write_text("0 1")
    out = ["--out", "text"]
    answer = cli(*WORDS[:-2], *out, "--text", "text.txt")
    assert answer.code == 2 and "no tokenizer to read a text with" in answer.err
    assert not (tmp_path / "text").exists()
