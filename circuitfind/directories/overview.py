"""List of the runs below a directory, and the progress of each."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from circuitfind.directories.config import RunConfig
from circuitfind.directories.decisions import count_decisions
from circuitfind.directories.directory import DECISIONS, PAGE, SCORECARD
from circuitfind.directories.kinds import content_kind
from circuitfind.directories.patch_config import PatchConfig
from circuitfind.directories.patch_directory import REPORT, RESULT
from circuitfind.directories.publication import is_published
from circuitfind.directories.results import read_scorecard
from circuitfind.directories.work import CIRCUIT, CONFIG, read_config
from circuitfind.errors import (
    CircuitfindError,
    NewerFileError,
    ReportError,
    RunDirectoryError,
    quoted,
)
from circuitfind.files import write_whole
from circuitfind.reports.index_page import index_html
from circuitfind.store import STATE, is_held, reported

State = Literal["finished", "running", "interrupted", "newer", "damaged"]

_SHOWN = ("task", "model", "method", "threshold", "n_edges_asked", "seed")
"""Settings that the list shows."""


@dataclass(frozen=True)
class RunInfo:
    """A run directory, as it is found.

    Attributes:
        path: Where it is.
        settings: Its settings by name; empty if they cannot be read.
        state: `finished`; `running`, by a process that is at work there; `interrupted`, ready to
            resume; `newer`, written by a newer version; or `damaged`.
        figures: The number of decisions, or what the scorecard says.
        problem: What is damaged or newer.
    """

    path: Path
    settings: Mapping[str, Any]
    state: State
    figures: dict[str, Any]
    problem: str = ""

    def as_row(self, below: Path) -> dict[str, Any]:
        """Return plain values, by name; None where nothing is known."""
        return {
            "run": str(self.path.relative_to(below)),
            "state": self.state,
            **{name: self.settings.get(name) for name in _SHOWN},
            "decisions": self.figures.get("decisions"),
            "n_edges": self.figures.get("n_edges"),
            "faithfulness": self.figures.get("faithfulness"),
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Filter:
    """Runs to list; None lists all.

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
        return (self.state is None or self.state == info.state) and all(
            wanted is None or _is_called(str(info.settings.get(name, "")), wanted)
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


def _pages(run: Path) -> Iterator[Path]:
    """Yield where the page of a run may be: a published run has it beside it."""
    yield run / PAGE
    if is_published(run.parent):
        yield run.parent / PAGE


def sorted_runs(
    runs: list[RunInfo], column: str | None, below: Path, *, reverse: bool
) -> list[RunInfo]:
    """Return runs in the order of a column; those without a value are last.

    Args:
        runs: The runs.
        column: Name of the column; None is the order they have.
        below: The directory that their paths are shown from.
        reverse: Whether the largest come first.

    Raises:
        RunDirectoryError: There is no such column.
    """
    if column is None or not runs:
        return runs[::-1] if reverse else runs
    values = [info.as_row(below) for info in runs]
    if column not in values[0]:
        raise RunDirectoryError(
            f"there is no column {quoted(column)}; sort by one of {', '.join(values[0])}"
        )
    pairs = [(row[column], info) for row, info in zip(values, runs, strict=True)]
    known = [(value, info) for value, info in pairs if value not in (None, "")]
    kind = str if any(isinstance(value, str) for value, _ in known) else float
    known.sort(key=lambda pair: kind(pair[0]), reverse=reverse)
    return [info for _, info in [*known, *(pair for pair in pairs if pair[0] in (None, ""))]]


def write_index(runs: Sequence[RunInfo], below: Path, page: Path) -> None:
    """Write a page that lists runs, with a picture of each and a link to its report.

    Raises:
        ReportError: It cannot be written.
    """

    def beside(*files: Path) -> str | None:
        for file in filter(Path.is_file, files):
            return quote(os.path.relpath(file, page.parent).replace(os.sep, "/"))
        return None

    rows = [
        {
            "picture": beside(info.path / "diagram.svg"),
            "link": beside(*_pages(info.path), info.path / CIRCUIT),
            **info.as_row(below),
            "task": Path(str(info.settings.get("task", ""))).name,
        }
        for info in runs
    ]
    title = f"Runs in {below.resolve().name}"
    if page.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"{page} does not end in .html; name a page that does")
    try:
        write_whole(page, index_html(title, rows))
    except OSError as error:
        raise ReportError(f"cannot write the page {page}: {error.strerror}") from None


def _run_directories(path: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(path):
        if CONFIG in files and {DECISIONS, CIRCUIT, RESULT, STATE} & set(files):
            # Nothing of ours lies inside a run.
            folders.clear()
            yield Path(place)


def _info(path: Path) -> RunInfo:
    settings: dict[str, Any] = {}
    state: State
    try:
        if content_kind(path) == "patching":
            return _measured(path)
        settings = _settings(read_config(RunConfig, path))
        if (path / CIRCUIT).is_file() and (path / SCORECARD).is_file():
            card = read_scorecard(path / SCORECARD)[0]
            own = card.measurements[0]
            figures = {"n_edges": card.n_edges, "faithfulness": own.faithfulness}
            return RunInfo(path, settings, "finished", figures)
        decisions = count_decisions(path / DECISIONS)
        state = "running" if is_held(path) else "interrupted"
        return RunInfo(path, settings, state, {"decisions": decisions})
    except (CircuitfindError, OSError) as error:
        state = "newer" if isinstance(error, NewerFileError) else "damaged"
        return RunInfo(path, settings, state, {}, " ".join(str(error).split()))


def _settings(config: RunConfig) -> dict[str, Any]:
    return {
        "task": config.task,
        "model": config.model,
        "method": config.method,
        "threshold": config.threshold,
        "n_edges_asked": config.n_edges,
        "seed": config.seed,
    }


def _measured(path: Path) -> RunInfo:
    """Return what is known of a measurement by patching."""
    config = read_config(PatchConfig, path)
    settings = {**config.identity, "method": f"{config.kind} {config.mode}"}
    finished = (path / REPORT).is_file()
    state: State = "finished" if finished else "running" if is_held(path) else "interrupted"
    return RunInfo(path, settings, state, {})
