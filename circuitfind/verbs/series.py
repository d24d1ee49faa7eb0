"""From what a user asks for to one run or several: a threshold, a list of them, or a target.

In a series, each threshold is an ordinary run in a directory of its own, so an interrupted series
resumes where it was. Where a target was searched for, `thresholds.json` says which run came out
best.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import TRIALS, TRIALS_FORMAT
from circuitfind.directories.results import RunResult
from circuitfind.directories.work import CONFIG, read_config
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError, RunDirectoryError
from circuitfind.evaluation.trust import foreword, own_of
from circuitfind.files import write_whole
from circuitfind.methods.base import Progress
from circuitfind.methods.threshold import Target, Trial, search_threshold, suggest_threshold
from circuitfind.methods.wanted import Wanted
from circuitfind.problem import Problem
from circuitfind.question import Models
from circuitfind.records import body_of
from circuitfind.store import read_json, reported
from circuitfind.verbs.automatic import AutomaticRun, is_threshold, trial_of
from circuitfind.verbs.discover import run_discovery
from circuitfind.workers.crew import ALONE, Workers

MOST_SEARCHES = 10
"""How many searches a target may take."""


@dataclass(frozen=True)
class Observer:
    """Whom to tell how things go.

    Attributes:
        progress: Called as each search proceeds.
        tell: Called with what a user should know.
    """

    progress: Callable[[Progress], None] = lambda progress: None
    tell: Callable[[str], None] = lambda message: None


def run_wanted(
    path: Path,
    config: RunConfig,
    wanted: Wanted,
    observer: Observer | None = None,
    workers: Workers = ALONE,
) -> list[RunResult]:
    """Run what is asked for.

    Args:
        path: The run directory; of a series, the directory of its run directories.
        config: The settings; thresholds and numbers of edges come from `wanted`.
        wanted: Which circuit.
        observer: Whom to tell how things go.
        workers: Who evaluates cuts.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    wanted.require_fit(config.method)
    each = wanted.options_for(config.method)
    first = replace(config, options={**config.options, **(each[0] if each else {})})
    first.validate(any_threshold=not each)
    runs = _Runs(path, config, observer or Observer(), workers)
    if len(each) == 1:
        return [runs.single(**each[0])]
    if each:
        return runs.each(wanted.thresholds)
    return [runs.automatic() if wanted.target is None else runs.towards(wanted.target)]


