"""Worker processes on this machine, and what any launcher of workers must offer."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, Protocol, runtime_checkable

from circuitfind.sweeps.work import Job, Outcome, Worker

StartMethod = Literal["spawn", "fork", "forkserver"]
_NEEDED = ["circuitfind.sweeps.work", "circuitfind.models.transformer_lens"]


@runtime_checkable
class Launcher(Protocol):
    """Has jobs done by workers."""

    def has_room(self) -> bool:
        """Return whether a worker is free."""
        ...

    def start(self, job: Job) -> None:
        """Give a job to a free worker."""
        ...

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Wait so long at most for jobs to end, and return those that did."""
        ...

    def close(self) -> None:
        """Stop all workers, whatever they are doing."""
        ...


@dataclass(frozen=True)
class Place:
    """Resources of a worker.

    Attributes:
        threads: Threads for computing.
        gpu: The one GPU that it sees, as CUDA names it; None for those without one.
    """

    threads: int
    gpu: str | None = None


@dataclass
class _Running:
    """A worker process, and what it is at."""

    process: Any
    channel: Connection
    place: Place
    job: Job | None = None
    since: float = field(default_factory=time.monotonic)


class LocalLauncher:
    """Workers on this machine, each a process that a crash takes down alone.

    Args:
        places: What each worker may use; there are as many workers.
        start_method: How Python starts processes. By default from a server that has loaded the
            libraries once, so that a worker that replaces another is there at once.
    """

    def __init__(self, places: Sequence[Place], start_method: StartMethod | None = None) -> None:
        chosen = start_method or usual_start_method()
        self._context = multiprocessing.get_context(chosen)
        if chosen == "forkserver":
            self._context.set_forkserver_preload(_NEEDED)
        self._workers = [self._begun(place) for place in places]

    def has_room(self) -> bool:
        return any(worker.job is None for worker in self._workers)

    def start(self, job: Job) -> None:
        free = next(worker for worker in self._workers if worker.job is None)
        free.job, free.since = job, time.monotonic()
        try:
            free.channel.send(tuple(job))
        except OSError:
            # It died idle; `ended` reports the job as crashed and replaces the worker.
            return

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        busy = [worker for worker in self._workers if worker.job is not None]
        ready = wait([worker.channel for worker in busy], seconds)
        return [self._received(worker) for worker in busy if worker.channel in ready]

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
            worker.channel.close()
        self._workers = []

    def _received(self, worker: _Running) -> tuple[Job, Outcome]:
        job = worker.job
        assert job is not None
        worker.job = None
        try:
            return job, Outcome(*worker.channel.recv())
        except (EOFError, OSError):
            worker.process.join()
            seconds = time.monotonic() - worker.since
            self._workers[self._workers.index(worker)] = self._begun(worker.place)
            worker.channel.close()
            return job, Outcome("crashed", _how(worker.process.exitcode), seconds)

    def _begun(self, place: Place) -> _Running:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, place), daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        return _Running(process, ours, place)


def usual_start_method() -> StartMethod:
    """Return how worker processes start where nobody says otherwise."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the worker was killed ({signal.Signals(-code).name})"
    return f"the worker ended with exit code {code}"


def _serve(channel: Connection, place: Place) -> None:
    """Do jobs until the driver is gone."""
    # Ctrl-C is for the driver, which then stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    worker = Worker(place.threads)
    while True:
        try:
            job = Job(*channel.recv())
        except EOFError:
            return
        outcome = worker.run(job)
        channel.send((outcome.kind, outcome.message, outcome.seconds))


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait([driver.sentinel])
    os._exit(1)


def local_places(n_workers: int | None, threads: int | None, *, device: str) -> list[Place]:
    """Share this machine out.

    Args:
        n_workers: How many workers; by default one per GPU, or one per two cores.
        threads: Threads for each; by default the cores are shared out evenly.
        device: What the runs compute on. With `cuda` every worker has a GPU of its own, so there
            are no more workers than GPUs.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus: list[str | None] = list(visible_gpus()) if device == "cuda" else []
    wanted = n_workers or len(gpus) or max(1, (cores or 1) // 2)
    n = min(wanted, len(gpus)) if gpus else wanted
    each = threads or max(1, (cores or 1) // n)
    return [Place(each, gpus[index] if gpus else None) for index in range(n)]


def visible_gpus() -> list[str]:
    """Return the GPUs that this process sees, as CUDA names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]
