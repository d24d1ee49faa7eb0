"""Killed at any moment, a command that is repeated ends as if nobody had killed it."""

import shutil

import pytest

from tests.cli.conftest import call
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


ON_RUNS = {
    "evaluate": ["evaluate", "run", "--quick"],
    "certify": ["certify", "run", "--cases", 50, "--tries", 50],
    "report": ["report", "run"],
    "roles": ["roles", "run"],
    "stability": ["stability", "run", "--vary", "resamples,seeds", "--repetitions", 2],
    "compare": ["compare", "run", "other", "--out", "compared"],
    "rivals": ["rivals", "run", "--restarts", 1],
    "dissociate": ["dissociate", "run", "other", "--draws", 2, "--out", "apart"],
    "families": ["families", "run", "--ranked-by", "exact"],
}
"""Commands that work in a directory with two finished runs."""
_FAMILIES = "run-families-ranked-by-exact"
_FIRST = {
    "evaluate": ("run/evaluation-passes.jsonl", "measuring"),
    "stability": ("run-stability", "repeating"),
    "compare": ("compared", "writing"),
    "rivals": ("run-rivals-restarts-1/restart-0-0.jsonl", "searching"),
    "dissociate": ("apart/passes.jsonl", "measuring"),
    "families": (f"{_FAMILIES}/passes.jsonl", "scoring or measuring"),
}
_LAST = {
    "report": "run/report.html",
    "certify": "run/certificate.json",
    "roles": "run/roles.svg",
    "stability": "run-stability/consensus.svg",
    "compare": "compared/comparison.json",
    "rivals": "run-rivals-restarts-1/rivals.json",
    "dissociate": "apart/dissociation.json",
    "families": f"{_FAMILIES}/families.json",
    "evaluate": "run/size-curve.png",
}


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
    monkeypatch.setattr("circuitfind.workers.processes.usual_start_method", lambda: "fork")
    file = program.with_name("sweep.toml")
    file.write_text(SWEEP)

    def words(path):
        return ["sweep", file, "--workers", 2, "--out", path]

    kill_and_resume(words, tmp_path, n_times, seed, of_a_sweep)


def of_patching(path):
    names = ("report.json", "patching.json", "config.json")
    stages = ("finished", "reporting", "measuring")
    found = (stage for name, stage in zip(names, stages, strict=True) if (path / name).exists())
    return next(found, "loading")


@pytest.mark.parametrize("n_times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_patching_ends_as_if_never_killed(n_times, program, tmp_path):
    def words(path):
        options = ["--model", program, "--prompts", 8, "--sites", "block,head", "--discover"]
        return ["patch", "program", *options, "--out", path]

    kill_and_resume(words, tmp_path, n_times, n_times, of_patching)


@pytest.fixture(scope="module")
def two_runs(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, threshold in (("run", 0.001), ("other", 0.01)):
        words = ["discover", "program", "--model", program, "--prompts", 8]
        assert call(*words, "--threshold", threshold, "--out", folder / name) == 0
    return folder


@pytest.mark.parametrize("n_times", [2, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", ON_RUNS)
def test_a_killed_command_on_runs_ends_as_if_never_killed(command, n_times, two_runs, tmp_path):
    def words(path):
        # A comparison says which directories it compared.
        runs = two_runs if command == "compare" else path
        outs = {name: path / name for name in ("compared", "apart")}
        places = {"run": runs / "run", "other": runs / "other", **outs}
        return [places.get(word, word) for word in ON_RUNS[command]]

    def stage(path):
        if (path / _LAST[command]).exists():
            return "finished"
        file, name = _FIRST.get(command, ("", ""))
        return name if file and (path / file).exists() else "loading or computing"

    kill_and_resume(words, tmp_path, n_times, n_times, stage, lambda path: _copied(two_runs, path))


def _copied(folder, path):
    shutil.copytree(folder, path)
