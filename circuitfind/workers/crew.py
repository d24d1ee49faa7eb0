"""What a worker is, wherever it runs: it holds one object and calls the methods that it is told.

Calls are made in the order in which they are sent. A worker that dies takes its object with it;
whoever sent the calls starts another one and decides what of its work to repeat.
"""

import pickle
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from circuitfind.errors import CircuitfindError
from circuitfind.limits import require
from circuitfind.plugins import load_named

Reply = tuple[bool, Any]
"""Whether a call returned, and what; otherwise the error that it raised."""


class LostError(Exception):
    """A worker that died before it answered; the message says how."""


@runtime_checkable
class Answer(Protocol):
    """The answer to a call, on its way."""

    def get(self) -> Any:
        """Wait for the answer.

        Raises:
            LostError: The worker died first.
            CircuitfindError: The call raised it.
        """
        ...


@runtime_checkable
class Actor(Protocol):
    """A worker."""

    def tell(self, method: str, *args: Any) -> None:
        """Have a method called; what it returns or raises is dropped."""
        ...

    def ask(self, method: str, *args: Any) -> Answer:
        """Have a method called for its answer."""
        ...

    def kill(self) -> None:
        """End the worker, whatever it is doing."""
        ...


@runtime_checkable
class Crew(Protocol):
    """Starts workers.

    Attributes:
        size: How many there is room for.
    """

    size: int

    def start(self, place: int, make: Callable[..., Any], *args: Any) -> Actor:
        """Start a worker that serves what `make` returns.

        Args:
            place: Which one of as many as there is room for.
            make: A class or a function, called in the worker.
            args: What it is given.
        """
        ...

    def ready(self, answers: Sequence[Answer], seconds: float) -> list[Answer]:
        """Wait so long at most for any of some answers, and return those that are there."""
        ...

    def close(self) -> None:
        """Let go of what workers were started with; they have been ended before."""
        ...


@dataclass(frozen=True)
class Workers:
    """Which workers a search is to have.

    Attributes:
        n: How many, this process included unless they are on a Ray cluster.
        ray: The address of the cluster, `auto`, or `local` to start one here; None for processes.
        shares: Into how many shares the prompts are split; by default one for each worker.
    """

    n: int = 1
    ray: str | None = None
    shares: int | None = None

    def __post_init__(self) -> None:
        require(workers=self.n)


ALONE = Workers()
"""This process alone."""


class Host:
    """Holds the object that a worker serves, in the worker."""

    def __init__(self) -> None:
        self._object: Any = None
        self._failure: Exception | None = None

    def make(self, make: Callable[..., Any], args: Sequence[Any]) -> None:
        """Make the object; if that fails, every call will say so."""
        try:
            load_named()
            self._object = make(*args)
        except Exception as error:  # noqa: BLE001 - told to whoever asks next
            self._failure = _as_sent(error)

    def call(self, method: str, args: Sequence[Any]) -> Reply:
        """Call one of the object's methods."""
        if self._failure is not None:
            return False, self._failure
        try:
            return True, getattr(self._object, method)(*args)
        except Exception as error:  # noqa: BLE001 - raised again where the answer is waited for
            return False, _as_sent(error)


def taken(reply: Reply) -> Any:
    """Return what a call returned, or raise what it raised."""
    returned, value = reply
    if not returned:
        raise value
    return value


def _as_sent(error: Exception) -> Exception:
    """Return an error as it can be sent: those that no user can act on with their traceback."""
    if isinstance(error, CircuitfindError):
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001 - errors of others can fail in any way
            return CircuitfindError(str(error))
        return error
    return RuntimeError("in a worker:\n" + "".join(traceback.format_exception(error)))
