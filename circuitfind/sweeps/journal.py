"""The journal of a sweep: a line per attempt, and a lock against a second driver."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from circuitfind.errors import RunBusyError
from circuitfind.files import write_all
from circuitfind.runs.directory import lock, reported
from circuitfind.sweeps.work import Job, Outcome

ATTEMPTS = "attempts.jsonl"
PATIENCE = 3.0
"""Seconds to wait for the workers of a killed driver to end, which hold what it held."""


class Journal:
    """The attempts of one sweep; a line that a killed driver left half is ended first."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        content = file.read()
        if content and not content.endswith(b"\n"):
            write_all(file, b"\n")

    def record(self, job: Job, outcome: Outcome, attempt: int) -> None:
        """Write an attempt down.

        Raises:
            RunDirectoryError: It cannot be written.
        """
        values = {
            "run": job.name,
            "attempt": attempt,
            "outcome": outcome.kind,
            "seconds": round(outcome.seconds, 3),
            "message": outcome.message,
        }
        with reported(self._path):
            write_all(self._file, json.dumps(values, ensure_ascii=False).encode() + b"\n")


@contextmanager
def journal(path: Path) -> Iterator[Journal]:
    """Open the journal of a sweep's directory, and keep other drivers out of it.

    Raises:
        RunDirectoryError: Another process is at work there, or it cannot be written.
    """
    with reported(path):
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / ATTEMPTS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        _hold(file, path)
        yield Journal(file, path)


def _hold(file: BinaryIO, path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            lock(file, path)
            return
        except RunBusyError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
