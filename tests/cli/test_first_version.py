"""Directories that version 0.1.0 wrote are read, resumed and repeated by every command.

`tests/data/first` holds what its commands left for a model of 13 edges, without the drawings.
"""

import json
import shutil
from pathlib import Path

import pytest

FIRST = Path(__file__).parents[1] / "data" / "first"
SEARCH = ["discover", "or-gate", "--model", "or-gate", "--prompts", 8]


@pytest.fixture(autouse=True)
def first(tmp_path) -> Path:
    return Path(shutil.copytree(FIRST, tmp_path, dirs_exist_ok=True))


def edges_of(path: Path) -> list[str]:
    return [row["edge"] for row in json.loads(path.read_text())["edges"]]


def contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("words", "directory"),
    [
        ([*SEARCH, "--threshold", 0.1], "search"),
        ([*SEARCH, "--method", "eap-ig", "--edges", 8], "ranked"),
        ([*SEARCH, "--threshold", "0.1,0.2"], "series"),
        (["compare", "search", "ranked", "--by-name"], "comparison"),
        (["sweep", "sweep.toml"], "sweep/runs"),
        (
            ["patch", "backup-head", "--model", "backup-head", "--prompts", 6, "--sites", "head"]
            + ["--threshold", 0.01, "--discover"],
            "patch",
        ),
    ],
)
def test_a_repeated_command_reads_what_is_there(cli, first, words, directory):
    before = contents(first / directory)
    answer = cli(*words, "--out", directory.partition("/")[0])
    assert answer.code == 0, answer
    assert contents(first / directory) == before


def test_an_interrupted_search_resumes_to_the_same_circuit(cli, first):
    answer = cli(*SEARCH, "--threshold", 0.1, "--out", "interrupted")
    assert answer.code == 0, answer
    assert "resumes after 6 of 13 edges" in answer.err
    assert edges_of(first / "interrupted/circuit.json") == edges_of(first / "search/circuit.json")


def test_a_repeated_stability_makes_only_what_is_missing(cli, first):
    before = contents(first / "stability/seeds-1")
    words = ["--repetitions", 2, "--vary", "resamples,seeds", "--out", "stability", "--json"]
    answer = cli("stability", "search", *words)
    assert answer.code == 0, answer
    assert contents(first / "stability/seeds-1") == before


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "search", "--quick"],
        ["evaluate", "patch", "--quick", "--out", "evaluated"],
        ["roles", "search"],
        ["report", "search"],
        ["report", "search", "--against", "ranked"],
        ["draw", "search", "--out", "drawn.svg"],
        ["draw", "patch", "--out", "drawn.svg"],
        ["compare", "search", "ranked", "patch", "--out", "compared"],
        ["export", "search", "--format", "csv", "--out", "search.csv"],
    ],
)
def test_every_command_takes_it(cli, words):
    answer = cli(*words)
    assert answer.code == 0, answer


def test_all_of_it_is_listed(cli):
    rows = {row["run"]: row["state"] for row in cli("runs", ".", "--json").json}
    assert set(rows.values()) == {"finished", "interrupted"}
    assert [name for name, state in rows.items() if state == "interrupted"] == ["interrupted"]
