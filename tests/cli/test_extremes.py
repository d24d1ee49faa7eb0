"""Whatever value an option is given, a command ends: with a result, or in one line.

Exit code 0, 2 (one line), 124 (the budget is spent) or 130; never a traceback, never without end.
"""

import inspect
import os
import signal
import typing
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuitfind.commands import COMMANDS
from circuitfind.commands.progress import START
from tests.cli.conftest import call
from tests.programs import write_program

ENDLESS = 120
"""Seconds after which a command is taken to run without end."""

NUMBERS = (
    "-1", "0", "1", "2", "3.5", "nan", "inf", "-inf", "1e-320", "1e308", "1e999", "9" * 400,
    "-" + "9" * 400, str(2**31), str(2**63), str(-(2**63) - 1), "1_000", "0x10", "\u0663",
)  # fmt: skip
TEXTS = (
    "", " ", "-", "..", "a b", "a,b", ",", "=", "a=", "steps=0", "steps=99999999999999", "é" * 3,
    "\x01", "x" * 5000,
    "PIPE", "FOLDER", "/dev/zero", "/dev/null", "9" * 400 + "h", "9" * 400 + "GB",
)  # fmt: skip
WHOLE_COMMANDS = {
    "discover": ["program", "--model", "PROGRAM", "--prompts", "4", "--threshold", "0.01"],
    "evaluate": ["RUN", "--quick", "--out", "evaluated"],
    "mib": ["program", "--model", "PROGRAM", "--prompts", "4", "--out", "mib"],
    "stability": ["RUN", "--vary", "orders", "--repetitions", "1", "--out", "stable"],
    "sweep": ["SWEEP", "--dry-run"],
    "benchmark": ["SUITE", "--dry-run"],
    "truth": ["--method", "random", "--budget", "0s"],
    "draw": ["RUN", "--out", "drawn.svg"],
    "roles": ["RUN"],
    "certify": ["RUN"],
    "units": ["NEURONS"],
    "report": ["RUN"],
    "compare": ["RUN", "OTHER", "--by-name", "--draws", "10"],
    "dissociate": ["RUN", "OTHER", "--draws", "1", "--out", "apart"],
    "rivals": ["RUN", "--restarts", "1", "--out", "rivalled"],
    "families": ["RUN", "--out", "parted"],
    "patch": ["program", "--model", "PROGRAM", "--prompts", "4", "--sites", "head"],
    "path_patch": ["program", "--model", "PROGRAM", "--prompts", "4", "--to", "logits"],
    "export": ["RUN", "--format", "csv"],
    "publish": ["RUN", "--to", "published"],
    "import_": ["RUN/circuit.json", "--out", "imported"],
    "runs": ["."],
    "tasks": ["program", "--model", "PROGRAM"],
    "models": [],
    "methods": [],
    "metrics": [],
    "inspect": ["PROGRAM"],
    "bench": ["program", "--model", "PROGRAM", "--prompts", "4", "--components", "2"],
}
OFFLINE = ("--ray",)
"""Options whose right values start services."""


class Given(typing.NamedTuple):
    """A command with one option more."""

    command: str
    option: str
    value: str


def options_of(command):
    """Yield the name of each option that takes a value, and the values to try."""
    for name, parameter in inspect.signature(command).parameters.items():
        *_, info = typing.get_args(parameter.annotation)
        if parameter.default is inspect.Parameter.empty and not hasattr(info, "param_decls"):
            continue
        kinds = str(parameter.annotation)
        flag = next(iter(getattr(info, "param_decls", None) or ()), f"--{name.replace('_', '-')}")
        if "bool" in kinds or not flag.startswith("--") or flag in OFFLINE:
            continue
        yield flag, NUMBERS if "int" in kinds or "float" in kinds else (*NUMBERS[:6], *TEXTS)


CASES = [
    Given(command.__name__, option, value)
    for command in COMMANDS
    for option, values in options_of(command)
    for value in values
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a program, three runs of it, files of a sweep and a suite, a named pipe."""
    folder = tmp_path_factory.mktemp("extremes")
    write_program(folder, "small", n_layers=1, n_heads=2, n_ctx=4)
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "sweep.toml").write_text(
        'models = ["small.json"]\ntasks = ["program"]\nprompts = 4\n'
        "[methods.acdc]\nthresholds = [0.01]\n"
    )
    (folder / "suite.toml").write_text(
        'measure = "auroc"\n[[cases]]\nmodels = ["hist"]\n[methods.exact]\n'
    )
    with inside(folder):
        for seed, run in enumerate(("run", "other")):
            words = ["program", "--model", "small.json", "--prompts", 4, "--seed", seed]
            assert call("discover", *words, "--threshold", 0.001, "--out", run) == 0
        words = [*words[:5], "--neurons", "all", "--threshold", 0.001, "--out", "neurons"]
        assert call("discover", *words) == 0
    return folder


@contextmanager
def inside(folder: Path):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def ending():
    """Fail where a command runs without end; not for one that is slow."""

    def fail(*_):
        raise AssertionError("the command did not end")

    before = signal.signal(signal.SIGUSR1, fail)
    timer = __import__("threading").Timer(ENDLESS, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(case=st.sampled_from(CASES))
def test_a_command_ends_in_a_result_or_in_one_line(case, place, capfd, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names = {
        "PROGRAM": "small.json", "RUN": "run", "OTHER": "other", "SWEEP": "sweep.toml",
        "SUITE": "suite.toml", "PIPE": "pipe", "FOLDER": "folder",
        "RUN/circuit.json": "run/circuit.json", "NEURONS": "neurons",
    }  # fmt: skip
    words = [names.get(word, word) for word in WHOLE_COMMANDS[case.command]]
    if case.option in words:
        place_of = words.index(case.option)
        words[place_of : place_of + 2] = []
    words += [f"{case.option}={names.get(case.value, case.value)}"]
    has_budget = any(c == case.command and o == "--budget" for c, o, _ in CASES)
    if has_budget and case.option != "--budget":
        words += ["--budget", "2s"]
    capfd.readouterr()
    with inside(place), ending():
        code = call(case.command.strip("_").replace("_", "-"), *words)
    err = capfd.readouterr().err
    lines = [line for line in err.splitlines() if not line.startswith(START)]
    assert code in (0, 2, 124, 130), (words, err)
    assert "Traceback" not in err
    if code:
        assert lines[-1].startswith("circuitfind: "), (words, err)
        assert len(lines[-1]) < 1500, words
    if code == 2:
        assert len(lines) == 1, (words, err)
