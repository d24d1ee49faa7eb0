"""Every command of the README runs, in order, in the directory of a fresh clone."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = re.search(
    r"<!-- commands -->\n```\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S
)[1].splitlines()


def test_the_readme_has_a_command_for_each_kind_of_work():
    shown = {shlex.split(command)[1] for command in COMMANDS}
    assert {"discover", "patch", "evaluate", "sweep", "export", "draw", "roles", "compare"} <= shown
    assert {"report", "inspect", "bench", "runs", "units", "certify", "rivals"} <= shown


def test_every_command_of_the_readme_runs_in_order(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for command in COMMANDS:
        program, *words = shlex.split(command, comments=True)
        assert program == "circuitfind"
        if words[0] == "sweep":
            words += ["--dry-run"]
        answer = cli(*words)
        assert answer.code == 0, f"{command}\n{answer.err}"
        assert answer.out, command
        for line in answer.out.splitlines():
            if re.fullmatch(r"runs/\S+\.(svg|png|html|json)", line):
                assert (tmp_path / line).is_file(), command


@pytest.mark.slow
def test_the_sweep_of_the_readme_runs(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (command,) = (line for line in COMMANDS if " sweep " in line)
    assert cli(*shlex.split(command, comments=True)[1:]).code == 0
