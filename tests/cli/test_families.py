"""`families` splits a file of two tasks, prints what it writes, and takes up what was cut."""

import json

import numpy as np
import pytest

from circuitfind.comparison.clusters import adjusted_rand
from circuitfind.methods import shortlist
from tests.verbs.test_families import FIRST, SECOND, mixture, wire


@pytest.fixture
def run(cli, tmp_path):
    rows = [
        {
            "clean_ids": list(pair.clean),
            "corrupted_ids": list(pair.corrupted),
            "answer_ids": pair.answers[0],
            "wrong_answer_ids": pair.wrong_answers[0],
        }
        for pair in mixture()
    ]
    (tmp_path / "mix.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    wire(tmp_path)
    words = ["mix.jsonl", "--model", "two.json", "--metric", "logit-difference"]
    assert cli("discover", *words, "--threshold", 0.01, "--out", "run").code == 0


def test_a_file_of_two_tasks_is_split_again(cli, run, tmp_path):
    answer = cli("families", "run")
    assert answer.code == 0, answer.err
    stored = json.loads((tmp_path / "run-families/families.json").read_text())
    labels = [number for number in range(24) if number in stored["families"][0]["prompts"]]
    assert adjusted_rand(np.isin(np.arange(24), labels).astype(int), np.arange(24) % 2) == 1
    assert (
        "2 families: one cluster is ruled out (p 0.002, 24 prompts); last token explains 100%"
        in answer.out
    )
    names = ("families.json", "family-1.json", "family-2.json", "union.json")
    drawings = ("families.svg", "faithfulness.svg")
    files = [f"run-families/{name}" for name in (*names, *drawings)]
    assert answer.out.splitlines()[-6:] == files
    again = cli("families", "run", "--json")
    assert again.err == "run-families is finished: its results are read, not computed again\n"
    assert again.json == {name: stored[name] for name in stored if name != "format"}
    found = json.loads((tmp_path / "run-families/family-1.json").read_text())
    assert {each["edge"] for each in found["edges"]} in (FIRST, SECOND)
    union = json.loads((tmp_path / "run-families/union.json").read_text())
    of_run = json.loads((tmp_path / "run/circuit.json").read_text())["origin"]
    names = ["family 1", "union of all families"]
    for origin, name in zip((found["origin"], union["origin"]), names, strict=True):
        assert (origin["method"], origin["family"]) == ("families", name)
        assert origin["options"] == {"ranked_by": "eap-ig", "target_faithfulness": 0.9}
        assert "selection" not in origin
        assert origin["prompts_fingerprint"] == of_run["prompts_fingerprint"]
    assert "faithfulness" in cli("evaluate", "run-families/union.json", "--quick").out


def test_interrupted_families_score_no_prompt_twice(cli, run, tmp_path, monkeypatch):
    made = shortlist.scores_by_prompt

    def cut(engine, ranked_by, skip=0):
        for number, scores in enumerate(made(engine, ranked_by, skip)):
            if number == 5:
                raise KeyboardInterrupt
            yield scores

    monkeypatch.setattr("circuitfind.verbs.family_search.scores_by_prompt", cut)
    assert cli("families", "run", "--seed", 1).code == 130
    started = []
    monkeypatch.setattr(
        "circuitfind.verbs.family_search.scores_by_prompt",
        lambda engine, ranked_by, skip: started.append(skip) or made(engine, ranked_by, skip),
    )
    resumed = cli("families", "run", "--seed", 1)
    assert resumed.code == 0 and started == [5]
    assert "passes of an interrupted search for families that are not repeated: 5\n" in resumed.err


def test_what_cannot_be_scored_is_refused(cli, run, complaint, tmp_path):
    complaint(cli("families", "run", "--ranked-by", "best"), "no ranking 'best'; choose one of")
    complaint(cli("families", "run", "--families", 25), "families need at least 25")
    complaint(cli("families", "run", "--ranked-by", "best"), "eap-ig, exact")
    complaint(cli("families", "run", "--ranked-by", "exact:gim"), "exact takes no .* ':gim'")
    words = ["discover", "mix.jsonl", "--model", "two.json", "--threshold", 0.01]
    for metric, able in (("kl", "eap-ig or exact"), ("accuracy", "exact")):
        assert cli(*words, "--metric", metric, "--out", metric).code == 0
        refused = cli("families", metric, "--ranked-by", "eap")
        complaint(refused, f"gradient.*'eap'.*; use --ranked-by {able}")
        assert not list(tmp_path.glob(f"{metric}-*"))
