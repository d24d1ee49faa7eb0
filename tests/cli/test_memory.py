"""A limited memory holds for every command that builds an engine, and changes no result."""

import pytest

from circuitfind.engine import incremental

COMMANDS = {
    "evaluate": ["evaluate", "run", "--quick"],
    "report": ["report", "run"],
    "stability": ["stability", "run", "--vary", "resamples", "--repetitions", 1],
}

PATCHED = {
    "circuit": ["patch", "--mode", "noising", "--sites", "head,mlp", "--positions", "all"]
    + ["--threshold", 0.001, "--discover"],
    "together": ["path-patch", "--from", "embed", "--to", "logits", "--together"],
}


@pytest.fixture
def planned(monkeypatch):
    """Note the memory that each engine is given."""
    plan, given = incremental.plan, []

    def noted(problem, memory, n_shares):
        given.append(memory)
        return plan(problem, memory, n_shares)

    monkeypatch.setattr(incremental, "plan", noted)
    return given


@pytest.mark.parametrize("command", COMMANDS)
def test_the_memory_that_is_given_is_what_engines_may_take(command, cli, run, planned):
    answer = cli(*COMMANDS[command], "--memory", "1GB")
    assert answer.code == 0
    assert planned and {*planned} == {10**9}


@pytest.mark.parametrize("options", PATCHED.values(), ids=PATCHED)
def test_patching_that_needs_an_engine_takes_what_is_given(options, cli, program, planned):
    words = [options[0], "program", "--model", program, "--prompts", 8, *options[1:]]
    assert cli(*words, "--out", "patched", "--memory", "1GB").code == 0
    assert planned and {*planned} == {10**9}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_search_was_allowed_holds_for_what_follows(command, cli, run, tmp_path, planned):
    again = [*run, "--out", "limited", "--memory", "900MB"]
    assert cli(*again).code == 0
    planned.clear()
    assert cli(*[word if word != "run" else "limited" for word in COMMANDS[command]]).code == 0
    assert planned and {*planned} == {9 * 10**8}


def test_too_little_memory_is_refused_before_anything_is_measured(cli, run, tmp_path):
    answer = cli("evaluate", "run", "--quick", "--memory", "1KB")
    assert answer.code == 2
    assert "this takes at least" in answer.err and "--memory" not in answer.out
