"""The command `units`: what makes the neurons of a circuit active."""

import json

import pytest

import circuitfind as cf
from circuitfind.models.loading import load_model


@pytest.fixture
def neurons(cli, program):
    words = ["discover", "program", "--model", program, "--prompts", 8, "--neurons", "all"]
    assert cli(*words, "--threshold", 0.001, "--out", "run").code == 0
    return "run"


def test_a_row_for_each_unit_says_what_makes_it_active(cli, neurons, program, tmp_path):
    answer = cli("units", neurons)
    assert (answer.code, answer.err) == (0, "activations on the 8 clean prompts\n")
    head, *rows = answer.out.splitlines()
    assert head.split() == ["unit", "effect", "active", "tokens", "contexts"]
    found = cli("units", neurons, "--json").json
    circuit = cf.load_circuit(tmp_path / "run")
    problem = cf.make_problem(load_model(program), "program", n_prompts=8, graph=circuit.graph)
    assert found == json.loads(json.dumps([_plain(u) for u in cf.unit_uses(problem, circuit)]))
    assert [row.split()[0] for row in rows] == [unit["name"] for unit in found]
    assert len(rows) > 3
    strongest = found[0]["contexts"][0]
    text = f"[{strongest['token'].strip()}]{strongest['after']} ({strongest['activation']:.2f})"
    assert text in rows[0] and f"{found[0]['frequency']:.1%}" in rows[0]
    (shorter, *_) = cli("units", neurons, "--shown", 1, "--json").json
    assert (len(shorter["tokens"]), len(shorter["contexts"])) == (1, 1)


def _plain(use):
    parts = {name: [vars(each) for each in getattr(use, name)] for name in ("tokens", "contexts")}
    return {**vars(use), **parts}


def test_another_text_can_be_read(cli, neurons, tmp_path, complaint):
    (tmp_path / "mine.txt").write_text("a b c a a b b c c\n")
    answer = cli("units", neurons, "--text", "mine.txt", "--json")
    assert answer.err == "activations on 9 tokens of the text, in 3 pieces\n"
    assert {each["row"] for unit in answer.json for each in unit["contexts"]} <= {0, 1, 2}
    assert answer.json != cli("units", neurons, "--json").json
    (tmp_path / "mine.txt").write_bytes(b"\xff\xfe\x00")
    complaint(cli("units", neurons, "--text", "mine.txt"), "cannot read the text 'mine.txt': it is")
    complaint(cli("units", neurons, "--text", "none.txt"), "'none.txt': No such file")


def test_what_has_no_units_is_refused_or_said(cli, neurons, complaint, program, monkeypatch):
    words = ["discover", "program", "--model", program, "--prompts", 8, "--out", "whole"]
    assert cli(*words, "--threshold", 0.01).code == 0
    with monkeypatch.context() as patch:
        patch.delattr("circuitfind.question.load_model")
        complaint(cli("units", "whole"), "has no neurons and no latents: its MLPs write as a whole")
    complaint(cli("units", neurons, "--shown", 0), "shown must be a whole number from 1 to 100")
    words = [*words[:-1], "few", "--neurons", "0", "--shortlist", 1, "--threshold", 100]
    assert cli(*words).code == 0
    assert cli("units", "few").out == "no kept edge touches a neuron or a latent\n"
    assert cli("units", "few", "--json").json == []
