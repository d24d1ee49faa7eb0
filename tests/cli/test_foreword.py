"""How well the model itself does the task is said before a search, and so is that it does not."""

import json

import pytest

import circuitfind as cf
from circuitfind.measures import Reference, accuracy, logit_difference

SEARCH = ["--method", "eap-ig", "--edges", 20, "--steps", 2]


@pytest.fixture
def swapped(cli, tmp_path):
    """A task that the model does not do: one that it does, with right and wrong answers swapped."""
    rows = [
        {
            "clean": row["clean"].replace("|", " "),
            "corrupted": row["corrupted"].replace("|", " "),
            "answer": row["wrong answer"].split()[0],
            "wrong_answer": row["answer"].split()[0],
        }
        for row in cli("tasks", "ioi", "--model", "ioi-small", "--json").json
    ]
    (tmp_path / "mine.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return "mine.jsonl"


def test_discover_says_it_before_it_searches_and_stability_again(cli):
    problem = cf.make_problem(cf.load_model("ioi-small"), "ioi", n_prompts=8)
    prompts = problem.prompts
    logits = prompts.at_steps(problem.model.own_logits(prompts.clean))
    mean = float(logit_difference(logits, prompts, Reference(logits)).mean())
    hits = float(accuracy(logits, prompts, Reference(logits)).mean())
    words = ["discover", "ioi", "--model", "ioi-small", "--prompts", 8, *SEARCH, "--out", "run"]
    answer = cli(*words)
    own = answer.out.splitlines()[0].removeprefix("the model itself").strip()
    assert own.startswith(f"logit-difference {mean:.4g} (")
    assert own.endswith(f"logits, accuracy {hits:.4g}")
    assert answer.err.splitlines() == [f"the model itself: {own}"]
    assert "is finished" in cli(*words).err
    again = cli("stability", "run", "--vary", "resamples", "--repetitions", 1).err.splitlines()
    assert again[1:] == [f"the model itself: {own}"]


def test_it_is_said_before_the_first_step_of_a_search():
    problem = cf.make_problem(cf.load_model("ioi-small"), "ioi", n_prompts=8)
    events: list[str] = []
    cf.discover(
        problem,
        "acdc",
        threshold=0.5,
        tell=events.append,
        on_progress=lambda progress: events.append("a step"),
    )
    assert events[0].startswith("the model itself: ") and set(events[1:]) == {"a step"}


def test_a_series_says_it_once_and_warns_once(cli, swapped):
    words = ["discover", swapped, "--model", "ioi-small", "--threshold", "5,2", "--out", "runs"]
    own, warning = cli(*words).err.splitlines()
    assert own.startswith("the model itself: logit-difference -")
    assert warning.startswith("warning: the model does not do this task (logit-difference -")


def test_a_sweep_says_it_of_every_run_before_its_end(cli, swapped, tmp_path, monkeypatch):
    monkeypatch.setattr("circuitfind.workers.processes.usual_start_method", lambda: "fork")
    (tmp_path / "sweep.toml").write_text(
        f"""
        models = ["ioi-small"]
        tasks = ["ioi", "{swapped}"]
        prompts = 8
        [methods.eap-ig]
        edges = [20]
        steps = 2
        """
    )
    answer = cli("sweep", "sweep.toml", "--workers", 1)
    lines = [line.split(": ", 1) for line in answer.err.splitlines()]
    good, bad = dict.fromkeys(name for name, _ in lines)
    said = {name: [line for of, line in lines if of == name] for name in (good, bad)}
    assert [line.split()[0] for line in said[good]] == ["the", "finished"]
    assert [line.split()[0] for line in said[bad]] == ["the", "warning:", "finished"]
    head, *rows = answer.out.splitlines()[:3]
    assert head.split()[:2] == ["run", "model_accuracy"]
    assert [row.split()[:2] for row in rows] == [[good, "1"], [bad, "0"]]
