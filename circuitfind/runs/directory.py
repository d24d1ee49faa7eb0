"""A run directory: one run's settings, decisions and results, safe against interruption.

`config.json` comes first and `decisions.jsonl` grows by a line per decision; these two are enough
to resume. Everything else is written when the search is done, each file in one step (to a
temporary name, then renamed), so a reader never sees half of one. `circuit.json` is written last:
where it exists, the run is complete.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from circuitfind.circuit import Circuit, load_circuit
from circuitfind.errors import RunDirectoryError
from circuitfind.graph import Graph
from circuitfind.methods.base import Decision, Progress
from circuitfind.runs.config import RunConfig, config_from, differences, environment

CONFIG, DECISIONS, CIRCUIT = "config.json", "decisions.jsonl", "circuit.json"


class RunDirectory:
    """The directory of one run.

    Attributes:
        path: Where it is.
        config: The run's settings.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config

    @classmethod
    def open(cls, path: Path, config: RunConfig) -> "RunDirectory":
        """Return the directory of a new run, or of the same run begun earlier; writes nothing.

        Raises:
            RunDirectoryError: The directory holds another run or something else.
        """
        with _reported(path):
            if (path / CONFIG).is_file():
                found = config_from((path / CONFIG).read_text(encoding="utf-8"))
                different = "; ".join(differences(found, config))
                if different:
                    raise RunDirectoryError(
                        f"{path} holds another run ({different}); choose another --out, or repeat "
                        "the original settings to resume it"
                    )
            elif path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise RunDirectoryError(
                    f"{path} exists and is no run directory; choose another --out"
                )
        return cls(path, config)

    def begin(self) -> None:
        """Make the directory and write down the run's settings, unless that was done earlier.

        Raises:
            RunDirectoryError: The directory cannot be written.
        """
        with _reported(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / CONFIG).is_file():
            self.write("environment.json", json.dumps(environment(), indent=1) + "\n")
            self.write(CONFIG, self.config.to_json())

    @property
    def is_complete(self) -> bool:
        return (self.path / CIRCUIT).is_file()

    def circuit(self, graph: Graph | None = None) -> Circuit:
        """Return the finished circuit."""
        return load_circuit_of(self.path, graph)

    def read_json(self, name: str) -> Any:
        """Return the content of one of the JSON files.

        Raises:
            RunDirectoryError: The file is missing or damaged.
        """
        with _reported(self.path):
            try:
                return json.loads((self.path / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise RunDirectoryError(
                    f"{self.path / name} is damaged ({error}); delete it to compute it again"
                ) from None

    def write(self, name: str, text: str) -> None:
        """Write a file in one step.

        Raises:
            RunDirectoryError: It cannot be written; what was there before is still there.
        """
        temporary = self.path / f".{name}.tmp"
        with _reported(self.path):
            try:
                with temporary.open("w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self.path / name)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise

    def decisions(self) -> list[Decision]:
        """Return the decisions made so far; an incomplete last line does not count.

        Raises:
            RunDirectoryError: A line other than the last is damaged.
        """
        path = self.path / DECISIONS
        if not path.exists():
            return []
        with _reported(self.path):
            lines = path.read_text(encoding="utf-8").split("\n")
        # A complete line ends in a newline, so what follows the last one was cut short.
        found = []
        for number, line in enumerate(lines[:-1], 1):
            try:
                found.append(Decision(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise RunDirectoryError(
                    f"{path}, line {number}, is damaged ({error}); delete the lines from there on "
                    "to resume before them"
                ) from None
        return found

    @contextmanager
    def recording(self, done: Sequence[Decision]) -> Iterator["DecisionLog"]:
        """Open the decisions for appending, after those that a resumed run takes over."""
        path = self.path / DECISIONS
        with _reported(self.path), path.open("r+b" if path.exists() else "w+b") as file:
            yield DecisionLog(file, self.path, [_line(decision) for decision in done])


class DecisionLog:
    """Appends decisions to a run's file."""

    def __init__(self, file: BinaryIO, path: Path, lines: list[str]) -> None:
        self._file, self._path, self._lines = file, path, lines

    def record(self, progress: Progress) -> None:
        """Write decisions at their place in the search, and hand them to the operating system.

        What an interrupted write left there, part of a line or of a reader's decisions, goes.
        """
        lines = [_line(decision) for decision in progress.decisions]
        kept = self._lines[: progress.done - len(lines)]
        with _reported(self._path):
            self._file.seek(len("".join(kept).encode()))
            self._file.truncate()
            self._file.write("".join(lines).encode())
            self._file.flush()
        self._lines = [*kept, *lines]


def _line(decision: Decision) -> str:
    return json.dumps(asdict(decision)) + "\n"


def circuit_file(path: Path) -> Path:
    """Return a run directory's circuit file, or the path itself if it is no directory."""
    return path / CIRCUIT if path.is_dir() else path


def load_circuit_of(path: Path, graph: Graph | None = None) -> Circuit:
    """Read the circuit of a run directory or file.

    Raises:
        CircuitFileError: There is none, or it cannot be trusted.
    """
    return load_circuit(circuit_file(path), graph)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn what the file system says into one line that names the directory."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunDirectoryError(
            f"cannot use the run directory {path}: {reason}; "
            "free some space, change its permissions, or choose another --out"
        ) from error


def provenance(config: RunConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a circuit file says of where it comes from."""
    return {**config.identity, **facts, "versions": environment()}
