"""Sweeps on Ray: a cluster of two workers on this machine."""

import json
import os
import signal
import threading
import time

import psutil
import pytest

from circuitfind.errors import WorkerError
from circuitfind.sweeps.gathering import gather
from circuitfind.sweeps.launching import CrewLauncher
from circuitfind.sweeps.running import Watch, run_sweep
from circuitfind.workers.ray_crew import RayCrew
from tests.sweeps.conftest import SMALL

ray = pytest.importorskip("ray")

SIXTY = SMALL.replace("[0, 1]", str(list(range(30))))


@pytest.fixture
def two_workers():
    yield lambda: CrewLauncher(RayCrew("local", 2, 1, gpu=False))
    ray.shutdown()


@pytest.mark.filterwarnings("ignore::FutureWarning:ray", "ignore::ResourceWarning")
@pytest.mark.slow
@pytest.mark.parametrize(("text", "n_runs"), [(SMALL, 4), (SIXTY, 60)])
def test_on_two_workers_one_of_which_is_killed_every_run_ends_once(
    text, n_runs, planned, two_workers, tmp_path
):
    runs, killed = planned(text), []
    assert len(runs) == n_runs

    def kill_one_worker(name, outcome, again):
        if not killed and outcome.kind == "finished":
            # In the middle of its next run, so that there is something to lose.
            threading.Timer(0.05, lambda: killed.append(kill_a_worker())).start()

    state = run_sweep(runs, tmp_path, two_workers, watch=Watch(ended=kill_one_worker))
    assert killed
    assert (state.finished, state.failed) == (n_runs, {})
    rows, _ = gather(runs, tmp_path)
    assert [row["run"] for row in rows] == [run.name for run in runs]
    assert all(row["finished"] for row in rows)
    attempts = [json.loads(x) for x in (tmp_path / "attempts.jsonl").read_text().splitlines()]
    finished = sorted(row["run"] for row in attempts if row["outcome"] == "finished")
    assert finished == sorted(run.name for run in runs)
    assert {row["outcome"] for row in attempts} <= {"finished", "crashed"}


def kill_a_worker() -> int:
    """Kill one of the processes in which Ray, below this process, runs our workers."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for process in psutil.Process().children(recursive=True):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::RayHost"):
                os.kill(process.pid, signal.SIGKILL)
                return process.pid
        time.sleep(0.02)
    raise AssertionError("no worker found")


def test_a_cluster_that_is_not_there_is_said_in_one_line():
    with pytest.raises(WorkerError, match=r"no Ray cluster at '127.0.0.1:9' .*--ray local"):
        RayCrew("127.0.0.1:9", None, 1, gpu=False)
