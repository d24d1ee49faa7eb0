"""Workers as processes of this machine, each of which a crash takes down alone."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any, Literal

from circuitfind.plugins import VARIABLE
from circuitfind.workers.crew import Answer, Host, LostError, Reply, taken

StartMethod = Literal["spawn", "fork", "forkserver"]
_NEEDED = ["circuitfind.sweeps.work", "circuitfind.models.transformer_lens"]


@dataclass(frozen=True)
class Place:
    """Resources of a worker.

    Attributes:
        threads: Threads for computing.
        gpu: The one GPU that it sees, as CUDA names it; None for those without one.
    """

    threads: int
    gpu: str | None = None


class ProcessCrew:
    """Workers on this machine.

    Args:
        places: What each worker may use; there are as many workers.
        start_method: How Python starts processes. By default from a server that has loaded the
            libraries once, so that a worker that replaces another is there at once.
    """

    def __init__(self, places: Sequence[Place], start_method: StartMethod | None = None) -> None:
        self.places, self.size = places, len(places)
        chosen = start_method or usual_start_method()
        self._context = multiprocessing.get_context(chosen)
        if chosen == "forkserver":
            self._context.set_forkserver_preload(_NEEDED)

    def start(self, place: int, make: Callable[..., Any], *args: Any) -> "ProcessActor":
        return ProcessActor(self._context, self.places[place], make, args)

    def ready(self, answers: Sequence[Answer], seconds: float) -> list[Answer]:
        by_channel = {answer.actor.channel: answer for answer in answers}  # type: ignore[attr-defined]
        return [by_channel[channel] for channel in wait(list(by_channel), seconds)]

    def close(self) -> None:
        pass


class ProcessActor:
    """A worker process.

    Attributes:
        process: The process.
        channel: This end of what connects with it.
    """

    def __init__(
        self, context: Any, place: Place, make: Callable[..., Any], args: Sequence[Any]
    ) -> None:
        self.channel, theirs = context.Pipe()
        # The server that forks may have started before a plug-in was loaded here.
        plugins = os.environ.get(VARIABLE, "")
        self.process = context.Process(target=_serve, args=(theirs, place, plugins), daemon=True)
        self.process.start()
        theirs.close()
        self._asked = self._received = 0
        self._replies: dict[int, Reply] = {}
        self._send((make, args))

    def tell(self, method: str, *args: Any) -> None:
        self._send((method, args, False))

    def ask(self, method: str, *args: Any) -> "ProcessAnswer":
        self._send((method, args, True))
        self._asked += 1
        return ProcessAnswer(self, self._asked)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.channel.close()

    def reply(self, number: int) -> Reply:
        """Wait for the answer to a call.

        Raises:
            LostError: The process ended first.
        """
        while number not in self._replies:
            try:
                reply = self.channel.recv()
            except (EOFError, OSError):
                self.process.join()
                raise LostError(_how(self.process.exitcode)) from None
            self._received += 1
            self._replies[self._received] = reply
        return self._replies.pop(number)

    def _send(self, message: Any) -> None:
        try:
            self.channel.send_bytes(pickle.dumps(message))
        except OSError:
            # It has died; whoever waits for an answer is told.
            return


@dataclass(frozen=True, eq=False)
class ProcessAnswer:
    """The answer of a process, on its way."""

    actor: ProcessActor
    number: int

    def get(self) -> Any:
        return taken(self.actor.reply(self.number))


def usual_start_method() -> StartMethod:
    """Return how worker processes start where nobody says otherwise."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the worker was killed ({signal.Signals(-code).name})"
    return f"the worker ended with exit code {code}"


def _serve(channel: Connection, place: Place, plugins: str) -> None:
    """Make the calls that are sent, until the driver is gone."""
    # Ctrl-C is for the driver, which then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ[VARIABLE] = plugins
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    messages: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(channel, messages), daemon=True).start()
    import torch

    torch.set_num_threads(place.threads)
    host = Host()
    host.make(_made, (messages.get(),))
    while True:
        method, args, is_asked = pickle.loads(messages.get())
        reply = host.call(method, args)
        if is_asked:
            channel.send(reply)


def _made(message: bytes) -> Any:
    make, args = pickle.loads(message)
    return make(*args)


def _receive(channel: Connection, messages: "SimpleQueue[bytes]") -> None:
    """Take messages while the worker computes, so that who sends one need not wait."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    try:
        while channel in wait([channel, driver.sentinel]):
            messages.put(channel.recv_bytes())
    finally:
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
