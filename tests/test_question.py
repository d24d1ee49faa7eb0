"""A question builds its problem, knows its model, and tells what changed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import circuitfind as cf
from circuitfind.errors import ModelError, RunDirectoryError
from circuitfind.question import (
    Models,
    Question,
    fingerprints,
    held_out_again,
    problem_again,
    require_same,
    what_changed,
)

ASKED = Question("or-gate", "or-gate", n_prompts=8)


@pytest.fixture(scope="module")
def model():
    return cf.load_model("or-gate")


@pytest.fixture(scope="module")
def problem(model):
    return ASKED.problem(model)


def test_a_question_builds_the_problem_that_python_builds(model, problem):
    expected = cf.make_problem(model, "or-gate", n_prompts=8)
    assert fingerprints(problem) == fingerprints(expected)
    assert (problem.graph, problem.ablation) == (expected.graph, expected.ablation)
    assert problem.metric.name == expected.metric.name
    assert problem.metric_is_default and expected.metric_is_default


def test_a_resample_draws_the_questions_own_prompts_with_replacement(model, problem):
    drawn = replace(ASKED, resample=3).problem(model).prompts
    rows = np.random.default_rng([0, 3]).integers(0, 8, 8)
    assert len(set(rows.tolist())) < 8
    torch.testing.assert_close(drawn.clean, problem.prompts.clean[rows])
    torch.testing.assert_close(drawn.corrupted, problem.prompts.corrupted[rows])


def test_held_out_prompts_are_those_of_another_seed_whatever_is_drawn():
    asked, model = replace(ASKED, task="ioi", model="ioi-small"), cf.load_model("ioi-small")
    ours = [replace(asked, resample=number).held_out(model) for number in (None, 3)]
    assert fingerprints(ours[0]) == fingerprints(ours[1])
    other = cf.make_problem(model, "ioi", n_prompts=8, seed=1_000_003)
    assert fingerprints(ours[0]) == fingerprints(other)


def test_held_out_prompts_leave_out_those_of_the_search_and_say_where_none_are_left(model):
    said = list[str]()
    asked = Question("backup-head", "backup-head", n_prompts=64)
    wired = cf.load_model("backup-head")
    found = asked.held_out(wired, tell=said.append)
    own, other = (asked.problem(wired, seed=seed).prompts for seed in (None, 1_000_003))

    def pairs(prompts):
        assert not prompts.padded
        return [tuple(row) for row in torch.cat([prompts.clean, prompts.corrupted], 1).tolist()]

    kept = [pair for pair in pairs(other) if pair not in pairs(own)]
    assert pairs(found.prompts) == kept and 32 < len(kept) < 64 and not said
    # Two bits have twelve pairs of different inputs, and sixty-four prompts hold all of them.
    assert replace(ASKED, n_prompts=64).held_out(model, tell=said.append) is None
    assert said == [
        "there are no held-out prompts: of 64 with another seed, 64 are among those of the search"
    ]


def test_held_out_prompts_of_a_circuit_that_names_no_metric_have_that_of_its_problem(tmp_path):
    model = cf.load_model("gpt-2l")
    graph = cf.make_problem(model, "agreement", n_prompts=4).graph
    origin = {"task": "agreement", "model": "gpt-2l", "n_prompts": 4, "seed": 0}
    circuit, path = cf.Circuit(graph, graph.edge_mask, origin=origin), tmp_path / "mine.json"
    problem = problem_again(circuit, path, Models(model), device="cpu")
    other = held_out_again(circuit, path, problem, lambda message: None)
    assert problem.metric.name == other.metric.name == "logit-difference"
    assert Question.of(circuit, path).held_out(model).metric.name != "logit-difference"


def test_the_device_makes_no_other_question():
    assert not replace(ASKED, device="cuda").differences(ASKED)
    said = replace(ASKED, seed=2, ablation="zero").differences(ASKED)
    assert said == ["ablation is resample there and zero here", "seed is 0 there and 2 here"]


def test_what_changed_is_named_and_what_is_unknown_is_not_compared(problem):
    now = fingerprints(problem)
    assert what_changed(now, now, "the run") == what_changed({}, now, "the run") == ""
    other = dict.fromkeys(now, "0")
    assert what_changed(other, now, "the run") == (
        "the model and the prompts of the run changed since"
    )
    with pytest.raises(RunDirectoryError, match="^the prompts of it changed since; begin again$"):
        require_same({**now, "prompts_fingerprint": "0"}, now, "it", "begin again")


def test_a_problem_is_built_again_from_the_file_of_its_circuit(model, problem, tmp_path):
    origin = {**ASKED.identity, **fingerprints(problem)}
    circuit = cf.Circuit(problem.graph, problem.graph.edge_mask, origin=origin)
    again = problem_again(circuit, tmp_path, Models(), device="cpu")
    assert fingerprints(again) == fingerprints(problem)
    changed = replace(circuit, origin={**origin, "seed": 1})
    with pytest.raises(RunDirectoryError, match="the prompts of the circuit in .* changed since"):
        problem_again(changed, tmp_path, Models(), device="cpu")
    with pytest.raises(RunDirectoryError, match="cannot be used .*seed is 'x', not of type int"):
        Question.of(replace(circuit, origin={**origin, "seed": "x"}), tmp_path)


def test_a_model_is_loaded_once_and_no_more_are_kept_than_wanted(monkeypatch, model):
    loaded = []

    def load(name, **_):
        loaded.append(name)
        return model

    monkeypatch.setattr("circuitfind.question.load_model", load)
    models, one = Models(), Models(most=1)
    for name in ("or-gate", "and-gate", "or-gate"):
        models.of(replace(ASKED, model=name))
    assert loaded == ["or-gate", "and-gate"]
    for name in ("or-gate", "or-gate", "and-gate", "or-gate"):
        one.of(replace(ASKED, model=name))
    assert loaded[2:] == ["or-gate", "and-gate", "or-gate"]
    assert Models(model).of(replace(ASKED, model="anything")) is model


def test_a_name_that_leads_nowhere_says_how_the_model_is_given(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = replace(ASKED, model=str(Path("no") / "such" / "model"))
    with pytest.raises(ModelError, match=r"give it again \(model=...\)"):
        Models().again(asked)
