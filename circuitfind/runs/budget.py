"""Limits on what a run may take: time, after which it stops and can resume, and memory."""

import re
import time
from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

from circuitfind.errors import MethodError

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)")


@runtime_checkable
class Step(Protocol):
    """Anything that tells how far a computation is; as text, what a user is told of it."""

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...


StepT = TypeVar("StepT", bound=Step)


class BudgetSpentError(Exception):
    """The time is over before the search is; no fault, and nothing is lost."""


def seconds_of(text: str) -> float:
    """Return how many seconds a text like `90s`, `10m` or `1.5h` means.

    Raises:
        MethodError: It means none.
    """
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise MethodError(f"{text!r} is no amount of time; give one like 90s, 10m or 1.5h")
    return float(found[1]) * _SECONDS[found[2]]


def allowed_bytes(memory: int | str | None) -> int | None:
    """Return how many bytes are meant where they may be given as text, or not at all."""
    return bytes_of(memory) if isinstance(memory, str) else memory


def bytes_of(text: str) -> int:
    """Return how many bytes a text like `500MB` or `1.5GB` means; a GB is 10^9 bytes.

    Raises:
        MethodError: It means none.
    """
    found = _SIZE.fullmatch(text.strip().upper())
    if found is None:
        raise MethodError(f"{text!r} is no amount of memory; give one like 500MB or 1.5GB")
    return int(float(found[1]) * _BYTES[found[2]])


def within(
    seconds: float,
    on_progress: Callable[[StepT], None],
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[StepT], None]:
    """Return what is told of progress and raises once the time is over.

    Steps are written down before they are told, so the run resumes after the last one.

    Args:
        seconds: From now on.
        on_progress: Told first.
        clock: Returns the seconds since some moment.

    Raises:
        BudgetSpentError: The time is over and something is left to do.
    """
    end = clock() + seconds
    told = 0

    def watched(progress: StepT) -> None:
        nonlocal told
        told += 1
        on_progress(progress)
        # A resumed run tells first what it found, and must still get a step further.
        if told > 1 and progress.done < progress.total and clock() >= end:
            raise BudgetSpentError(str(progress))

    return watched
