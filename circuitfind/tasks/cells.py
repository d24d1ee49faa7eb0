"""CSV: each line of a task file as what JSON would say.

Columns are separated by commas, semicolons or tabs, as the header shows. Several answers are
separated by `|`, those of several steps by `;`, token ids by spaces, those of one answer by `+`,
and positions are written `name=index;name=index`.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from circuitfind.errors import TaskError, quoted
from circuitfind.records import parse_json
from circuitfind.tasks.rows import COLUMNS, LineError

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_MOST_HEADER = 10_000
"""Characters."""
_YES_OR_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_ANSWERS = ("answer", "wrong_answer", "answer_ids", "wrong_answer_ids")


def csv_records(path: Path, text: str) -> Iterator[tuple[int, Callable[[], Mapping[str, Any]]]]:
    """Yield the number of each line that is not empty, and what reads the line.

    Raises:
        TaskError: The file as a whole is not CSV.
    """
    # Only the ends of lines that CSV knows end a line: a cell may hold any other character.
    first = next(io.StringIO(text, newline=""), "")
    if len(first) > _MOST_HEADER:
        raise TaskError(
            f"{path} begins with a line of {len(first):,} characters, which is not the header of a "
            f"task; the columns are {', '.join(COLUMNS)}"
        )
    separator = max(_SEPARATORS, key=partial(_known_columns, first))
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        strict=True,
        skipinitialspace=f"{separator} " in first,
    )
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise TaskError(f"{path} names a column twice in its header; name each once")
        end = reader.line_num
        for cells in reader:
            line, end = end + 1, reader.line_num
            if cells:
                yield line, partial(_record, header, separator, cells)
    except csv.Error as error:
        raise TaskError(f"{path}, line {max(reader.line_num, 1)} is not CSV: {error}") from None


def _known_columns(header: str, separator: str) -> int:
    return len({name.strip(' "\r\n').lower() for name in header.split(separator)} & {*COLUMNS})


def _record(header: Sequence[str], separator: str, cells: Sequence[str]) -> Mapping[str, Any]:
    if len(cells) != len(header):
        raise LineError(
            f" does not have the {len(header)} columns of the header; put prompts that contain "
            f"{_SEPARATORS[separator]} in double quotes"
        )
    record = {name: cell for name, cell in zip(header, cells, strict=True) if cell.strip()}
    steps = _numbers("steps", record.get("steps", ""))
    readers = {**_CELLS, **dict.fromkeys(_ANSWERS, _by_step if len(steps) > 1 else _listed)}
    return {
        name: readers[name](name, cell) if name in readers else cell
        for name, cell in record.items()
    }


def _by_step(name: str, cell: str) -> list[list[Any]]:
    return [_listed(name, step) for step in cell.split(";")]


def _listed(name: str, cell: str) -> list[Any]:
    if name.endswith("_ids"):
        parts = cell.replace("|", " ").split()
        return [part if "+" in part else _number(name, part) for part in parts]
    return [item.rstrip() or item for item in cell.split("|") if item]


def _numbers(name: str, cell: str) -> list[int]:
    return [_number(name, item) for item in cell.replace(";", " ").replace("|", " ").split()]


def _number(name: str, item: str) -> int:
    try:
        return int(item)
    except ValueError:
        raise LineError(
            f": cannot read {quoted(item)} among the {name}; write whole numbers separated by "
            "spaces"
        ) from None


def _named(name: str, cell: str) -> dict[str, int]:
    try:
        items = (item.split("=") for item in cell.split(";") if item.strip())
        return {key.strip(): int(index) for key, index in items}
    except ValueError:
        raise LineError(
            f": cannot read the positions {quoted(cell)}; write name=index;name=index"
        ) from None


def _yes_or_no(name: str, cell: str) -> bool:
    if (word := cell.strip().lower()) not in _YES_OR_NO:
        raise LineError(f": {name} is {quoted(cell)} and must be true or false")
    return _YES_OR_NO[word]


def _text_or_messages(name: str, cell: str) -> Any:
    """Return the messages that a cell holds as JSON; any other cell is a text."""
    try:
        value = parse_json(cell) if cell.startswith("[{") else cell
    except ValueError:
        return cell
    return value


_CELLS: Mapping[str, Callable[[str, str], Any]] = {
    "clean": _text_or_messages,
    "corrupted": _text_or_messages,
    "clean_ids": _numbers,
    "corrupted_ids": _numbers,
    "steps": _numbers,
    "positions": _named,
    "chat": _yes_or_no,
    "space": _yes_or_no,
}
