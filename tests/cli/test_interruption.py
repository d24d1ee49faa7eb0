"""Whatever stops a search, repeating its command ends as if nothing had happened."""

import json
import random
import resource
import signal

import pytest

from tests.cli.conftest import Running
from tests.timing import without_times

WORDS = ["discover", "program", "--threshold", 0.001, "--prompts", 64]


@pytest.fixture(scope="module")
def uninterrupted(large_program, tmp_path_factory):
    """The directory of a run that nothing stopped."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    running = Running(*WORDS, "--model", large_program, "--out", run, cwd=run.parent)
    assert running.answer().code == 0
    return run


@pytest.fixture
def words(large_program, tmp_path):
    return [*WORDS, "--model", large_program, "--out", tmp_path / "run"]


def test_ctrl_c_leaves_a_run_that_resumes(start, words, tmp_path, uninterrupted):
    run = tmp_path / "run"
    searching = start(*words)
    searching.wait_for_decisions(run, 100)
    answer = searching.stop(signal.SIGINT)
    assert (answer.code, answer.out) == (130, "")
    assert answer.err == f"circuitfind: interrupted; repeat the command to resume in {run}\n"
    assert json.loads((run / "config.json").read_text())["task"] == "program"
    for line in (run / "decisions.jsonl").read_text().splitlines()[1:]:
        assert json.loads(line)["edge"]
    assert not (run / "circuit.json").exists()

    assert f"{run} resumes after" in start(*words).answer().err
    assert_same_results(run, uninterrupted)


def test_a_spent_budget_leaves_a_run_that_resumes(cli, program, tmp_path):
    words = ["discover", "program", "--model", program, "--prompts", 4, "--threshold", 0.01]
    run = tmp_path / "run"
    answer = cli(*words, "--out", run, "--budget", "0s")
    assert (answer.code, answer.out) == (124, "")
    assert answer.err.startswith("circuitfind: the time is over: ")
    assert answer.err.endswith(f"edges are decided; repeat the command to resume in {run}\n")
    assert f"{run} resumes after" in cli(*words, "--out", run).err
    cli(*words, "--out", tmp_path / "whole")
    assert_same_results(run, tmp_path / "whole")


def test_ctrl_c_before_the_search_says_that_nothing_was_written(cli, words, monkeypatch, tmp_path):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("circuitfind.question.load_model", interrupt)
    answer = cli(*words)
    assert (answer.code, answer.out) == (130, "")
    assert answer.err == "circuitfind: interrupted; nothing was written\n"
    assert not any(tmp_path.iterdir())


def test_ctrl_c_of_any_other_command_is_one_line(cli, program, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("circuitfind.models.loading.load_model", interrupt)
    answer = cli("inspect", program)
    assert (answer.code, answer.out, answer.err) == (130, "", "circuitfind: interrupted\n")


def test_a_search_killed_again_and_again_ends_as_if_never(start, words, tmp_path, uninterrupted):
    run, random_number, done = tmp_path / "run", random.Random(0), 0
    for _ in range(3):
        searching = start(*words)
        done = searching.wait_for_decisions(run, done + random_number.randint(1, 150))
        assert searching.stop(signal.SIGKILL).code == -signal.SIGKILL
    assert start(*words).answer().code == 0
    assert_same_results(run, uninterrupted)


def test_a_full_disk_stops_a_search_that_then_resumes(start, words, tmp_path, uninterrupted):
    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    run = tmp_path / "run"
    answer = start(*words, preexec_fn=small_files_only).answer()
    assert (answer.code, answer.out) == (2, "")
    said = (
        f"circuitfind: cannot write {run / 'decisions.jsonl'}: File too large; make that possible"
    )
    assert answer.err == f"{said} and repeat the command to resume\n"
    # To the last byte that fits: the line that was cut short does not count.
    assert (run / "decisions.jsonl").stat().st_size == 30_000

    assert start(*words).answer().code == 0
    assert_same_results(run, uninterrupted)


def test_a_second_process_is_refused_until_the_first_one_ends(start, cli, words, tmp_path):
    run = tmp_path / "run"
    searching = start(*words)
    before = searching.wait_for_decisions(run, 1)
    answer = cli(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        f"circuitfind: another process is at work in {run}; wait until it is done, or choose "
        "another --out\n"
    )
    searching.stop(signal.SIGKILL)
    start(*words).wait_for_decisions(run, before + 100)


def assert_same_results(run, expected):
    assert {file.name for file in run.iterdir()} == {file.name for file in expected.iterdir()}
    for file in expected.iterdir():
        if file.name != "scorecard.json":
            assert (run / file.name).read_bytes() == file.read_bytes(), file.name
    ours, theirs = (json.loads((path / "scorecard.json").read_text()) for path in (run, expected))
    for card in (ours, theirs):
        card["search"] = without_times(card["search"])
    assert ours == theirs
