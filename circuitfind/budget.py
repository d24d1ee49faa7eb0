"""Limits on what a run may take: time, after which it stops and can resume, and memory."""

import math
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar, runtime_checkable

from circuitfind.errors import MethodError, quoted
from circuitfind.limits import require

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


GRACE = 5.0
"""Seconds that a step may take beyond the budget before it is ended in its middle."""


class BudgetSpentError(BaseException):
    """The time is over before the search is; no fault, and nothing is lost.

    Like Ctrl-C, it is none of the errors that are caught around the code of others.
    """


def seconds_of(text: str | None) -> float:
    """Return how many seconds a text like `90s`, `10m` or `1.5h` means; without one, no limit.

    Raises:
        MethodError: It is not an amount of time.
        LimitError: It is outside the range of budgets.
    """
    if text is None:
        return math.inf
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise MethodError(
            f"{quoted(text)} is not an amount of time; give one like 90s, 10m or 1.5h"
        )
    seconds = float(found[1]) * _SECONDS[found[2]]
    require(budget=seconds)
    return seconds


def allowed_bytes(memory: int | str | None) -> int | None:
    """Return how many bytes are meant where they may be given as text, or not at all."""
    if isinstance(memory, str):
        return bytes_of(memory)
    require(memory=memory)
    return memory


def share_of(memory: int | str | None, n: int) -> int | None:
    """Return how many bytes each of n may take that are there at once; None without a limit."""
    allowed = allowed_bytes(memory)
    return None if allowed is None else max(1, allowed // n)


def shown_bytes(n: int | float) -> str:
    """Return a number of bytes in words: `1 kB`, `250 MB`, `1.5 GB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n / 1000:.3g} kB"


def bytes_of(text: str) -> int:
    """Return how many bytes a text like `500MB` or `1.5GB` means; a GB is 10^9 bytes.

    Raises:
        MethodError: It is not an amount of memory.
        LimitError: It is outside the range of memories.
    """
    found = _SIZE.fullmatch(text.strip().upper())
    if found is None:
        raise MethodError(
            f"{quoted(text)} is not an amount of memory; give one like 500MB or 1.5GB"
        )
    size = float(found[1]) * _BYTES[found[2]]
    # An infinite size is no whole number, and is refused like any that is too large.
    whole = int(size) if math.isfinite(size) else 10**16
    require(memory=whole)
    return whole


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """End what runs in this context, wherever it is, once the time and the grace are over.

    Searches stop by themselves between two steps (`within`). This ends what has no steps: loading a
    model, writing prompts, measuring a circuit.

    Raises:
        BudgetSpentError: The time is over.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if math.isinf(seconds) or not hasattr(signal, "setitimer") or not in_main_thread:
        yield
        return

    def end(*_: object) -> None:
        raise BudgetSpentError("the step that was under way is not done")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
