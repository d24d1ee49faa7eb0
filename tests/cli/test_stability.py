"""`stability` says what it will do, repeats a run, and shows what stays."""

import json
import shutil

import pytest


@pytest.fixture
def repeated(cli, run):
    return cli("stability", "run", "--vary", "resamples,orders", "--repetitions", 2)


def test_the_table_and_the_files_say_the_same(repeated, tmp_path):
    assert repeated.code == 0, repeated.err
    assert "4 repetitions of the search (resamples, orders) in run-stability" in repeated.err
    stored = json.loads((tmp_path / "run-stability/stability.json").read_text())
    lines = repeated.out.splitlines()
    assert lines[0].split() == ["varied", "n_runs", "jaccard", "chance", "smallest", "largest"]
    for line, row in zip(lines[1:3], stored["variations"], strict=True):
        name, n_runs, jaccard, *_ = line.split()
        assert (name, int(n_runs)) == (row["varied"], 3)
        assert float(jaccard) == round(row["jaccard"], 3)
    assert lines[3] == f"consensus: {stored['n_consensus']} edges in at least 80% of 5 runs"
    files = ("stability.json", "consensus.json", "consensus.svg")
    assert lines[4:] == [f"run-stability/{name}" for name in files]
    assert all((tmp_path / "run-stability" / name).exists() for name in files)


def test_repetitions_are_not_computed_again_and_json_is_the_file(cli, repeated, tmp_path):
    made = {file: file.stat().st_mtime_ns for file in tmp_path.glob("run-stability/*/circuit.json")}
    assert len(made) == 4
    again = cli("stability", "run", "--vary", "resamples,orders", "--repetitions", 2, "--json")
    assert again.err == "run-stability is finished: its results are read, not computed again\n"
    assert again.json["of"]["task"] == "program"
    assert again.json == json.loads((tmp_path / "run-stability/stability.json").read_text())
    assert {file: file.stat().st_mtime_ns for file in made} == made


def test_other_numbers_of_repetitions_take_their_own_thresholds(cli, run, tmp_path):
    for n in (2, 3):
        answer = cli("stability", "run", "--vary", "thresholds", "--repetitions", n)
        assert answer.code == 0, answer.err
    stored = {
        json.loads(file.read_text())["options"]["threshold"]: file.parent.name
        for file in tmp_path.glob("run-stability/*/config.json")
    }
    # From half to twice the run's 0.01.
    assert stored == {
        0.005: "thresholds-0.005", 0.01: "thresholds-0.01", 0.02: "thresholds-0.02",
    }  # fmt: skip


def test_repetitions_of_another_run_are_not_taken_for_these(cli, run, tmp_path):
    words = ["stability", "run", "--vary", "resamples", "--repetitions", 1]
    assert cli(*words).code == 0
    shutil.rmtree(tmp_path / "run")
    assert cli(*run[:-1], 0.1).code == 0
    answer = cli(*words)
    assert answer.code == 2
    said = "run-stability holds another set of repetitions (threshold is 0.01 there and 0.1 here"
    assert said in answer.err


def test_a_resample_is_a_run(cli, run, tmp_path):
    words = ["stability", "run", "--vary", "resamples", "--repetitions", 2]
    assert cli(*words).code == 0
    place = tmp_path / "run-stability" / "resamples-2"
    assert json.loads((place / "config.json").read_text())["resample"] == 1
    rows = {row["run"]: row["state"] for row in cli("runs", "run-stability", "--json").json}
    assert rows == {"resamples-1": "finished", "resamples-2": "finished"}
    found = (place / "circuit.json").read_bytes()
    # As a process leaves it that was killed in the middle.
    lines = (place / "decisions.jsonl").read_bytes().splitlines(keepends=True)
    for name in ("circuit.json", "scorecard.json", "diagram.svg", "diagram.dot"):
        (place / name).unlink()
    (tmp_path / "run-stability" / "stability.json").unlink()
    (place / "decisions.jsonl").write_bytes(b"".join(lines[:20]))
    assert cli(*words).code == 0
    assert (place / "circuit.json").read_bytes() == found
    assert (place / "scorecard.json").exists()


def test_what_cannot_be_repeated_is_one_line(cli, run, complaint):
    complaint(cli("stability", "run", "--vary", "moods"), "cannot vary 'moods'; choose among")
    complaint(cli("stability", "run", "--repetitions", 0), "repetitions must be a whole")
    complaint(cli("stability", "nowhere"), "nowhere holds no run")
