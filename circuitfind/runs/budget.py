"""A limit on the time of a run: it stops after a step, with everything written, and resumes."""

import re
import time
from collections.abc import Callable

from circuitfind.errors import MethodError
from circuitfind.methods.base import Progress

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")


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


def within(
    seconds: float,
    on_progress: Callable[[Progress], None],
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[Progress], None]:
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

    def watched(progress: Progress) -> None:
        on_progress(progress)
        if progress.done < progress.total and clock() >= end:
            raise BudgetSpentError(f"{progress.done} of {progress.total} edges are decided")

    return watched
