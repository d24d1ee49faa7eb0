"""The workers of a command: whoever is killed, the result is the same, and no process is left."""

import os
import signal
import time

import psutil
import pytest

from tests.cli.conftest import Running
from tests.cli.test_interruption import assert_same_results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words(large_program):
    given = ["discover", "program", "--threshold", 0.001, "--prompts", 64, "--workers", 2]
    return [*given, "--model", large_program]


@pytest.fixture(scope="module")
def uninterrupted(words, tmp_path_factory):
    """The directory of a run that nothing stopped."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert Running(*words, "--out", run, cwd=run.parent).answer().code == 0
    return run


def below(process):
    """All processes below a command's own."""
    return psutil.Process(process.pid).children(recursive=True)


def the_worker(process):
    """The one that has loaded weights: the others serve the start of processes."""
    return max(below(process), key=lambda each: each.create_time())


def require_gone(processes):
    gone, left = psutil.wait_procs(processes, timeout=30)
    assert not left


def test_a_worker_killed_on_the_way_changes_nothing(words, start, tmp_path, uninterrupted):
    searching, run = start(*words, "--out", tmp_path / "run"), tmp_path / "run"
    for count in (50, 200):
        searching.wait_for_decisions(run, count)
        worker = the_worker(searching)
        os.kill(worker.pid, signal.SIGKILL)
        time.sleep(0.2)
    assert searching.answer().code == 0
    assert_same_results(run, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_a_search_that_is_stopped(number, words, start, tmp_path, uninterrupted):
    searching, run = start(*words, "--out", tmp_path / "run"), tmp_path / "run"
    searching.wait_for_decisions(run, 100)
    processes = below(searching)
    assert processes
    searching.stop(number)
    require_gone(processes)
    assert start(*words, "--out", run).answer().code == 0
    assert_same_results(run, uninterrupted)
