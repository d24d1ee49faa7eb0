"""What a newcomer meets: no command, the list of commands, completion and `doctor`."""

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version

from circuitfind.commands import COMMANDS, SECTIONS, doctor
from circuitfind.commands.help import FIRST_STEPS
from circuitfind.reports import rendering
from tests.cli.test_readme import COMMANDS as README


def test_without_a_command_it_says_how_to_begin(cli):
    answer = cli()
    assert (answer.code, answer.out, answer.err) == (0, FIRST_STEPS, "")


def test_the_first_steps_are_commands_that_the_tests_run():
    steps = re.findall(r"^  (circuitfind .*?)(?:   .*)?$", FIRST_STEPS, re.MULTILINE)
    run = {shlex.join(shlex.split(command, comments=True)) for command in README}
    assert set(steps[:3]) <= run
    names = set(re.findall(r"circuitfind ([a-z]\w+)", FIRST_STEPS)) - {"finds"}
    assert {"discover", "models", "tasks", "doctor"} <= names
    assert names <= {command.__name__ for command in COMMANDS}


def test_help_lists_every_command_under_its_heading_with_a_whole_sentence(cli):
    shown = cli("--help").out
    assert "..." not in shown.replace("mover, ...", "").replace("[ARGS]...", "")
    for heading, commands in SECTIONS.items():
        section = shown.partition(f"{heading}:\n")[2].partition("\n\n")[0]
        names = [
            line.split()[0]
            for line in section.splitlines()
            if line.startswith("  ") and line[2] != " "
        ]
        assert names == [command.__name__.strip("_").replace("_", "-") for command in commands]


def test_words_are_completed():
    environment = {
        **os.environ, "_CIRCUITFIND_COMPLETE": "complete_bash",
        "COMP_WORDS": "circuitfind dis", "COMP_CWORD": "1",
    }  # fmt: skip
    code = "import sys; sys.argv[0] = 'circuitfind'; from circuitfind.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["discover", "dissociate"], done.stderr


def test_doctor_says_what_is_here(cli):
    answer = cli("doctor")
    assert answer.code == 0, answer.out
    found = {row["what"]: row for row in cli("doctor", "--json").json}
    assert found["circuitfind"]["found"].startswith(version("circuitfind"))
    assert {each["state"] for each in found.values()} <= {"ok", "missing"}
    for name in ("Python", "torch", "device", "memory", "Graphviz", "extra gguf", "model smollm2"):
        assert name in found
        assert found[name]["found"] in answer.out


def test_doctor_says_what_is_missing_for_what(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys.modules[doctor.__module__], "version_of", lambda package: "")
    rows = {row["what"]: row for row in cli("doctor", "--json").json}
    assert rows["model smollm2"]["state"] == "missing"
    assert "circuitfind models get smollm2" in rows["model smollm2"]["advice"]
    extra = rows["extra gguf"]
    assert extra["state"] == "missing"
    assert extra["advice"].endswith("pip install 'circuitfind[gguf]'")


def test_doctor_goes_on_where_a_library_cannot_be_imported(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformer_lens", None)
    monkeypatch.setattr(rendering, "programs", lambda: 1 / 0)
    answer = cli("doctor", "--json")
    assert answer.code == 1
    rows = {row["what"]: row for row in answer.json}
    assert rows["transformer_lens"]["state"] == "broken"
    assert "cannot be imported (ModuleNotFoundError" in rows["transformer_lens"]["found"]
    assert rows["Graphviz"]["found"] == "ZeroDivisionError: division by zero"
    assert rows["extra gguf"]["state"] == "ok"


def test_doctor_ends_with_one_where_something_is_broken(cli, monkeypatch):
    monkeypatch.setattr(rendering, "programs", lambda: [])
    answer = cli("doctor")
    assert answer.code == 1
    assert re.search(r"^Graphviz +broken +cannot draw SVG", answer.out, re.MULTILINE)
