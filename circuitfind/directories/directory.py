"""Directories in which a question is worked on, safe against interruption.

`config.json` holds the settings, with the version of their format, and is written first;
`environment.json` the versions of packages and the fingerprints of model and prompts. Whatever else
there is grows line by line (`store.Log`), is a checkpoint, or is written at the end, each file in
one step, so a reader never sees half of one. While a process works in a directory, others are
refused. Of a run, `circuit.json` is written last: where it exists, the run is complete.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from circuitfind.circuit import Circuit, load_circuit
from circuitfind.directories.config import RunConfig, environment
from circuitfind.directories.decisions import HEAD, DecisionLog
from circuitfind.errors import CircuitfindError, NewerFileError, RunDirectoryError, shortened
from circuitfind.files import read_bytes
from circuitfind.graph import Graph
from circuitfind.question import BEGAN_WITH, Question, differences, require_same
from circuitfind.records import body_of, from_json, parse_json
from circuitfind.store import STATE, Log, at_work, held, read_json, reported, write

CONFIG, ENVIRONMENT, DECISIONS = "config.json", "environment.json", "decisions.jsonl"
SCORECARD, CIRCUIT = "scorecard.json", "circuit.json"
TRIALS, TRIED = "thresholds.json", "tried"
"""How several thresholds did, and the runs with those that the automatic one has given up."""

Asked = TypeVar("Asked", bound=Question)


class WorkDirectory(Generic[Asked]):
    """A directory in which one question is worked on.

    Attributes:
        path: Where it is.
        config: What is asked, with files named by absolute path.
        kind: The type of the settings.
        noun: What is done in such directories.
        called: What such directories are called.
        lasting: Files that outlive an error at the start, if they hold anything.
    """

    kind: ClassVar[type[Question]]
    noun: ClassVar[str]
    called: ClassVar[str]
    lasting: ClassVar[tuple[str, ...]]

    def __init__(self, path: Path, config: Asked) -> None:
        self.path, self.config = path, config

    def is_fresh(self) -> bool:
        """Return whether the directory holds nothing, or only what a process killed here left."""
        raise NotImplementedError

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file in one step.

        Raises:
            RunDirectoryError: It cannot be written; what was there before is still there.
        """
        write(self.path / name, content)

    def require_same(self) -> None:
        """Refuse a directory that holds something else.

        Raises:
            RunDirectoryError: The message says which settings differ.
        """
        with reported(self.path):
            begun = (self.path / CONFIG).is_file()
            if not begun and self.path.exists() and not self.is_fresh():
                raise RunDirectoryError(
                    f"{self.path} exists and is {self.called}; choose another --out"
                )
        if begun:
            different = "; ".join(differences(read_config(self.kind, self.path), self.config))
            if different:
                raise RunDirectoryError(
                    f"{self.path} holds another {self.noun} ({different}); choose another --out, "
                    "or repeat the original settings to resume it"
                )

    @contextmanager
    def working(self) -> Iterator[None]:
        """Make the directory and keep other processes out of it.

        If an error ends new work before anything that lasts, nothing is left behind.

        Raises:
            RunDirectoryError: It cannot be written, another process is at work in it, or it holds
                something else.
        """
        with at_work(self.path):
            is_new = not (self.path / CONFIG).is_file()
            # Now that nobody else writes here: another process may have begun something else.
            self.require_same()
            try:
                yield
            except CircuitfindError:
                if is_new and not any(map(self._holds, self.lasting)):
                    for name in (CONFIG, ENVIRONMENT, STATE, *self.lasting):
                        with suppress(OSError):
                            (self.path / name).unlink()
                raise

    def _holds(self, name: str) -> bool:
        file = self.path / name
        return file.is_file() and file.stat().st_size > 0

    def begin(self, facts: Mapping[str, str]) -> None:
        """Write down what is asked, or check that the work began with the same.

        Args:
            facts: What must be the same when it is resumed: the fingerprints of the model's
                weights and of the prompts.

        Raises:
            RunDirectoryError: It began with other weights or prompts.
        """
        if not (self.path / CONFIG).is_file():
            self.write(CONFIG, self.config.to_json())
        if not (self.path / ENVIRONMENT).is_file():
            self.write(ENVIRONMENT, json.dumps({**environment(), **facts}, indent=1) + "\n")
        # Version 0.1.0 kept the fingerprints of measurements in their settings.
        earlier = {**read_json(self.path / CONFIG).get("facts", {})}
        earlier |= read_json(self.path / ENVIRONMENT)
        require_same(earlier, facts, f"the {self.noun} in {self.path}", BEGAN_WITH)


