"""`benchmark` on the command line: what it prints, writes and refuses."""

import xml.etree.ElementTree as ET

SMALL = """
measure = "auroc"
seeds = [0, 1]
prompts = 4
[[cases]]
models = ["hist", "and-gate"]
[methods.exact]
[methods.random]
"""


def test_a_suite_gives_a_table_on_stdout_and_in_files(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("circuitfind.workers.processes.usual_start_method", lambda: "fork")
    (tmp_path / "small.toml").write_text(SMALL)
    listed = cli("benchmark", "small.toml", "--dry-run")
    assert listed.out.count("-seed-") == 8
    answer = cli("benchmark", "small.toml", "--workers", 1)
    assert answer.code == 0, answer.err
    assert answer.err.count(": finished after ") == 8
    rows = [line.split() for line in answer.out.splitlines()]
    assert [row[0] for row in rows[:3]] == ["method", "exact", "random"]
    path = tmp_path / "leaderboards" / "small"
    assert answer.out.splitlines()[3:] == [
        f"leaderboards/small/{name}"
        for name in ("leaderboard.md", "leaderboard.csv", "rankings.csv", "figures/auroc.svg",
                     "figures/steps.svg", "figures/precision.svg", "figures/recall.svg")
    ]  # fmt: skip
    assert "| exact |" in (path / "leaderboard.md").read_text()
    assert ET.parse(path / "figures" / "auroc.svg").getroot().tag.endswith("svg")
    again = cli("benchmark", "small.toml", "--json")
    assert (again.code, again.err) == (0, "")
    assert [row["method"] for row in again.json] == ["exact", "random"]
    one = cli("benchmark", "small.toml", "--json", "--method", "random")
    assert [row["method"] for row in one.json] == ["random"]
    assert "| exact |" in (path / "leaderboard.md").read_text()
    refused = cli("benchmark", "smal.toml")
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "there is no suite 'smal.toml'; give one of" in refused.err


def test_truth_shows_every_case_of_its_suite(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("circuitfind.workers.processes.usual_start_method", lambda: "fork")
    monkeypatch.setattr("circuitfind.sweeps.suite.FOLDER", tmp_path)
    text = SMALL.replace("[methods.exact]", "thresholds = [0.01]\n[methods.acdc]")
    (tmp_path / "truth.toml").write_text(text.replace("thresholds = [0.01]\n", "", 1))
    refused = cli("truth")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "thresholds" in refused.err
    (tmp_path / "truth.toml").write_text("thresholds = [0.01]\n" + SMALL + "[methods.acdc]\n")
    answer = cli("truth", "--workers", 1)
    assert answer.code == 0, answer.err
    cases, summary = (part.splitlines() for part in answer.out.split("\n\n"))
    assert [line.split()[:5] for line in cases[1:]] == [
        ["hist,", "resample", "acdc", "4", "8"], ["and-gate,", "resample", "acdc", "5", "13"]
    ]  # fmt: skip
    assert summary[0].split()[:2] == ["method", "AUROC"] and len(summary) == 2
    rows = cli("truth", "--json", "--method", "random").json
    assert [row["method"] for row in rows] == ["random", "random"]
    assert all(0 < row["precision"] < 1 and 0 < row["recall"] <= 1 for row in rows)
