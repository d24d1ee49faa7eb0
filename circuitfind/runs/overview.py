"""What runs there are below a directory, and how far each is."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from circuitfind.errors import CircuitfindError, RunDirectoryError
from circuitfind.files import read_bytes
from circuitfind.runs.config import RunConfig, config_from
from circuitfind.runs.directory import CIRCUIT, CONFIG, DECISIONS, SCORECARD, is_held, reported
from circuitfind.runs.results import read_scorecard

State = Literal["finished", "running", "interrupted", "damaged"]


@dataclass(frozen=True)
class RunInfo:
    """A run directory, as it is found.

    Attributes:
        path: Where it is.
        config: Its settings; None if they cannot be read.
        state: `finished`; `running`, by a process that is at work there; `interrupted`, ready to
            resume; or `damaged`.
        figures: The number of decisions, or what the scorecard says.
        problem: What is damaged.
    """

    path: Path
    config: RunConfig | None
    state: State
    figures: dict[str, Any]
    problem: str = ""

    def as_row(self, below: Path) -> dict[str, Any]:
        """Return plain values, by name; None where nothing is known."""
        config = self.config
        options = config.options if config else {}
        return {
            "run": str(self.path.relative_to(below)),
            "state": self.state,
            "task": config and config.task,
            "model": config and config.model,
            "method": config and config.method,
            "threshold": options.get("threshold"),
            "n_edges_asked": options.get("n_edges"),
            "seed": config and config.seed,
            "decisions": self.figures.get("decisions"),
            "n_edges": self.figures.get("n_edges"),
            "faithfulness": self.figures.get("faithfulness"),
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Filter:
    """Which runs to list; None leaves out nothing.

    Attributes:
        task: Name of the task, or the end of a task file's path.
        model: Name of the model, or the end of its path.
        method: Name of the method.
        state: How far the run is.
    """

    task: str | None = None
    model: str | None = None
    method: str | None = None
    state: str | None = None

    def lets_through(self, info: RunInfo) -> bool:
        config = info.config
        return (self.state is None or self.state == info.state) and all(
            wanted is None or (config is not None and _is_called(getattr(config, name), wanted))
            for name, wanted in (
                ("task", self.task),
                ("model", self.model),
                ("method", self.method),
            )
        )


def _is_called(found: str, wanted: str) -> bool:
    path = Path(found)
    return wanted in (found, path.name, path.stem) or found.endswith(f"/{wanted}")


def list_runs(path: Path, chosen: Filter | None = None) -> list[RunInfo]:
    """Return the runs at and below a directory, by name; nothing is changed.

    Raises:
        RunDirectoryError: There is no such directory, or it cannot be read.
    """
    with reported(path):
        if not path.is_dir():
            raise RunDirectoryError(f"there is no directory {path}")
        found = [_info(place) for place in sorted(_run_directories(path))]
    return [info for info in found if chosen is None or chosen.lets_through(info)]


def _run_directories(path: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(path):
        if CONFIG in files and (DECISIONS in files or CIRCUIT in files):
            # Nothing of ours lies inside a run.
            folders.clear()
            yield Path(place)


def _info(path: Path) -> RunInfo:
    config = None
    try:
        config = config_from(path / CONFIG)
        if (path / CIRCUIT).is_file() and (path / SCORECARD).is_file():
            card = read_scorecard(path / SCORECARD)[0]
            own = card.measurements[0]
            figures = {"n_edges": card.n_edges, "faithfulness": own.faithfulness}
            return RunInfo(path, config, "finished", figures)
        decisions = read_bytes(path / DECISIONS).count(b"\n")
        state: State = "running" if is_held(path) else "interrupted"
        return RunInfo(path, config, state, {"decisions": decisions})
    except (CircuitfindError, OSError) as error:
        return RunInfo(path, config, "damaged", {}, " ".join(str(error).split()))
