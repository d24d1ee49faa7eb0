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
                     "figures/steps.svg")
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
