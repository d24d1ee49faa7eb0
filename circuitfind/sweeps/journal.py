"""Journal of a sweep: a line per attempt, and a lock against a second driver."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from circuitfind.store import Log, at_work
from circuitfind.sweeps.work import Job, Outcome

ATTEMPTS = "attempts.jsonl"
PATIENCE = 3.0
"""Seconds to wait for the workers of a killed driver to end, which hold what it held."""


class Journal:
    """The attempts of one sweep."""

    def __init__(self, log: Log) -> None:
        self._log = log

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
        self._log.write([json.dumps(values, ensure_ascii=False).encode() + b"\n"])


@contextmanager
def journal(path: Path) -> Iterator[Journal]:
    """Open the journal of a sweep's directory, and keep other drivers out of it.

    Raises:
        RunDirectoryError: Another process is at work there, or it cannot be written.
    """
    with at_work(path, patience=PATIENCE), Log(path / ATTEMPTS) as log:
        yield Journal(log)
