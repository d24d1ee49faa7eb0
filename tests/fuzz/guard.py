"""What no file may bring about: another error than ours, a hang, a pickle, a write elsewhere."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from circuitfind.errors import CircuitfindError

SECONDS = 20
"""Longer than any case takes on a busy machine."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_CHANGING = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree")


class Guard:
    """Watches what this process does, through Python's audit events."""

    def __init__(self) -> None:
        self._allowed: tuple[str, ...] | None = None
        self.seen: list[str] = []
        # A hook cannot be taken back; outside `watching` it looks away.
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._allowed is None:
            return
        if event in ("pickle.find_class", "os.system", "socket.connect"):
            self.seen.append(f"{event} {arguments!r:.100}")
        elif event in _CHANGING or (event == "open" and _is_for_writing(arguments[2])):
            self._require_inside(event, arguments[0])

    def _require_inside(self, event: str, path: object) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            place = str(Path(os.fsdecode(path)).absolute())
            if self._allowed is not None and not place.startswith((*self._allowed, os.devnull)):
                self.seen.append(f"{event} {place}")

    @contextmanager
    def watching(self, *allowed: Path) -> Iterator[None]:
        self.seen.clear()
        self._allowed = tuple(map(str, allowed))
        signal.signal(signal.SIGALRM, _out_of_time)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._allowed = None
        assert not self.seen


def _is_for_writing(flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & _WRITING)


def _out_of_time(*arguments: object) -> None:
    raise AssertionError(f"it hangs: nothing after {SECONDS} s")


def refused(action: Callable[..., object], *arguments: object, **options: object) -> bool:
    """Do something, and tell whether it was refused with one of our errors, fit for a terminal."""
    try:
        action(*arguments, **options)
    except CircuitfindError as error:
        said = " ".join(str(error).split())
        assert said
        said.encode()
        return True
    return False
