"""The file of a run's decisions: a JSON line each, appended as the search decides.

A line counts when it ends. What an interrupted write left, part of a line or of a reader's
decisions, is overwritten when the search gets there again.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, BinaryIO, get_args

from circuitfind.errors import RunDirectoryError
from circuitfind.files import read_bytes, write_all
from circuitfind.methods.base import Decision, Progress, Reason
from circuitfind.stored import parse_json

_NAMES = {item.name for item in fields(Decision)}
_NUMBERS = ("before", "after", "effect", "score")


class DecisionLog:
    """Reads and appends the decisions of one run.

    Attributes:
        earlier: The decisions that the file held when it was opened.

    Args:
        file: The file, open for reading and writing, unbuffered.
        path: Its path, for messages.

    Raises:
        RunDirectoryError: A line other than an incomplete last one is damaged.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._lines = _whole_lines(file.read())
        self.earlier: Sequence[Decision] = _decisions(self._lines, path)

    def record(self, progress: Progress) -> None:
        """Write decisions at their place in the search, and hand them to the operating system.

        Raises:
            RunDirectoryError: They cannot be written.
        """
        lines = [_line(decision) for decision in progress.decisions]
        kept = self._lines[: progress.done - len(lines)]
        try:
            self._file.seek(sum(map(len, kept)))
            self._file.truncate()
            write_all(self._file, b"".join(lines))
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write {self._path}: {error.strerror}; make that possible and repeat the "
                "command to resume"
            ) from error
        self._lines = [*kept, *lines]

    def holds(self, decisions: Sequence[Decision]) -> bool:
        """Tell whether these are the decisions that were recorded."""
        return self._lines == [_line(decision) for decision in decisions]


def text_of(decisions: Sequence[Decision]) -> str:
    """Return the content of a file of these decisions."""
    return b"".join(map(_line, decisions)).decode()


def read_decisions(path: Path) -> Sequence[Decision]:
    """Return the decisions of a finished run.

    Raises:
        RunDirectoryError: The file cannot be read, or a line of it is damaged.
    """
    try:
        return _decisions(_whole_lines(read_bytes(path)), path)
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from None


def _whole_lines(content: bytes) -> list[bytes]:
    # What follows the last line break was cut short.
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def _decisions(lines: Sequence[bytes], path: Path) -> list[Decision]:
    return [_decision(f"{path}, line {number}", line) for number, line in enumerate(lines, 1)]


def _line(decision: Decision) -> bytes:
    return json.dumps(asdict(decision)).encode() + b"\n"


def _decision(place: str, line: bytes) -> Decision:
    try:
        values: Any = parse_json(line, finite=False)
        if not isinstance(values, dict) or set(values) != _NAMES:
            raise ValueError(f"it does not hold {', '.join(sorted(_NAMES))}")
        if not (isinstance(values["edge"], str) and isinstance(values["kept"], bool)):
            raise ValueError("its edge is no text, or its kept neither true nor false")
        if values["reason"] not in get_args(Reason):
            raise ValueError(f"its reason is none of {', '.join(get_args(Reason))}")
        if wrong := [name for name in _NUMBERS if not _is_number(values[name])]:
            raise ValueError(f"its {wrong[0]} is neither a number nor null")
        return Decision(**values)
    except ValueError as error:
        raise RunDirectoryError(
            f"{place}, is damaged ({error}); delete the lines from there on to resume before them"
        ) from None


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
