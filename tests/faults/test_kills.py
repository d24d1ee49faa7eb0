"""Killed at any moment, a command that is repeated ends as if nobody had killed it."""

import pytest

from circuitfind.sweeps import launching
from tests.faults.killing import kill_and_resume
from tests.programs import write_program

SEARCHES = {
    "acdc": ["--threshold", 0.001],
    "exact": ["--method", "exact", "--edges", 30],
    "eap-ig": ["--method", "eap-ig", "--edges", 30],
}
SWEEP = """
models = ["scramble.json"]
tasks = ["program"]
prompts = 4
seeds = [0, 1]

[methods.acdc]
thresholds = [0.01]

[methods.eap-ig]
steps = 2
edges = [9]
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return write_program(tmp_path_factory.mktemp("program"), n_layers=3, n_outputs=5)


def of_a_run(path):
    if (path / "circuit.json").exists():
        return "finished"
    if (path / "scorecard.json").exists():
        return "writing results"
    decisions = path / "decisions.jsonl"
    if not decisions.exists():
        return "loading"
    return "searching" if decisions.stat().st_size else "beginning"


def of_a_sweep(path):
    if (path / "figures" / "comparison.png").exists():
        return "finished"
    finished = len(list(path.glob("runs/*/circuit.json")))
    return "gathering" if finished == 4 else f"after {finished} of 4 runs"


@pytest.mark.parametrize(
    ("search", "n_times"),
    [("acdc", 2), *(pytest.param(name, 34, marks=pytest.mark.slow) for name in SEARCHES)],
)
def test_a_killed_search_ends_as_if_never_killed(search, n_times, program, tmp_path):
    def words(path):
        model = ["--model", program, "--prompts", 8]
        return ["discover", "program", *model, *SEARCHES[search], "--out", path]

    kill_and_resume(words, tmp_path, n_times, n_times, of_a_run)


@pytest.mark.parametrize(
    ("n_times", "seed"),
    [(1, 0), *(pytest.param(25, seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))],
)
def test_a_killed_sweep_ends_as_if_never_killed(n_times, seed, program, tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "usual_start_method", lambda: "fork")
    file = program.with_name("sweep.toml")
    file.write_text(SWEEP)

    def words(path):
        return ["sweep", file, "--workers", 2, "--out", path]

    kill_and_resume(words, tmp_path, n_times, seed, of_a_sweep)
