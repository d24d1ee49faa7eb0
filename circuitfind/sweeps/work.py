"""Work of one process: one run after the other, with the last model kept in memory."""

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import RunDirectory
from circuitfind.directories.ranking import RankingConfig, RankingDirectory
from circuitfind.directories.work import WorkDirectory
from circuitfind.errors import CircuitfindError, RunBusyError
from circuitfind.question import Models
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.ranking import measure_ranking

PATIENCE = 30.0
"""Seconds to wait for a directory that another process holds: a worker whose driver was killed may
still be about to end."""

Kind = Literal["finished", "failed", "crashed"]


class Job(NamedTuple):
    """One run for a worker: a name, the directory, and the settings."""

    name: str
    path: str
    config: RunConfig


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


def directory_of(path: Path, config: RunConfig) -> WorkDirectory[Any]:
    """Return the directory of a run: of a search, or of a measured ranking."""
    if isinstance(config, RankingConfig):
        return RankingDirectory(path, config)
    return RunDirectory(path, config)


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
            self._run(Path(job.path), job.config)
        except CircuitfindError as error:
            kind, message = "failed", " ".join(str(error).split())
        except Exception:  # noqa: BLE001 - a worker outlives whatever a run does
            kind, message = "crashed", traceback.format_exc()
        return Outcome(kind, message, time.monotonic() - started)

    def _run(self, path: Path, config: RunConfig) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if isinstance(config, RankingConfig):
                    measure_ranking(path, config, models=self._models)
                else:
                    run_discovery(path, config, models=self._models)
                return
            except RunBusyError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
