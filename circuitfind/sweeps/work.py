"""Work of one process: one run after the other, with the last model kept in memory."""

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from circuitfind.directories.config import RunConfig
from circuitfind.errors import CircuitfindError, RunBusyError
from circuitfind.question import Models
from circuitfind.verbs.discover import run_discovery

PATIENCE = 30.0
"""Seconds to wait for a directory that another process holds: a worker whose driver was killed may
still be about to end."""

Kind = Literal["finished", "failed", "crashed"]


class Job(NamedTuple):
    """One run for a worker: a name, the directory, and the settings as plain values."""

    name: str
    path: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    Attributes:
        kind: `finished`; `failed`, for a reason that a repetition will not change; or `crashed`.
        message: What there is to say of it; empty if it finished.
        seconds: How long it took.
    """

    kind: Kind
    message: str
    seconds: float


class Worker:
    """Runs jobs in this process."""

    def __init__(self) -> None:
        # The last model goes first, so that there are never two.
        self._models = Models(most=1)

    def run(self, job: Job) -> Outcome:
        """Run a job to its end, whatever that is."""
        started = time.monotonic()
        kind: Kind = "finished"
        message = ""
        try:
            self._run(Path(job.path), RunConfig(**job.settings))
        except CircuitfindError as error:
            kind, message = "failed", " ".join(str(error).split())
        except Exception:  # noqa: BLE001 - a worker outlives whatever a run does
            kind, message = "crashed", traceback.format_exc()
        return Outcome(kind, message, time.monotonic() - started)

    def _run(self, path: Path, config: RunConfig) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                run_discovery(path, config, models=self._models)
                return
            except RunBusyError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
