"""Reading a task file: JSON lines or CSV, every line checked.

One message says how many lines cannot be used, and what is wrong with the first of them.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from circuitfind.errors import CircuitfindError, TaskError, quoted
from circuitfind.files import read_text
from circuitfind.records import parse_json
from circuitfind.tasks.cells import csv_records
from circuitfind.tasks.mib import MibRow, is_official, mib_row
from circuitfind.tasks.rows import REQUIRED, LineError, Row, row_from

SUFFIXES = (".jsonl", ".csv")
MOST_BYTES = 64_000_000
MOST_ROWS = 10_000
MOST_MIB_ROWS = 100_000
_MOST_LINES = 1_000_000
"""Empty lines and line breaks inside cells included."""
_DESCRIBED = 3
"""Largest number of bad lines that a message describes."""
_MOST_SAID = 150
"""Characters for each of several bad lines."""


@dataclass
class Complaints:
    """Errors in the lines of a file.

    Attributes:
        path: The file.
        said: The first bad lines, and what is wrong with them.
        count: How many lines are bad.
        error: The kind of the first error.
    """

    path: Path
    said: list[tuple[int, str]] = field(default_factory=list)
    count: int = 0
    error: type[CircuitfindError] = TaskError

    def add(self, line: int, complaint: str, error: type[CircuitfindError] = TaskError) -> None:
        """Note that a line cannot be used."""
        self.error = self.error if self.count else error
        self.count += 1
        if len(self.said) < _DESCRIBED:
            self.said.append((line, complaint))

    def raise_if_any(self, total: int) -> None:
        """Refuse the file if a line cannot be used.

        Raises:
            CircuitfindError: Some of the file's `total` lines cannot be used.
        """
        if self.count == 1:
            line, complaint = self.said[0]
            raise self.error(f"{self.path}, line {line}{complaint}")
        if self.count:
            alike: dict[str, list[str]] = {}
            for line, text in self.said:
                alike.setdefault(text[:_MOST_SAID], []).append(str(line))
            first = "; ".join(
                f"line {' (also '.join(lines)}{')' * (len(lines) - 1)}{text}"
                for text, lines in alike.items()
            )
            raise self.error(
                f"{self.count} of the {total} pairs in {self.path} cannot be used, such as {first}"
            )


def read_rows(path: Path) -> list[Row] | list[MibRow]:
    """Read and check a file's lines: pairs of prompts, or rows of one of MIB's data sets.

    Raises:
        TaskError: The file cannot be read, is too large or empty, or a line lacks something.
    """
    records = csv_records if path.suffix.lower() == ".csv" else _json_records
    complaints, rows, total = Complaints(path), list[Any](), 0
    text = text_of(path, "task file")
    if text.count("\n") > _MOST_LINES or text.count("\r") > _MOST_LINES:
        raise TaskError(
            f"{path} has more than {_MOST_LINES:,} lines; leave out those that are empty"
        )
    read: Callable[[int, Mapping[str, Any]], Row | MibRow | None] | None = None
    for line, record in records(path, text):
        total += 1
        most = MOST_MIB_ROWS if read is mib_row else MOST_ROWS
        if total > most:
            raise TaskError(
                f"{path} holds more than {most:,} pairs, the most that a task file may hold; "
                "keep some of its lines"
            )
        try:
            said = record()
            read = read or (mib_row if is_official(said) else row_from)
            if (row := read(line, said)) is not None:
                rows.append(row)
        except LineError as error:
            complaints.add(line, str(error))
    complaints.raise_if_any(total)
    if not rows:
        raise TaskError(f"{path} holds no pairs of prompts; write one on each line")
    return rows


def text_of(path: Path, what: str) -> str:
    """Return what a text file holds.

    Args:
        path: The file.
        what: What messages call it.

    Raises:
        TaskError: It cannot be read, is not text, or is too large.
    """
    try:
        return read_text(path, encoding="utf-8-sig", most=MOST_BYTES)
    except (OSError, ValueError) as error:
        decoded = isinstance(error, UnicodeDecodeError)
        reason = "it is not UTF-8 text" if decoded else getattr(error, "strerror", None) or error
        raise TaskError(f"cannot read the {what} {quoted(str(path))}: {reason}") from None


def _json_records(path: Path, text: str) -> Iterator[tuple[int, Callable[[], Mapping[str, Any]]]]:
    for number, line in enumerate(io.StringIO(text, newline=""), 1):
        if line.strip():
            yield number, partial(_json_record, line)


def _json_record(line: str) -> Mapping[str, Any]:
    try:
        record = parse_json(line)
    except json.JSONDecodeError as error:
        raise LineError(f" is not JSON: {error.msg} at column {error.colno}") from None
    except ValueError as error:
        raise LineError(f" is not JSON that can be used: {str(error)[:100]}") from None
    if not isinstance(record, dict):
        example = ", ".join(f'"{column}": ...' for column in REQUIRED)
        raise LineError(f" is not a JSON object; write {{{example}}}")
    return record