def read_config(kind: type[Asked], path: Path) -> Asked:
    """Return the settings in a directory; those that its version did not know are defaults.

    Raises:
        RunDirectoryError: They are damaged, or those of something else.
        NewerFileError: A newer version has written them.
    """
    file = path / CONFIG
    with reported(path):
        content = read_bytes(file)
    try:
        values = body_of(parse_json(content), kind.form, file, optional=True)
        # Version 0.1.0 kept those of measurements beside other things.
        found: Asked = from_json(kind, values.get("settings", values), "its content")
        return found.completed()
    except NewerFileError:
        raise
    except (ValueError, TypeError, CircuitfindError) as error:
        raise RunDirectoryError(
            f"{file} is damaged ({shortened(str(error))}); choose another --out, or delete the "
            "directory to begin again"
        ) from None


def config_of_run(path: Path, circuit: Circuit) -> RunConfig:
    """Return a run's settings, which must be those that its circuit was found with.

    Raises:
        RunDirectoryError: They are damaged, or the circuit's file says otherwise.
        NewerFileError: A newer version has written them.
    """
    config = read_config(RunConfig, path)
    own = {name: value for name, value in circuit.origin.items() if name in config.identity}
    try:
        found = from_json(RunConfig, {**config.stored(), **own}, "its origin").completed()
    except (ValueError, TypeError, CircuitfindError) as error:
        raise RunDirectoryError(
            f"the origin in {path / CIRCUIT} cannot be used ({error}); restore the file"
        ) from None
    if different := "; ".join(differences(found, config)):
        raise RunDirectoryError(
            f"{path / CIRCUIT} was found with other settings than {CONFIG} beside it says "
            f"({different}); restore the file that was changed"
        )
    return config


class RunDirectory(WorkDirectory[RunConfig]):
    """The directory of one run."""

    kind = RunConfig
    noun, called = "run", "no run directory"
    lasting = (DECISIONS,)

    @classmethod
    def open(cls, path: Path, config: RunConfig) -> "RunDirectory":
        """Return the directory of a new run, or of the same run begun earlier; writes nothing.

        Raises:
            RunDirectoryError: The directory holds another run or something else, or another
                process is at work in it.
        """
        opened = cls(path, config)
        opened.require_same()
        if path.is_dir() and not opened.is_complete:
            with held(path):
                pass
        return opened

    @property
    def is_complete(self) -> bool:
        return (self.path / CIRCUIT).is_file() and (self.path / SCORECARD).is_file()

    def is_fresh(self) -> bool:
        return is_fresh(self.path)

    @contextmanager
    def recording(self, facts: Mapping[str, str]) -> Iterator[DecisionLog]:
        """Work in the directory, and open the log of decisions; see `working` and `begin`."""
        with self.working():
            self.begin(facts)
            with Log(self.path / DECISIONS, HEAD) as log:
                yield DecisionLog(log, self.path / DECISIONS)


def is_fresh(path: Path) -> bool:
    """Return whether a directory holds nothing, or only what a run killed at its start left."""
    return path.is_dir() and all(
        (item.name.startswith(".") and item.suffix == ".tmp")
        or (item.name == DECISIONS and item.stat().st_size == 0)
        or item.name == TRIED
        or (item.name == TRIALS and (path / TRIED).is_dir())
        for item in path.iterdir()
    )


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
