"""A run whose threshold is chosen by the program: in its directory, or in memory.

The run uses its own directory for one threshold after another
(`methods.threshold.automatic_threshold`). When a threshold has to be given up, the finished run
with it moves to `tried/threshold-X` below, so nothing is searched twice, and `thresholds.json` says
how each did. Where the first threshold is good, as is usual, there is neither. Files move one by
one, the settings last, so a move that was interrupted is continued.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from circuitfind import records
from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import TRIALS, TRIALS_FORMAT, TRIED
from circuitfind.directories.results import RunResult
from circuitfind.directories.work import CONFIG, read_config
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import RunDirectoryError, quoted
from circuitfind.evaluation.scorecard import Scorecard, scorecard
from circuitfind.files import read_bytes, write_whole
from circuitfind.methods.search import Found
from circuitfind.methods.threshold import Trial, automatic_threshold, rounded, suggest_threshold
from circuitfind.metrics import ACCURACY
from circuitfind.records import parse_json
from circuitfind.store import reported


def trial_of(threshold: float, card: Scorecard) -> Trial:
    """Return how a threshold did, from the scorecard of its circuit."""
    own = card.measurements[0]
    accuracy = next((each for each in card.measurements if each.metric == ACCURACY.name), None)
    kept = accuracy.circuit / accuracy.full if accuracy and accuracy.full > 0 else None
    return Trial(threshold, card.n_edges, own.faithfulness, kept)


def automatic_search(
    engine: IncrementalEngine,
    search: Callable[[float], Found],
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda message: None,
) -> Found:
    """Search with the automatic threshold, in memory.

    Args:
        engine: The problem, made ready to cut edges.
        search: Searches with a threshold.
        seed: Fixes the edges whose noise is measured.
        tell: Called with what a user should know of each threshold.

    Raises:
        MethodError: The metric shows no noise, or a search failed.
    """
    found: dict[float, Found] = {}

    def attempt(threshold: float) -> Trial:
        found[threshold] = search(threshold)
        return trial_of(threshold, scorecard(engine, found[threshold].circuit))

    start = rounded(suggest_threshold(engine, seed=seed))
    best, _ = automatic_threshold(attempt, start, tell=tell)
    return found[best.threshold]


@dataclass(frozen=True)
class Tried:
    """Content of `thresholds.json`: the first threshold, and the result of each that was tried."""

    start: float
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class AutomaticRun:
    """A run whose threshold is chosen by the program.

    Attributes:
        path: The run directory.
        run: Runs, resumes or reads the run there with a threshold.
        suggest: Returns the first threshold.
        tell: Called with what a user should know of each threshold.
    """

    path: Path
    run: Callable[[float], RunResult]
    suggest: Callable[[], float]
    tell: Callable[[str], None]

    def result(self) -> RunResult:
        """Run until a circuit does the task.

        Raises:
            RunDirectoryError: The directory holds another run, or something else.
        """
        there = self._there()
        if there is not None and not there.automatic:
            return self.run(rounded(self.suggest()))
        tried = self._tried()
        if tried is None:
            start = rounded(self.suggest()) if there is None else self._threshold(there)
            tried = Tried(start, ())
        start, trials = tried.start, list(tried.trials)
        latest: dict[float, RunResult] = {}

        def attempt(threshold: float) -> Trial:
            latest.clear()
            latest[threshold] = self._at(threshold)
            trials.append(trial_of(threshold, latest[threshold].card))
            if len(trials) > 1 or not trials[0].does_the_task:
                self._write(Tried(start, tuple(trials)))
            return trials[-1]

        best, _ = automatic_threshold(attempt, start, tried.trials, self.tell)
        return latest.get(best.threshold) or self._at(best.threshold)

    def _at(self, threshold: float) -> RunResult:
        """Run with a threshold, after the run with another one has made room."""
        there = self._there()
        with reported(self.path):
            if there is not None and there.automatic and self._threshold(there) != threshold:
                _move(self.path, self._place(self._threshold(there)))
            if (self._place(threshold) / CONFIG).is_file():
                _move(self._place(threshold), self.path)
        return self.run(threshold)

    def _place(self, threshold: float) -> Path:
        return self.path / TRIED / f"threshold-{threshold}"

    def _threshold(self, there: RunConfig) -> float:
        value = there.threshold
        if not is_threshold(value):
            raise RunDirectoryError(
                f"{self.path / CONFIG} is damaged (its threshold is {quoted(value)}); choose "
                "another --out, or delete the directory to begin again"
            )
        return float(value)

    def _there(self) -> RunConfig | None:
        """Return the settings of the run in the directory, if there is one."""
        there = (self.path / CONFIG).is_file()
        return read_config(RunConfig, self.path) if there else None

    def _tried(self) -> Tried | None:
        """Return what an earlier call has tried; None if that is nothing, or cannot be read."""
        with reported(self.path):
            file = self.path / TRIALS
            if not file.is_file():
                return None
            try:
                stored = parse_json(read_bytes(file))
                content = records.body_of(stored, TRIALS_FORMAT, file, optional=True)
                found: Tried = records.from_json(Tried, content)
            except ValueError:
                return None
        return found if _is_sound(found) else None

    def _write(self, tried: Tried) -> None:
        with reported(self.path):
            content = {"format": TRIALS_FORMAT, **records.as_json(tried)}
            write_whole(self.path / TRIALS, json.dumps(content, indent=1) + "\n")


def is_threshold(value: object) -> TypeGuard[float]:
    """Return whether a stored value can be a threshold at which a search begins."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return sys.float_info.min <= value <= sys.float_info.max


def _is_sound(tried: Tried) -> bool:
    """Return whether stored trials are those of halving a first threshold."""
    halved: Sequence[float] = [trial.threshold for trial in tried.trials]
    pairs = zip(halved, halved[1:], strict=False)
    return (
        is_threshold(tried.start)
        and halved[:1] == [tried.start]
        and all(0 < lower < higher for higher, lower in pairs)
    )


def _move(source: Path, target: Path) -> None:
    """Move a run to another directory, its settings last."""
    target.mkdir(parents=True, exist_ok=True)
    names = [item.name for item in source.iterdir() if item.name not in (TRIED, TRIALS)]
    for name in sorted(names, key=lambda name: (name == CONFIG, name)):
        (source / name).replace(target / name)
