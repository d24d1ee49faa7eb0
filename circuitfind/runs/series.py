"""From what a user asks for to one run or several: a threshold, a list of them, or a target.

In a series, each threshold is an ordinary run in a directory of its own, so an interrupted series
resumes where it was, and `thresholds.json` says which run came out best.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.methods.base import Progress
from circuitfind.methods.threshold import Target, Trial, search_threshold, suggest_threshold
from circuitfind.models.base import ResidualModel
from circuitfind.models.loading import load_model
from circuitfind.runs.config import RunConfig
from circuitfind.runs.discover import RunResult, problem_of, run_discovery

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Wanted:
    """Which circuit is asked for; at most one of the four.

    Attributes:
        threshold: A number, several separated by commas, or `auto`.
        n_edges: How many edges the method `exact` keeps.
        target_edges: How many edges ACDC should keep at most.
        target_faithfulness: How faithful ACDC's circuit should be at least.
    """

    threshold: str | None = None
    n_edges: int | None = None
    target_edges: int | None = None
    target_faithfulness: float | None = None

    def __post_init__(self) -> None:
        given = (self.threshold, self.n_edges, self.target_edges, self.target_faithfulness)
        if sum(value is not None for value in given) > 1:
            raise MethodError(
                "--threshold, --edges, --target-edges and --target-faithfulness exclude one "
                "another; give one of them"
            )

    @property
    def target(self) -> Target | None:
        if self.target_edges is None and self.target_faithfulness is None:
            return None
        return Target(self.target_edges, self.target_faithfulness)

    @property
    def thresholds(self) -> list[float]:
        """The thresholds in numbers.

        Raises:
            MethodError: One is no number.
        """
        try:
            return [float(text) for text in (self.threshold or "").split(",")]
        except ValueError:
            raise MethodError(
                f"the threshold {self.threshold!r} is no number; give one in the metric's unit, "
                "several separated by commas, or auto"
            ) from None


def run_wanted(
    path: Path,
    config: RunConfig,
    wanted: Wanted,
    *,
    on_progress: OnProgress = lambda progress: None,
    tell: Callable[[str], None] = lambda message: None,
) -> list[RunResult]:
    """Run what is asked for.

    Args:
        path: The run directory; of a series, the directory of its run directories.
        config: The settings; thresholds and numbers of edges come from `wanted`.
        wanted: Which circuit.
        on_progress: Called as each search proceeds.
        tell: Called with what a user should know.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    if config.method == "exact" and wanted.threshold is None and wanted.target is None:
        return [_single(path, config, {"n_edges": wanted.n_edges}, on_progress)]
    if wanted.n_edges is not None:
        raise MethodError("--edges goes with --method exact; with acdc give --target-edges")
    series = Series(path, config, on_progress)
    if wanted.target is not None:
        return [series.run_to(wanted.target)]
    if wanted.threshold in (None, "auto"):
        threshold = series.suggested()
        tell(f"threshold from the metric's noise: {threshold:g} (see --threshold)")
        return [_single(path, config, {"threshold": threshold}, on_progress)]
    if len(wanted.thresholds) == 1:
        return [_single(path, config, {"threshold": wanted.thresholds[0]}, on_progress)]
    return [series.run(threshold) for threshold in wanted.thresholds]


def _single(
    path: Path, config: RunConfig, options: Mapping[str, Any], on_progress: OnProgress
) -> RunResult:
    found = replace(config, options={**config.options, **options})
    return run_discovery(path, found, on_progress=on_progress)


class Series:
    """Runs that differ in their threshold alone.

    Args:
        path: The directory that holds the runs.
        config: Their settings; the threshold in it is not used.
        on_progress: Called as each search proceeds.
    """

    def __init__(self, path: Path, config: RunConfig, on_progress: OnProgress) -> None:
        replace(config, options={**config.options, "threshold": 0.0}).validate()
        self._path, self._config, self._on_progress = path, config, on_progress
        self._model: ResidualModel | None = None
        self.results: list[RunResult] = []

    def run(self, threshold: float) -> RunResult:
        """Run, resume or read the search with one threshold."""
        options = {**self._config.options, "threshold": threshold}
        result = run_discovery(
            self._path / f"threshold-{threshold:.6g}",
            replace(self._config, options=options),
            model=self._loaded(),
            on_progress=self._on_progress,
        )
        self.results.append(result)
        return result

    def run_to(self, target: Target) -> RunResult:
        """Search for the threshold that meets a target best.

        Raises:
            MethodError: No threshold that was tried meets it.
        """
        problem = problem_of(self._config, self._loaded(), seed=self._config.seed)
        start = suggest_threshold(IncrementalEngine(problem), seed=self._config.seed)
        best, trials = search_threshold(self._attempt, target, start)
        self._write(best, trials)
        return self.results[trials.index(best)]

    def suggested(self) -> float:
        """Return the threshold that the metric's noise suggests, to two digits."""
        problem = problem_of(self._config, self._loaded(), seed=self._config.seed)
        threshold = suggest_threshold(IncrementalEngine(problem), seed=self._config.seed)
        return float(f"{threshold:.2g}")

    def _attempt(self, threshold: float) -> Trial:
        result = self.run(float(f"{threshold:.4g}"))
        own = result.card.measurements[0]
        return Trial(threshold, result.card.n_edges, own.faithfulness)

    def _loaded(self) -> ResidualModel:
        if self._model is None:
            config = self._config
            self._model = load_model(config.model, dtype=config.dtype, device=config.device)
        return self._model

    def _write(self, best: Trial, trials: Sequence[Trial]) -> None:
        rows = [
            {
                "run": result.path.name,
                "n_edges": trial.n_edges,
                "faithfulness": trial.faithfulness,
                "best": trial is best,
            }
            for trial, result in zip(trials, self.results, strict=True)
        ]
        text = json.dumps(rows, indent=1) + "\n"
        (self._path / "thresholds.json").write_text(text, encoding="utf-8")
