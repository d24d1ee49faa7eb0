"""Where a file does not fit, the command says so, and nothing half-written takes its place."""

import io
import os
import resource
import shutil
import sys

import pytest

from tests.cli.conftest import call
from tests.faults.killing import ended

COMMANDS = {
    "discover": ["discover", "program", "--prompts", 4, "--threshold", 0.01, "--out", "new"],
    "evaluate": ["evaluate", "run", "--quick"],
    "patch": ["patch", "program", "--prompts", 2, "--sites", "head", "--out", "patched"],
    "report": ["report", "run"],
    "roles": ["roles", "run"],
    "stability": ["stability", "run", "--vary", "resamples", "--repetitions", 1],
    "compare": ["compare", "run", "other", "--out", "compared"],
    "export": ["export", "run", "--format", "graphml"],
    "draw": ["draw", "run", "--out", "drawn.png"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_file_that_does_not_fit_is_left_in_half(command, cli, program, tmp_path):
    for name, threshold in (("run", 0.01), ("other", 0.1)):
        words = ["discover", "program", "--model", program, "--prompts", 4, "--out", name]
        assert cli(*words, "--threshold", threshold).code == 0
    words = [*COMMANDS[command], *["--model", program] * (command in ("discover", "patch"))]
    before = files_of(tmp_path)
    assert cli(*words).code == 0
    after = files_of(tmp_path)
    made = {name: content for name, content in after.items() if before.get(name) != content}
    for size in sorted({len(content) for content in made.values()}):
        folder = tmp_path.parent / f"{tmp_path.name}-{size}"
        for name, content in before.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        code, said = limited(words, folder, size - 1)
        assert code == 2, (size, said)
        assert said.splitlines()[-1].startswith("circuitfind: "), said
        assert "Traceback" not in said and "File too large" in said
        for name, content in files_of(folder).items():
            is_old, grows = before.get(name) == content, name.endswith(".jsonl")
            assert is_old or grows or len(content) < size - 1, name
            assert not name.endswith(".tmp")
        shutil.rmtree(folder)


def files_of(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def limited(words, folder, size):
    """Run a command that can write no file beyond a size; return its code and its stderr."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # What pytest puts in their place are files, which have a size.
            sys.stdout, sys.stderr = io.StringIO(), os.fdopen(write, "w", buffering=1)
            os.chdir(folder)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            code = call(*words)
            sys.stderr.flush()
            os._exit(code)
        finally:
            os._exit(70)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    return ended(child), said
