"""Workers on a Ray cluster: the only file that imports Ray.

Every node must have circuitfind installed, and see the files that the work names under the same
paths. Ray never repeats anything by itself, so that repetitions are counted in one place.
"""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from circuitfind.errors import WorkerError
from circuitfind.plugins import VARIABLE
from circuitfind.workers.crew import Answer, Host, LostError, taken


class RayCrew:
    """Workers on a Ray cluster.

    Args:
        address: `auto`, the address of a cluster, or `local` to start one in this process.
        n_workers: How many workers at most; by default as many as the cluster has room for.
        threads: CPUs of each worker.
        gpu: Give each worker a GPU of its own.

    Raises:
        WorkerError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str, n_workers: int | None, threads: int, *, gpu: bool) -> None:
        self._ray, self._is_ours = _connected(address)
        resources = self._ray.cluster_resources()
        room = int(resources.get("GPU", 0) if gpu else resources.get("CPU", 1) // threads)
        if room < 1:
            raise WorkerError(
                f"the Ray cluster at {address!r} has no room for a worker ({resources}); add nodes"
            )
        self.size = min(n_workers or room, room)
        # A lost actor is replaced by whoever asked it, and not by Ray.
        options = {"num_cpus": threads, "num_gpus": int(gpu), "max_restarts": 0}
        self._host = self._ray.remote(**options)(RayHost)
        self._threads = threads

    def start(self, place: int, make: Callable[..., Any], *args: Any) -> "RayActor":
        actor = RayActor(self._ray, self._host.remote(self._threads))
        actor.tell_host("make", make, args)
        return actor

    def ready(self, answers: Sequence[Answer], seconds: float) -> list[Answer]:
        by_reference = {answer.reference: answer for answer in answers}  # type: ignore[attr-defined]
        if not by_reference:
            return []
        ready, _ = self._ray.wait(list(by_reference), timeout=seconds)
        return [by_reference[reference] for reference in ready]

    def close(self) -> None:
        if self._is_ours:
            self._ray.shutdown()


class RayHost(Host):
    """Holds the object of a worker, in the worker.

    Args:
        threads: Threads for computing.
    """

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        super().__init__()


@dataclass(frozen=True)
class RayActor:
    """A worker on a Ray cluster.

    Attributes:
        ray: The library.
        handle: The actor.
    """

    ray: Any
    handle: Any

    def tell_host(self, method: str, *args: Any) -> Any:
        """Call the host itself, and return what stands for the answer."""
        return getattr(self.handle, method).remote(*args)

    def tell(self, method: str, *args: Any) -> None:
        self.tell_host("call", method, args)

    def ask(self, method: str, *args: Any) -> "RayAnswer":
        return RayAnswer(self.ray, self.tell_host("call", method, args))

    def kill(self) -> None:
        self.ray.kill(self.handle)


@dataclass(frozen=True, eq=False)
class RayAnswer:
    """The answer of an actor, on its way."""

    ray: Any
    reference: Any

    def get(self) -> Any:
        try:
            reply = self.ray.get(self.reference)
        except self.ray.exceptions.RayError as error:
            raise LostError(str(error).splitlines()[0]) from None
        return taken(reply)


def _connected(address: str) -> tuple[Any, bool]:
    """Return Ray, connected, and whether the connection is ours to end."""
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise WorkerError(
            "--ray needs Ray, which is not installed; pip install 'circuitfind[ray]'"
        ) from None
    if ray.is_initialized():
        return ray, False
    try:
        _knock(address)
        plugins = {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}
        extra = {"runtime_env": {"env_vars": plugins}} if plugins else {}
        ray.init(address=address, log_to_driver=False, logging_level="error", **extra)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise WorkerError(
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
