"""`rivals` prints what it writes, and reads what is there."""

import json


def test_the_table_and_the_files_say_the_same(cli, tmp_path):
    words = ["or-gate:both", "--model", "or-gate", "--prompts", 1, "--threshold", 0.01]
    assert cli("discover", *words, "--out", "run").code == 0
    answer = cli("rivals", "run")
    assert answer.code == 0, answer.err
    assert "every circuit of at most 3 edges: 377 sets of edges" in answer.err
    stored = json.loads((tmp_path / "run-rivals/rivals.json").read_text())
    assert stored["rivals"][0]["edges"] == ["embed->a0.h1.v", "a0.h1->m0", "m0->logits"]
    considered = "377 sets of edges considered; rounding taken as 1e-06"
    assert f"proved: no rival shares less than 0.200 ({considered})" in answer.out
    files = ("rivals.json", "rival.json", "rivals.svg")
    assert answer.out.splitlines()[-3:] == [f"run-rivals/{name}" for name in files]
    again = cli("rivals", "run", "--json")
    assert again.err == "run-rivals is finished: its results are read, not computed again\n"
    assert again.json == {name: stored[name] for name in stored if name != "format"}


def test_every_command_on_a_circuit_takes_the_rival(cli, tmp_path):
    words = ["or-gate:both", "--model", "or-gate", "--prompts", 1, "--threshold", 0.01]
    assert cli("discover", *words, "--out", "run").code == 0
    assert cli("rivals", "run").code == 0
    rival = "run-rivals/rival.json"
    origin = json.loads((tmp_path / rival).read_text())["origin"]
    found = json.loads((tmp_path / "run/circuit.json").read_text())["origin"]
    assert origin.pop("method") == "rivals" and "options" not in origin
    assert origin.items() <= found.items() and origin["task"] == "or-gate:both"
    answer = cli("evaluate", "run-rivals")
    assert answer.code == 2 and answer.err.endswith(f"but another circuit; give {rival}\n")
    for command in (
        ["evaluate", rival, "--quick"], ["certify", rival], ["rivals", rival], ["report", rival],
        ["dissociate", "run", rival, "--draws", 1, "--out", "apart"],
    ):  # fmt: skip
        answer = cli(*command)
        # The rival does as well on these prompts, and is refuted on others.
        assert answer.code == (command[0] == "certify"), answer.err
    assert (tmp_path / "run-rivals/rival.report.html").is_file()
    back = json.loads((tmp_path / "run-rivals/rival-rivals/rivals.json").read_text())
    assert back["rivals"][0]["edges"] == ["embed->a0.h0.v", "a0.h0->m0", "m0->logits"]


def test_a_threshold_that_keeps_all_edges_is_refused(cli, complaint):
    complaint(cli("rivals", "run", "--threshold", 0), "threshold must be a number above 0")


def test_a_run_without_a_circuit_is_refused(cli, complaint, tmp_path):
    complaint(cli("rivals", "nowhere"), "cannot read the circuit nowhere")
