"""Run what a sweep planned: skip what is finished, repeat what crashed, survive being killed.

The driver keeps nothing but a journal. What is done is told from the run directories, so repeating
the command of a sweep that was interrupted, killed or extended does what is left.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from circuitfind.directories.work import ENVIRONMENT
from circuitfind.errors import RunDirectoryError, SweepError
from circuitfind.plugins import facts_in, plugin_facts
from circuitfind.question import BEGAN_WITH, require_same
from circuitfind.store import read_json
from circuitfind.sweeps.journal import ATTEMPTS, Journal, journal
from circuitfind.sweeps.launching import Launcher
from circuitfind.sweeps.planning import PlannedRun
from circuitfind.sweeps.work import Job, Outcome, directory_of

RUNS = "runs"
TICK = 0.2
"""Seconds between two looks at what runs."""


@dataclass(frozen=True)
class State:
    """Progress of a sweep.

    Attributes:
        total: Runs in all.
        finished: Runs that are finished, earlier ones included.
        failed: What the runs that failed said, by name.
        running: The directories of the runs that are being run, by name.
    """

    total: int
    finished: int
    failed: Mapping[str, str]
    running: Mapping[str, Path]

    def require_success(self, path: Path) -> None:
        """Raise an error that names the failed runs, if there are any.

        Raises:
            SweepError: Some did.
        """
        if self.failed:
            name, message = next(iter(self.failed.items()))
            raise SweepError(
                f"{len(self.failed)} of {self.total} runs failed, such as {name}: "
                f"{message.strip().splitlines()[-1]}; {path / ATTEMPTS} says why of each, and "
                "repeating the command tries them again"
            )


@dataclass(frozen=True)
class Watch:
    """Whom to tell how a sweep goes.

    Attributes:
        state: Called several times a second.
        ended: Called when a run ends, with the name, the outcome, and whether it is tried again.
    """

    state: Callable[[State], None] = lambda state: None
    ended: Callable[[str, Outcome, bool], None] = lambda name, outcome, again: None


def unfinished(runs: Sequence[PlannedRun], path: Path) -> list[PlannedRun]:
    """Return the runs that are left to do.

    Raises:
        SweepError: Directories hold other runs, or cannot be used; the message names all of them.
    """
    left, errors = [], []
    for run in runs:
        try:
            directory = directory_of(path / RUNS / run.name, run.config)
            directory.require_same()
            if not directory.is_complete:
                left.append(run)
                continue
            made = read_json(directory.path / ENVIRONMENT)
            found = f"the run in {directory.path}"
            require_same(facts_in(made), plugin_facts(), found, BEGAN_WITH)
        except RunDirectoryError as error:
            errors.append(str(error))
    if errors:
        raise SweepError("; ".join(errors))
    return left


def run_sweep(
    runs: Sequence[PlannedRun],
    path: Path,
    make_launcher: Callable[[], Launcher],
    *,
    retries: int = 2,
    watch: Watch | None = None,
) -> State:
    """Run what is left of a sweep.

    Args:
        runs: What is planned.
        path: The sweep's directory; the runs are below it, in `runs`.
        make_launcher: Makes the workers; called only if something is left.
        retries: How often a run that crashed is tried again. A run that fails, because something
            is wrong with it, is not.
        watch: Whom to tell how it goes.

    Raises:
        SweepError: Directories hold other runs.
        RunDirectoryError: Another process is at work in the directory, or it cannot be written.
    """
    with journal(path) as attempts:
        left = unfinished(runs, path)
        if not left:
            return State(len(runs), len(runs), {}, {})
        driver = _Driver(path, len(runs), len(runs) - len(left), retries, watch or Watch())
        launcher = make_launcher()
        try:
            return driver.drive(left, launcher, attempts)
        finally:
            launcher.close()


@dataclass
class _Driver:
    """Gives runs to workers until none is left."""

    path: Path
    total: int
    finished: int
    retries: int
    watch: Watch
    failed: dict[str, str] = field(default_factory=dict)
    running: dict[str, Path] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)

    def drive(self, left: Sequence[PlannedRun], launcher: Launcher, journal: Journal) -> State:
        waiting = deque(self._job(run) for run in left)
        while waiting or self.running:
            while waiting and launcher.has_room():
                job = waiting.popleft()
                self.running[job.name] = Path(job.path)
                self.attempts[job.name] += 1
                launcher.start(job)
            self.watch.state(self._state())
            for job, outcome in launcher.ended(TICK):
                journal.record(job, outcome, self.attempts[job.name])
                if self._is_tried_again(job, outcome):
                    waiting.append(job)
        self.watch.state(self._state())
        return self._state()

    def _job(self, run: PlannedRun) -> Job:
        return Job(run.name, str(self.path / RUNS / run.name), run.config)

    def _is_tried_again(self, job: Job, outcome: Outcome) -> bool:
        del self.running[job.name]
        again = outcome.kind == "crashed" and self.attempts[job.name] <= self.retries
        if outcome.kind == "finished":
            self.finished += 1
        elif not again:
            self.failed[job.name] = outcome.message
        self.watch.ended(job.name, outcome, again)
        return again

    def _state(self) -> State:
        return State(self.total, self.finished, dict(self.failed), dict(self.running))
