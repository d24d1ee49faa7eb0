"""The directory in which a command works, safe against interruption.

`config.json` holds the settings, with the version of their format, and is written first;
`environment.json` the versions of packages and the fingerprints of model and prompts. Whatever else
there is grows line by line (`store.Log`), is a checkpoint, or is written at the end, each file in
one step, so a reader never sees half of one. While a process works in a directory, others are
refused.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from circuitfind.environment import environment
from circuitfind.errors import (
    CircuitfindError,
    NewerFileError,
    RunDirectoryError,
    shortened,
)
from circuitfind.files import read_bytes
from circuitfind.plugins import plugin_facts
from circuitfind.question import BEGAN_WITH, require_same
from circuitfind.records import body_of, from_json, parse_json, same_kind
from circuitfind.settings import Settings
from circuitfind.store import STATE, at_work, held, read_json, reported, write

CONFIG, ENVIRONMENT, CIRCUIT = "config.json", "environment.json", "circuit.json"

FOREWORD = "foreword"
"""Where `environment.json` says how well the model itself does the task, and what to doubt."""

Asked = TypeVar("Asked", bound=Settings)
Found = TypeVar("Found")
Opened = TypeVar("Opened", bound="WorkDirectory[Any]")


class WorkDirectory(Generic[Asked]):
    """A directory in which a command works.

    Attributes:
        path: Where it is.
        config: What is asked, with files named by absolute path.
        kind: The type of the settings.
        prefix: What the names of `config.json` and `environment.json` begin with, where the work is
            done in the directory of another.
        last: The file that is written last: where it is, the work is done.
        lasting: Files that outlive an error at the start, if they hold anything, and folders.
    """

    kind: ClassVar[type[Settings]]
    prefix: ClassVar[str] = ""
    last: ClassVar[str]
    lasting: ClassVar[tuple[str, ...]] = ()

    def __init__(self, path: Path, config: Asked) -> None:
        self.path, self.config = path, config.pinned()

    @classmethod
    def open(cls: type[Opened], path: Path, config: Asked) -> Opened:
        """Return the directory of new work, or of the same work begun earlier; writes nothing.

        Raises:
            RunDirectoryError: The directory holds something else, or another process is at work
                in it.
        """
        opened = cls(path, config)
        opened.require_same()
        if path.is_dir() and not opened.is_complete:
            with held(path):
                pass
        return opened

    @classmethod
    def can_take(cls, path: Path, config: Asked) -> bool:
        """Return whether a directory is free, or holds what is asked for.

        Raises:
            NewerFileError: A newer version has written what it holds.
        """
        try:
            cls(path, config).require_same()
        except NewerFileError:
            raise
        except (CircuitfindError, OSError):
            return False
        return True

    @property
    def is_complete(self) -> bool:
        """Whether the work is done."""
        return (self.path / self.last).is_file()

    @classmethod
    def is_ours(cls, file: Path) -> bool:
        """Return whether a file may be what a process left that was killed before its settings."""
        return file.name[0] == "." and file.suffix == ".tmp"

    @classmethod
    def is_fresh(cls, path: Path) -> bool:
        """Return whether a directory holds nothing yet, or only what a killed process left."""
        return not path.exists() or (path.is_dir() and all(map(cls.is_ours, path.iterdir())))

    def there(self) -> Asked | None:
        """Return the settings of the work that the directory holds; None where it holds none.

        Raises:
            RunDirectoryError: They are damaged, or those of something else.
            NewerFileError: A newer version has written them.
        """
        file = self._file(CONFIG)
        return read_settings(self.kind, file) if file.is_file() else None  # type: ignore[return-value]

    def _file(self, name: str) -> Path:
        return self.path / f"{self.prefix}{name}"

    def written(self, *names: str) -> tuple[Path, ...]:
        """Return the files of these names that are there."""
        return tuple(file for name in names if (file := self.path / name).is_file())

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
        noun = self.kind.noun
        with reported(self.path):
            there = self.there()
            if there is None and not self.is_fresh(self.path):
                raise RunDirectoryError(
                    f"{self.path} exists and holds no {noun}; choose another --out"
                )
        if there is not None and (different := "; ".join(self.config.differences(there))):
            raise RunDirectoryError(
                f"{self.path} holds another {noun} ({different}); choose another --out, or repeat "
                "the original settings to resume it"
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
            is_new = not self._file(CONFIG).is_file()
            # Now that nobody else writes here: another process may have begun something else.
            self.require_same()
            try:
                yield
            except CircuitfindError:
                if is_new and not any(map(self._holds, self.lasting)):
                    own = [self._file(name) for name in (CONFIG, ENVIRONMENT)]
                    for file in (*own, *(self.path / name for name in (STATE, *self.lasting))):
                        with suppress(OSError):
                            file.unlink()
                raise

    def _holds(self, name: str) -> bool:
        file = self.path / name
        return file.is_dir() or (file.is_file() and file.stat().st_size > 0)

    def begin(self, facts: Mapping[str, str] | None = None, foreword: Sequence[str] = ()) -> None:
        """Write down what is asked, or check that the work began with the same.

        Args:
            facts: What must be the same when it is resumed: the fingerprints of the model's
                weights and of the prompts. Plug-ins must be the same, too.
            foreword: What a user should know before it begins, for those who watch from outside.

        Raises:
            RunDirectoryError: It began with other weights or prompts.
        """
        facts = {**(facts or {}), **plugin_facts()}
        config, known = self._file(CONFIG), self._file(ENVIRONMENT)
        if not config.is_file():
            write(config, self.config.to_json())
        if not known.is_file():
            said = {FOREWORD: list(foreword)} if foreword else {}
            write(known, json.dumps({**environment(), **facts, **said}, indent=1) + "\n")
        # Version 0.1.0 kept the fingerprints of measurements in their settings.
        earlier: dict[str, Any] = {**read_json(config).get("facts", {}), **read_json(known)}
        require_same(earlier, facts, f"the {self.kind.noun} in {self.path}", BEGAN_WITH)


def read_config(kind: type[Asked], path: Path) -> Asked:
    """Return the settings in a directory; see `read_settings`."""
    return read_settings(kind, path / CONFIG)


def read_settings(kind: type[Asked], file: Path) -> Asked:
    """Return the settings in a file; those that its version did not know are defaults.

    Raises:
        RunDirectoryError: They are damaged, or those of something else.
        NewerFileError: A newer version has written them.
    """
    with reported(file.parent):
        content = read_bytes(file)
    try:
        stored = parse_json(content)
        if isinstance(stored, dict) and not same_kind(stored.get("format", kind.form), kind.form):
            raise RunDirectoryError(
                f"{file.parent} holds something else than a {kind.noun}: the format of {file.name} "
                f"is {shortened(repr(stored['format']))}, not {kind.form!r}; choose another --out"
            )
        values = body_of(stored, kind.form, file, optional=True)
        # Version 0.1.0 kept those of measurements beside other things.
        found: Asked = from_json(kind, values.get("settings", values), "its content")
        return found.completed()
    except (NewerFileError, RunDirectoryError):
        raise
    except (ValueError, TypeError, CircuitfindError) as error:
        raise RunDirectoryError(
            f"{file} is damaged ({shortened(str(error))}); choose another --out, or delete the "
            "directory to begin again"
        ) from None


def stored_result(file: Path, kind: type[Found], form: str) -> Found | None:
    """Return the result that a JSON file of a format holds; None if there is no such file.

    Raises:
        RunDirectoryError: The file is damaged.
    """
    if not file.is_file():
        return None
    try:
        found: Found = from_json(kind, body_of(read_json(file), form, file))
    except ValueError as error:
        raise RunDirectoryError(
            f"{file} is damaged ({error}); delete it to compute it again"
        ) from None
    return found


def foreword_of(path: Path) -> list[str]:
    """Return what a run said before its search, for those who watch it; empty if not yet."""
    with suppress(RunDirectoryError):
        lines = read_json(path / ENVIRONMENT).get(FOREWORD, [])
        return [str(line) for line in lines] if isinstance(lines, list) else []
    return []
