"""Workers on a Ray cluster: the only file that imports Ray.

Every node must see the sweep's directory under the same path and have circuitfind installed. Each
worker is an actor that keeps its model from run to run; Ray never repeats a run by itself, so that
repetitions are counted in one place.
"""

import socket
import time
from typing import Any

from circuitfind.errors import SweepError
from circuitfind.sweeps.work import Job, Outcome, Worker


class RayLauncher:
    """Workers on a Ray cluster.

    Args:
        address: `auto`, the address of a cluster, or `local` to start one in this process.
        n_workers: How many workers; by default as many as the cluster has room for.
        threads: CPUs of each worker.
        gpu: Give each worker a GPU of its own.

    Raises:
        SweepError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str, n_workers: int | None, threads: int, *, gpu: bool) -> None:
        self._ray, self._is_ours = _connected(address)
        resources = self._ray.cluster_resources()
        room = int(resources.get("GPU", 0) if gpu else resources.get("CPU", 1) // threads)
        if room < 1:
            raise SweepError(
                f"the Ray cluster at {address!r} has no room for a worker ({resources}); add nodes"
            )
        # A crashed actor is replaced here and not by Ray, which would repeat its run.
        options = {"num_cpus": threads, "num_gpus": int(gpu), "max_restarts": 0}
        self._make = self._ray.remote(**options)(Worker).remote
        self._threads = threads
        self._free = [self._make(threads) for _ in range(min(n_workers or room, room))]
        self._running: dict[Any, tuple[Any, Job, float]] = {}

    def has_room(self) -> bool:
        return bool(self._free)

    def start(self, job: Job) -> None:
        worker = self._free.pop()
        self._running[worker.run.remote(job)] = worker, job, time.monotonic()

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), timeout=seconds)
        return [self._received(reference) for reference in ready]

    def close(self) -> None:
        for worker in [*self._free, *(worker for worker, *_ in self._running.values())]:
            self._ray.kill(worker)
        self._free, self._running = [], {}
        if self._is_ours:
            self._ray.shutdown()

    def _received(self, reference: Any) -> tuple[Job, Outcome]:
        worker, job, since = self._running.pop(reference)
        try:
            outcome: Outcome = self._ray.get(reference)
            self._free.append(worker)
        except self._ray.exceptions.RayError as error:
            outcome = Outcome("crashed", str(error).splitlines()[0], time.monotonic() - since)
            self._free.append(self._make(self._threads))
        return job, outcome


def _connected(address: str) -> tuple[Any, bool]:
    """Return Ray, connected, and whether the connection is ours to end."""
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise SweepError(
            "--ray needs Ray, which is not installed; pip install 'circuitfind[ray]'"
        ) from None
    if ray.is_initialized():
        return ray, False
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise SweepError(
            f"there is no Ray cluster at {address!r} ({reason}); start one with "
            "`ray start --head`, or give --ray local"
        ) from None
    return ray, True


def _knock(address: str) -> None:
    """See whether anybody answers at an address, because Ray itself would wait for minutes.

    Raises:
        OSError: Nobody does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()
