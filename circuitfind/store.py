"""Working directories: one process at a time, nothing lost, nothing half-written.

What every command that writes a directory shares: the lock that keeps other processes out, the log
that grows line by line, and the words for what the file system refuses. The lock is one of the
operating system on the directory itself: it ends with the process, however that ends, and leaves
no file behind. Where the file system locks files alone (NFS), it is on a file in the directory;
where it locks nothing, the user is warned and the work goes on.
"""

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from circuitfind.errors import (
    CircuitfindError,
    NoLockWarning,
    RunBusyError,
    RunDirectoryError,
    shortened,
)
from circuitfind.files import read_bytes, write_all, write_whole
from circuitfind.records import parse_json

try:
    import fcntl
except ImportError:  # not on Windows, where nothing keeps two processes apart
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock.tmp"
"""The file that is locked where a directory cannot be. It stays: to delete it would let two in."""

STATE = "state.safetensors"
"""The checkpoint of what is computed in a directory."""


class Log:
    """A file of JSON values, a line each, that only grows or is written anew from some line on.

    A line counts when it ends: what an interrupted write left is written over. Each line is handed
    to the operating system at once.

    Attributes:
        head: The line that names the format; empty where the file names none.
        lines: All other whole lines.

    Args:
        path: The file; made if it does not exist.
        head: The line with which a new file begins.

    Raises:
        RunDirectoryError: The file cannot be opened.
    """

    def __init__(self, path: Path, head: bytes = b"") -> None:
        self._path = path
        with reported(path.parent):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            # Unbuffered, so that a write that fails is not tried again when the file is closed.
            self._file = os.fdopen(descriptor, "r+b", buffering=0)
            self.head, self.lines = parts(read_bytes(path))
        if not self.lines:
            self.head = head

    def write(self, lines: Sequence[bytes], after: int | None = None) -> None:
        """Write lines at the end, or in place of all that follow the first so many.

        Raises:
            RunDirectoryError: They cannot be written.
        """
        kept = self.lines[:after]
        try:
            self._file.seek(len(self.head) + sum(map(len, kept)) if kept else 0)
            self._file.truncate()
            write_all(self._file, b"".join(lines if kept else [self.head, *lines]))
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write {self._path}: {error.strerror}; make that possible and repeat the "
                "command to resume"
            ) from error
        self.lines = [*kept, *lines]

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parts(content: bytes) -> tuple[bytes, list[bytes]]:
    """Return the line of a log that names its format, if one does, and all others that are whole.

    Each line holds its line break.
    """
    lines = [line + b"\n" for line in content.split(b"\n")[:-1]]
    headed = bool(lines) and lines[0].startswith(b'{"format"')
    return (lines[0], lines[1:]) if headed else (b"", lines)


@contextmanager
def at_work(path: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Make a directory and keep other processes out of it; if an error leaves it empty, remove it.

    Args:
        path: The directory.
        patience: Seconds to wait for a process that may be about to end.

    Raises:
        RunBusyError: Another process is at work in it.
        RunDirectoryError: It cannot be made.
    """
    with reported(path):
        made = [place for place in (path, *path.parents) if not place.exists()]
        path.mkdir(parents=True, exist_ok=True)
    try:
        with held(path, patience=patience):
            yield
    except CircuitfindError:
        for place in made:
            with suppress(OSError):
                place.rmdir()
        raise


@contextmanager
def held(path: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Keep other processes out of a directory.

    Raises:
        RunBusyError: Another process is at work in it.
    """
    if fcntl is None:
        yield
        return
    end = time.monotonic() + patience
    with reported(path):
        while (descriptor := _lock(path)) is None:
            if time.monotonic() >= end:
                raise RunBusyError(
                    f"another process is at work in {path}; wait until it is done, or choose "
                    "another --out"
                )
            time.sleep(0.1)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Return a descriptor whose lock keeps others out; None while another process holds it."""
    for file, flags in ((path, os.O_RDONLY), (path / LOCK, os.O_RDWR | os.O_CREAT)):
        descriptor = os.open(file, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            reason = error.strerror
        else:
            return descriptor
    warnings.warn(
        f"the file system of {path} has no locks ({reason}), so nothing keeps two processes apart "
        "there; start one command at a time in a directory",
        NoLockWarning,
        stacklevel=2,
    )
    return os.open(path, os.O_RDONLY)


def is_held(path: Path) -> bool:
    """Return whether a process is at work in a directory.

    Raises:
        RunDirectoryError: It cannot be opened.
    """
    try:
        with held(path):
            return False
    except RunBusyError:
        return True


def write(path: Path, content: str | bytes) -> None:
    """Write a file in one step.

    Raises:
        RunDirectoryError: It cannot be written; what was there before is still there.
    """
    with reported(path.parent):
        write_whole(path, content)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        RunDirectoryError: The file is missing or damaged.
    """
    with reported(path.parent):
        try:
            return parse_json(read_bytes(path))
        except ValueError as error:
            raise RunDirectoryError(
                f"{path} is damaged ({error}); delete it to compute it again"
            ) from None


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn what the file system says into one line that names the directory."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunDirectoryError(
            f"cannot use the run directory {shortened(str(path))}: {reason}; "
            "free some space, change its permissions, or choose another --out"
        ) from error