class _Runs:
    """Runs that differ in their threshold alone, with one model for all of them.

    Args:
        path: The run directory, or the one that holds the runs of a series.
        config: Their settings, without threshold and number of edges.
        observer: Whom to tell how things go.
        workers: Who evaluates cuts.
    """

    def __init__(self, path: Path, config: RunConfig, observer: Observer, workers: Workers) -> None:
        self._path, self._config, self._workers = path, config, workers
        self._observer = replace(observer, tell=_told_once(observer.tell))
        self._models = Models(tell=self._observer.tell)
        self._results: list[RunResult] = []

    def single(self, **options: Any) -> RunResult:
        """Run with some more options, in the directory itself."""
        config = replace(self._config, options={**self._config.options, **options})
        return self._run(self._path, config)

    def automatic(self) -> RunResult:
        """Run with the largest threshold tried whose circuit does the task."""
        run = AutomaticRun(self._path, self._automatically, self._suggestion, self._observer.tell)
        return run.result()

    def _automatically(self, threshold: float) -> RunResult:
        return self._run(self._path, replace(self._config.at(threshold), automatic=True))

    def each(self, thresholds: Sequence[float]) -> list[RunResult]:
        """Run every threshold."""
        self._require_series()
        for threshold in thresholds:
            self._member(threshold)
        return self._results

    def towards(self, target: Target) -> RunResult:
        """Search for the threshold that meets a target best.

        Raises:
            MethodError: No threshold that was tried meets it.
        """
        self._require_series()
        start = self._earlier_start()
        if start is None:
            self._require_possible(target)
            start = self._suggestion()
        trials: list[Trial] = []

        def attempt(threshold: float) -> Trial:
            result = self._member(float(f"{threshold:.4g}"))
            trials.append(trial_of(threshold, result.card))
            self._write(start, trials)
            self._observer.tell(
                f"search {len(trials)} of at most {MOST_SEARCHES}: threshold {threshold:.4g} keeps "
                f"{trials[-1]}"
            )
            return trials[-1]

        best, _ = search_threshold(attempt, target, start, n_trials=MOST_SEARCHES)
        self._write(start, trials, best)
        chosen = self._results[trials.index(best)]
        self._observer.tell(f"the best of {len(trials)} thresholds is that of {chosen.path}")
        return chosen

    def _member(self, threshold: float) -> RunResult:
        result = self._run(self._path / f"threshold-{threshold}", self._config.at(threshold))
        self._results.append(result)
        return result

    def _run(self, path: Path, config: RunConfig) -> RunResult:
        observer = self._observer
        return run_discovery(
            path,
            config,
            models=self._models,
            workers=self._workers,
            on_progress=observer.progress,
            tell=observer.tell,
        )

    def _suggestion(self) -> float:
        engine = IncrementalEngine(self._problem(), self._config.memory)
        for line in foreword(own_of(engine), engine.problem):
            self._observer.tell(line)
        return suggest_threshold(engine, seed=self._config.seed)

    def _problem(self) -> Problem:
        return self._config.problem(self._models.of(self._config))

    def _require_possible(self, target: Target) -> None:
        """Refuse to look for more edges than there are.

        Raises:
            MethodError: The message says how many there are.
        """
        n_edges = self._problem().graph.n_edges
        if target.n_edges is not None and target.n_edges > n_edges:
            raise MethodError(
                f"--target-edges asks for up to {target.n_edges:.12g} edges and the model has "
                f"{n_edges}; give at most that"
            )

    def _require_series(self) -> None:
        """Refuse a directory that holds anything but runs that differ in their threshold alone.

        Raises:
            RunDirectoryError: The message says what it holds.
        """
        with reported(self._path):
            items = list(self._path.iterdir()) if self._path.exists() else []
            members = [item for item in items if item.name.startswith("threshold-")]
            if {item.name for item in items} - {item.name for item in members} - {TRIALS}:
                raise RunDirectoryError(
                    f"{self._path} holds something else than runs with several thresholds; choose "
                    "another --out"
                )
            for member in members:
                if (member / CONFIG).is_file():
                    self._require_alike(member)

    def _require_alike(self, member: Path) -> None:
        found = read_config(RunConfig, member)
        wanted = self._config.at(found.threshold).pinned()
        different = "; ".join(wanted.differences(found))
        if different:
            raise RunDirectoryError(
                f"{self._path} holds other runs ({different}); choose another --out"
            )

    def _earlier_start(self) -> float | None:
        """Return the threshold at which an earlier search for a target in this directory began."""
        file = self._path / TRIALS
        try:
            stored = read_json(file) if file.is_file() else {}
            start = body_of(stored, TRIALS_FORMAT, file, optional=True).get("start")
        except (RunDirectoryError, ValueError):
            return None
        return float(start) if is_threshold(start) else None

    def _write(self, start: float, trials: Sequence[Trial], best: Trial | None = None) -> None:
        rows = [
            {
                "run": result.path.name,
                "n_edges": trial.n_edges,
                "faithfulness": trial.faithfulness,
                "best": trial is best,
            }
            for trial, result in zip(trials, self._results, strict=True)
        ]
        with reported(self._path):
            content = {"format": TRIALS_FORMAT, "start": start, "trials": rows}
            write_whole(self._path / TRIALS, json.dumps(content, indent=1) + "\n")


def _told_once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Return what tells each message once: each run of a series says how well the model does."""
    told: set[str] = set()

    def tell_new(message: str) -> None:
        if message not in told:
            told.add(message)
            tell(message)

    return tell_new
