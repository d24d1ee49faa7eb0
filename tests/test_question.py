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


def test_held_out_prompts_are_those_of_another_seed_whatever_is_drawn(model):
    ours = [replace(ASKED, resample=number).held_out(model) for number in (None, 3)]
    assert fingerprints(ours[0]) == fingerprints(ours[1])
    assert what_changed(fingerprints(ASKED.problem(model)), fingerprints(ours[0]), "it")


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
