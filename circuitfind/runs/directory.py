"""A run directory: one run's settings, decisions and results, safe against interruption.

`config.json` and `decisions.jsonl`, which grows by a line per decision, are enough to resume.
Everything else is written when the search is done, each file in one step (to a temporary name,
then renamed), so a reader never sees half of one. `circuit.json` is written last: where it exists,
the run is complete. While a process works in a directory, others are refused.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from circuitfind.circuit import Circuit, load_circuit
from circuitfind.errors import CircuitfindError, RunBusyError, RunDirectoryError, shortened
from circuitfind.files import read_bytes, write_whole
from circuitfind.graph import Graph
from circuitfind.runs.config import RunConfig, config_from, differences, environment
from circuitfind.runs.decisions import DecisionLog
from circuitfind.stored import parse_json

try:
    import fcntl
except ImportError:  # not on Windows, where nothing keeps two processes apart
    fcntl = None  # type: ignore[assignment]

CONFIG, ENVIRONMENT, DECISIONS = "config.json", "environment.json", "decisions.jsonl"
SCORECARD, CIRCUIT, STATE = "scorecard.json", "circuit.json", "state.safetensors"
TRIALS, TRIED = "thresholds.json", "tried"
"""How several thresholds did, and the runs with those that the automatic one has given up."""


class RunDirectory:
    """The directory of one run.

    Attributes:
        path: Where it is.
        config: The run's settings, pinned.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config

    @classmethod
    def open(cls, path: Path, config: RunConfig) -> "RunDirectory":
        """Return the directory of a new run, or of the same run begun earlier; writes nothing.

        Raises:
            RunDirectoryError: The directory holds another run or something else, or another
                process is at work in it.
        """
        opened = cls(path, config)
        opened.require_same()
        if (path / DECISIONS).is_file() and not opened.is_complete:
            with opened._locked():
                pass
        return opened

    @property
    def is_complete(self) -> bool:
        return (self.path / CIRCUIT).is_file() and (self.path / SCORECARD).is_file()

    def write(self, name: str, text: str) -> None:
        """Write a file in one step.

        Raises:
            RunDirectoryError: It cannot be written; what was there before is still there.
        """
        with reported(self.path):
            write_whole(self.path / name, text)

    @contextmanager
    def recording(self, facts: Mapping[str, str]) -> Iterator[DecisionLog]:
        """Make the directory, keep others out of it, and open the log of decisions.

        If an error ends a new run before its first decision, nothing is left behind.

        Args:
            facts: What must be the same when the run is resumed: the fingerprints of the model's
                weights and of the prompts.

        Raises:
            RunDirectoryError: The directory cannot be written, another process is at work in it,
                or the run began with other weights or prompts.
        """
        is_new = not (self.path / CONFIG).is_file()
        with reported(self.path):
            made = make_folder(self.path)
        try:
            with self._locked() as file:
                self._begin(facts)
                log = DecisionLog(file, self.path / DECISIONS)
                yield log
        except CircuitfindError:
            if is_new and not _has_decisions(self.path):
                discard(self.path, made)
            raise

    def require_same(self) -> None:
        """Refuse a directory that holds another run, or something else.

        Raises:
            RunDirectoryError: The message says which settings differ.
        """
        with reported(self.path):
            if (self.path / CONFIG).is_file():
                found = config_from(self.path / CONFIG)
                different = "; ".join(differences(found, self.config))
                if different:
                    raise RunDirectoryError(
                        f"{self.path} holds another run ({different}); choose another --out, or "
                        "repeat the original settings to resume it"
                    )
            elif self.path.exists() and not is_fresh(self.path):
                raise RunDirectoryError(
                    f"{self.path} exists and is no run directory; choose another --out"
                )

    def _begin(self, facts: Mapping[str, str]) -> None:
        """Write down what the run is, or check it if that was done earlier."""
        # Again, now that nobody else writes here: another process may have begun another run.
        self.require_same()
        if not (self.path / CONFIG).is_file():
            self.write(CONFIG, self.config.to_json())
        if not (self.path / ENVIRONMENT).is_file():
            self.write(ENVIRONMENT, json.dumps({**environment(), **facts}, indent=1) + "\n")
        earlier = read_json(self.path / ENVIRONMENT)
        changed = [name for name, value in facts.items() if earlier.get(name) != value]
        if changed:
            parts = " and the ".join(name.removesuffix("_fingerprint") for name in changed)
            raise RunDirectoryError(
                f"the {parts} of the run in {self.path} changed since it began; choose another "
                "--out, or restore what it began with"
            )

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """Open the decisions and hold them against other processes; a dead process holds nothing.

        Unbuffered, so that a write that fails is not tried again when the file is closed.
        """
        with reported(self.path):
            descriptor = os.open(self.path / DECISIONS, os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            lock(file, self.path)
            yield file


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep other processes out of a directory; a dead process holds nothing.

    Raises:
        RunBusyError: Another process holds it.
    """
    if fcntl is None:
        yield
        return
    with reported(path):
        descriptor = os.open(path, os.O_RDONLY)
    try:
        lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def lock(file: IO[bytes] | int, path: Path) -> None:
    """Hold an open file against other processes until it is closed; a dead process holds nothing.

    Raises:
        RunBusyError: Another process holds it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunBusyError(
            f"another process is at work in {path}; wait until it is done, or choose another --out"
        ) from None
    except OSError:
        # Some network file systems have no locks.
        return


def is_held(path: Path) -> bool:
    """Tell whether a process is at work in a run directory.

    Raises:
        OSError: Its decisions cannot be read.
    """
    with (path / DECISIONS).open("rb") as file:
        try:
            lock(file, path)
        except RunBusyError:
            return True
    return False


def make_folder(path: Path) -> list[Path]:
    """Make a directory with its parents, and return those that were not there, innermost first."""
    made = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return made


def is_fresh(path: Path) -> bool:
    """Tell whether a directory holds nothing, or only what a run killed at its start left."""
    return path.is_dir() and all(
        (item.name.startswith(".") and item.suffix == ".tmp")
        or (item.name == DECISIONS and item.stat().st_size == 0)
        or item.name == TRIED
        or (item.name == TRIALS and (path / TRIED).is_dir())
        for item in path.iterdir()
    )


def _has_decisions(path: Path) -> bool:
    file = path / DECISIONS
    return file.is_file() and file.stat().st_size > 0


def discard(path: Path, made: list[Path]) -> None:
    """Take back what the start of a run wrote, and the directories made for it."""
    for name in (CONFIG, ENVIRONMENT, DECISIONS, STATE):
        with suppress(OSError):
            (path / name).unlink()
    for place in made:
        with suppress(OSError):
            place.rmdir()


def read_json(path: Path) -> Any:
    """Return the content of one of a run's JSON files.

    Raises:
        RunDirectoryError: The file is missing or damaged.
    """
    with reported(path.parent):
        try:
            return parse_json(read_bytes(path))
        except ValueError as error:
            raise RunDirectoryError(
                f"{path} is damaged ({error}); delete it to compute it again"
            ) from None


def circuit_file(path: Path) -> Path:
    """Return a run directory's circuit file, or the path itself if it is no directory."""
    return path / CIRCUIT if path.is_dir() else path


def load_circuit_of(path: Path, graph: Graph | None = None) -> Circuit:
    """Read the circuit of a run directory or file.

    Raises:
        RunDirectoryError: The run has no circuit yet.
        CircuitFileError: There is none, or it cannot be trusted.
    """
    if (path / CONFIG).is_file() and not (path / CIRCUIT).is_file():
        raise RunDirectoryError(
            f"the run in {path} is not finished, so it has no circuit yet; repeat its "
            "`circuitfind discover` command to resume it"
        )
    return load_circuit(circuit_file(path), graph)


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn what the file system says into one line that names the directory."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunDirectoryError(
            f"cannot use the run directory {shortened(str(path))}: {reason}; "
            "free some space, change its permissions, or choose another --out"
        ) from error
