"""Files of a newer version are said to be such by every command that reads them, and kept."""

import json
import re
from pathlib import Path

import pytest

VERSIONED = [
    "run/config.json",
    "run/decisions.jsonl",
    "run/circuit.json",
    "run/scorecard.json",
    "run/evaluation-config.json",
    "run/evaluation.json",
    "run/roles.json",
    "patched/config.json",
    "patched/patching.json",
    "compared/config.json",
    "compared/comparison.json",
    "apart/config.json",
    "apart/dissociation.json",
    "rivalled/config.json",
    "rivalled/rivals.json",
    "parted/config.json",
    "parted/families.json",
]
COMMANDS = {
    "discover": ["or-gate", "--model", "or-gate", "--prompts", 16, "--threshold", 0.1, "--out=run"],
    "evaluate": ["run", "--quick"],
    "report": ["run"],
    "stability": ["run", "--repetitions", 1],
    "roles": ["run"],
    "certify": ["run"],
    "draw": ["run", "--out", "drawn.svg"],
    "export": ["run", "--format", "csv", "--out", "exported.csv"],
    "import": ["run/circuit.json", "--out", "imported"],
    "compare": ["run", "other", "--out", "compared"],
    "dissociate": ["run", "other", "--draws", 1, "--out", "apart"],
    "rivals": ["run", "--restarts", 1, "--out", "rivalled"],
    "families": ["run", "--ranked-by", "exact", "--out", "parted"],
    "patch": ["backup-head", "--model", "backup-head", "--prompts", 6, "--out", "patched"],
}
READERS = {
    "run/config.json": {"discover", "evaluate", "report", "stability"},
    "run/decisions.jsonl": {"report"},
    "run/circuit.json": set(COMMANDS) - {"patch"},
    "run/scorecard.json": {"discover", "report"},
    "run/evaluation-config.json": {"evaluate"},
    "run/evaluation.json": {"evaluate"},
    "run/roles.json": {"roles"},
    "patched/config.json": {"patch"},
    "patched/patching.json": {"patch"},
    "compared/config.json": {"compare"},
    "compared/comparison.json": {"compare"},
    "apart/config.json": {"dissociate"},
    "apart/dissociation.json": {"dissociate"},
    "rivalled/config.json": {"rivals"},
    "rivalled/rivals.json": {"rivals"},
    "parted/config.json": {"families"},
    "parted/families.json": {"families"},
}


@pytest.fixture
def directories(cli, tmp_path) -> Path:
    other = [*COMMANDS["discover"][:-1], "--seed", 1, "--out=other"]
    for words in (["discover", *COMMANDS["discover"]], ["discover", *other]):
        assert cli(*words).code == 0
    for name in ("evaluate", "roles", "compare", "dissociate", "rivals", "families", "patch"):
        assert cli(name, *COMMANDS[name]).code == 0, name
    return tmp_path


def test_a_file_of_a_newer_version_is_said_to_be_one_and_kept(directories, cli):
    listed = {
        str(file.relative_to(directories))
        for file in directories.rglob("*")
        if file.suffix in (".json", ".jsonl") and b'"format": "circuitfind ' in file.read_bytes()
    }
    assert set(VERSIONED) <= listed
    for name in VERSIONED:
        file = directories / name
        ours = file.read_bytes()
        newer = re.sub(rb'("format": "circuitfind [a-z ]+)\d"', rb'\g<1>99"', ours, count=1)
        file.write_bytes(newer)
        refused = set()
        for command, words in COMMANDS.items():
            answer = cli(command, *words)
            if answer.code:
                said = (
                    f"(?s:.*)circuitfind: .*{Path(name).name}.* was written by a newer version.*\n"
                )
                assert answer.code == 2 and re.search(said, answer.err), answer
                assert not re.search("damaged|delete", answer.err)
                refused.add(command)
        assert file.read_bytes() == newer
        assert READERS[name] <= refused, name
        file.write_bytes(ours)


@pytest.mark.parametrize("name", ["run/config.json", "run/scorecard.json", "patched/config.json"])
def test_a_directory_of_a_newer_version_is_listed_as_such(name, directories, cli):
    file = directories / name
    file.write_text(file.read_text().replace('1"', '2"', 1))
    rows = {row["run"]: row for row in cli("runs", ".", "--json").json}
    row = rows.pop(name.partition("/")[0])
    assert row["state"] == "newer" and "was written by a newer version" in row["problem"]
    assert {row["state"] for row in rows.values()} == {"finished"}
    assert [row["run"] for row in cli("runs", ".", "--state", "newer", "--json").json] == [
        name.partition("/")[0]
    ]


def test_settings_that_the_circuit_contradicts_are_refused(cli, complaint, tmp_path):
    words = ["or-gate", "--model", "or-gate", "--prompts", 8, "--threshold", 0.1, "--out", "run"]
    assert cli("discover", *words, "--ablation", "zero").code == 0
    file = tmp_path / "run" / "config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({name: told[name] for name in told if name != "ablation"}))
    said = "other settings than config.json beside it says .ablation is zero there and resample"
    for command in (
        ["discover", *words],
        ["evaluate", "run", "--quick"],
        ["report", "run"],
        ["stability", "run", "--repetitions", 1],
    ):
        complaint(cli(*command), said)
    file.write_text(json.dumps(told))
    assert cli("evaluate", "run", "--quick").code == 0
