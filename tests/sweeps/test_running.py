"""A sweep does what is left, repeats what crashed, and survives whoever is killed."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from circuitfind.directories.config import RunConfig
from circuitfind.directories.decisions import read_decisions
from circuitfind.errors import RunBusyError, SweepError
from circuitfind.granularity import heads_and_mlps
from circuitfind.models.loading import load_model
from circuitfind.sweeps.gathering import gather
from circuitfind.sweeps.journal import journal
from circuitfind.sweeps.launching import CrewLauncher
from circuitfind.sweeps.running import Watch, run_sweep
from circuitfind.sweeps.work import Job, Outcome
from circuitfind.workers.processes import Place, ProcessCrew, local_places
from tests.sweeps.conftest import SMALL, files_of


def attempts_in(path):
    return [json.loads(line) for line in (path / "attempts.jsonl").read_text().splitlines()]


def test_a_sweep_ends_with_every_run_a_table_and_figures(planned, workers, tmp_path):
    runs = planned(SMALL)
    state = run_sweep(runs, tmp_path, workers)
    assert (state.finished, state.failed) == (4, {})
    rows, files = gather(runs, tmp_path)
    assert [row["run"] for row in rows] == [run.name for run in runs]
    assert {file.name for file in files} == {
        "table.csv", "table.parquet", "faithfulness.svg", "stability.svg", "comparison.svg",
        "faithfulness.png", "stability.png", "comparison.png",
    }  # fmt: skip
    assert sorted(row["run"] for row in attempts_in(tmp_path)) == sorted(run.name for run in runs)


def test_an_order_in_a_file_beside_the_sweep_file_is_followed(
    planned, program, workers, tmp_path, monkeypatch
):
    readers = [reader.name for reader in heads_and_mlps(load_model(program).shape).readers]
    program.with_name("mine.txt").write_text("\n".join(readers))
    monkeypatch.chdir(tmp_path)
    (run,) = planned(
        """
        models = ["scramble.json"]
        tasks = ["program"]
        [methods.acdc]
        thresholds = [0.01]
        order = "mine.txt"
        """
    )
    options = {"threshold": 0.01, "order": str(program.with_name("mine.txt"))}
    assert run.config == RunConfig("program", str(program), "acdc", options).pinned()
    run_sweep([run], tmp_path, workers)
    decided = read_decisions(tmp_path / "runs" / run.name / "decisions.jsonl")
    assert list(dict.fromkeys(each.edge.split("->")[1] for each in decided)) == readers


def test_what_is_finished_is_not_run_again(planned, workers, tmp_path):
    runs = planned(SMALL)
    run_sweep(runs[:3], tmp_path, workers)
    before = files_of(tmp_path)
    run_sweep(runs, tmp_path, workers)
    assert len(attempts_in(tmp_path)) == 4
    after = files_of(tmp_path)
    assert {name: after[name] for name in before} == before

    def forbidden():
        raise AssertionError("nothing is left to run")

    assert run_sweep(runs, tmp_path, forbidden).finished == 4


def test_other_settings_are_named_before_anything_runs(planned, workers, tmp_path):
    run_sweep(planned(SMALL), tmp_path, workers)
    before = files_of(tmp_path)
    other = planned(SMALL.replace("prompts = 4", "prompts = 5"))
    with pytest.raises(SweepError, match=r"(n_prompts is 4 there and 5 here.*){4}"):
        run_sweep(other, tmp_path, workers)
    assert files_of(tmp_path) == before


def test_a_run_that_cannot_work_fails_once_and_the_others_go_on(planned, workers, tmp_path):
    runs = planned(SMALL.replace('tasks = ["program"]', 'tasks = ["program", "ioi"]'))
    state = run_sweep(runs, tmp_path, workers)
    assert state.finished == 4
    assert all("is written in words" in message for message in state.failed.values())
    assert len(state.failed) == 4
    assert len(attempts_in(tmp_path)) == 8
    with pytest.raises(SweepError, match="4 of 8 runs failed, such as scramble-ioi-acdc"):
        state.require_success(tmp_path)
    rows, _ = gather(runs, tmp_path)
    assert [row["finished"] for row in rows] == [row["task"] == "program" for row in rows]


class Killing:
    """A launcher whose workers are killed as they begin the first jobs."""

    def __init__(self, launcher, times):
        self._launcher, self._times = launcher, times

    def start(self, job):
        self._launcher.start(job)
        if self._times:
            self._times -= 1
            running = self._launcher.running.values()
            place = next(place for place, each, _ in running if each == job)
            time.sleep(0.05)
            os.kill(self._launcher.actors[place].process.pid, signal.SIGKILL)

    def __getattr__(self, name):
        return getattr(self._launcher, name)


def test_a_killed_worker_is_replaced_and_its_run_tried_again(planned, workers, tmp_path):
    runs = planned(SMALL)
    run_sweep(runs, tmp_path / "calm", workers)
    state = run_sweep(runs, tmp_path / "killed", lambda: Killing(workers(), 3), retries=3)
    assert (state.finished, state.failed) == (4, {})
    for each in (tmp_path / "calm", tmp_path / "killed"):
        gather(runs, each)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "calm")
    crashed = [row for row in attempts_in(tmp_path / "killed") if row["outcome"] == "crashed"]
    assert len(crashed) == 3
    assert crashed[0]["message"] == "the worker was killed (SIGKILL)"


class Crashing:
    """A launcher all of whose runs crash."""

    def __init__(self):
        self._jobs = []

    def has_room(self):
        return not self._jobs

    def start(self, job):
        self._jobs.append(job)

    def ended(self, seconds):
        done, self._jobs = self._jobs, []
        return [(job, Outcome("crashed", "Traceback\nMemoryError", 0.5)) for job in done]

    def close(self):
        pass


def test_a_run_that_crashes_is_tried_so_often_and_no_oftener(planned, tmp_path):
    runs, told = planned(SMALL)[:2], []
    watch = Watch(ended=lambda name, outcome, again: told.append(again))
    state = run_sweep(runs, tmp_path, Crashing, retries=2, watch=watch)
    assert set(state.failed) == {run.name for run in runs}
    assert sorted(row["attempt"] for row in attempts_in(tmp_path)) == [1, 1, 2, 2, 3, 3]
    assert sorted(told) == [False, False, True, True, True, True]
    with pytest.raises(SweepError, match="MemoryError; .*attempts.jsonl says why"):
        state.require_success(tmp_path)


def test_a_second_driver_is_refused(planned, workers, tmp_path):
    with journal(tmp_path), pytest.raises(RunBusyError, match="another process is at work in"):
        run_sweep(planned(SMALL), tmp_path, workers)


def test_half_a_line_of_a_killed_driver_is_ended(tmp_path):
    (tmp_path / "attempts.jsonl").write_text('{"run": "a", "att')
    with journal(tmp_path) as attempts:
        attempts.record(
            Job("b", "", RunConfig("program", "hist", "exact")), Outcome("finished", "", 1.0), 1
        )
    assert json.loads((tmp_path / "attempts.jsonl").read_text().splitlines()[0])["run"] == "b"


def test_workers_of_a_killed_driver_end(program, tmp_path):
    reading, writing = os.pipe()
    driver = os.fork()
    if driver == 0:
        launcher = CrewLauncher(ProcessCrew([Place(1), Place(1)], "fork"))
        pids = [actor.process.pid for actor in launcher.actors]
        os.write(writing, json.dumps(pids).encode() + b"\n")
        time.sleep(60)
        os._exit(0)
    with os.fdopen(reading) as pipe:
        pids = json.loads(pipe.readline())
    os.kill(driver, signal.SIGKILL)
    os.waitpid(driver, 0)
    deadline = time.monotonic() + 30
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_alive, pids))


def is_alive(pid):
    try:
        with Path(f"/proc/{pid}/stat").open() as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_every_worker_has_a_gpu_and_threads_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5,GPU-ab")
    assert [place.gpu for place in local_places(None, None, device="cuda")] == ["3", "5", "GPU-ab"]
    assert [place.gpu for place in local_places(8, 1, device="cuda")] == ["3", "5", "GPU-ab"]
    assert local_places(2, 3, device="cpu") == [Place(3), Place(3)]


def test_a_worker_sees_its_own_gpu_and_uses_its_threads(planned, tmp_path, monkeypatch):
    def say_what_it_sees(path, config, models):
        path.mkdir(parents=True)
        seen = os.environ["CUDA_VISIBLE_DEVICES"], torch.get_num_threads()
        (path / "seen").write_text(json.dumps(seen))

    monkeypatch.setattr("circuitfind.sweeps.work.run_discovery", say_what_it_sees)
    places = [Place(2, "5"), Place(3, "7")]
    run_sweep(planned(SMALL), tmp_path, lambda: CrewLauncher(ProcessCrew(places, "fork")))
    seen = {tuple(json.loads(file.read_text())) for file in tmp_path.rglob("seen")}
    assert seen <= {("5", 2), ("7", 3)}
    assert len(list(tmp_path.rglob("seen"))) == 4
