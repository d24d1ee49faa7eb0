"""The command line as tests call it: in this process, or as a process of its own."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from circuitfind.cli import main
from circuitfind.commands import progress
from tests.programs import write_program

Cli = Callable[..., "Answer"]


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def cli(monkeypatch, capfd, tmp_path) -> Cli:
    """Run a command in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    # On a slow machine a quick command would say how far it is.
    monkeypatch.setattr(progress, "FIRST_LINE", 3600.0)

    def run(*words: object) -> Answer:
        capfd.readouterr()
        return Answer(call(*words), *capfd.readouterr())

    return run


def call(*words: object) -> int:
    """Run a command in this process and return its exit code."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["circuitfind", *map(str, words)])
        main()
    return int(end.value.code or 0)


@pytest.fixture
def complaint() -> Callable[[Answer, str], None]:
    """Check that a command ended in one line to the user, which says what is expected."""

    def check(answer: Answer, said: str) -> None:
        assert answer.code == 2, answer
        assert answer.out == ""
        # Without flags the dot matches no line break, so this is one line.
        assert re.fullmatch(f"circuitfind: .*({said}).*\n", answer.err), answer.err

    return check


@pytest.fixture
def run(cli, program) -> list[object]:
    """The words of a command that has been run, in the directory `run`."""
    words = ["discover", "program", "--model", program, "--prompts", 8, "--out", "run"]
    assert cli(*words, "--threshold", 0.01).code == 0
    return [*words, "--threshold", 0.01]


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Path:
    """A compiled model of 46 edges that is searched in a second."""
    return write_program(tmp_path_factory.mktemp("program"), n_outputs=5)


@pytest.fixture(scope="session")
def large_program(tmp_path_factory) -> Path:
    """A compiled model whose search takes long enough to be interrupted."""
    return write_program(tmp_path_factory.mktemp("large"), "large", n_layers=4, n_heads=4, n_ctx=9)


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Running:
    """A command in a process of its own."""

    def __init__(self, *words: object, cwd: Path, **options: Any) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from circuitfind.cli import main; main()", *map(str, words)],
            cwd=cwd,
            env=environment,
            **{
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                # In the background Ctrl-C is ignored, and children inherit that.
                "preexec_fn": _heed_interrupts,
                **options,
            },
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def wait_for_decisions(self, run: Path, count: int) -> int:
        """Wait until the run has made this many decisions, and return how many there are."""
        file, deadline = run / "decisions.jsonl", time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            found = file.read_bytes().count(b"\n") if file.exists() else 0
            if found >= count:
                return found
            time.sleep(0.002)
        raise AssertionError(f"the search ended or stalled before {count} decisions")

    def stop(self, number: signal.Signals) -> Answer:
        self._process.send_signal(number)
        return self.answer()

    def answer(self) -> Answer:
        out, err = self._process.communicate(timeout=120)
        lines = err.splitlines(keepends=True)
        messages = "".join(line for line in lines if not line.startswith(progress.START))
        return Answer(self._process.returncode, out, messages)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.communicate()


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Running]]:
    """Start commands in an empty directory; those still running at the end are killed."""
    running: list[Running] = []

    def begin(*words: object, **options: Any) -> Running:
        running.append(Running(*words, cwd=tmp_path, **options))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
