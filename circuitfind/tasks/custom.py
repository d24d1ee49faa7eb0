"""Tasks from a file: JSON lines or CSV with a pair of prompts on each line.

    clean          the clean prompt
    corrupted      the corrupted prompt, with as many tokens
    answer         the right next word, or several
    wrong_answer   the wrong next word, or several (may be left out)
    positions      names of positions, counted in tokens from 0 (may be left out)

Answers are single tokens that follow the prompt after a space. Several are a list in JSON and
separated by `|` in CSV; positions are an object in JSON and `name=index;name=index` in CSV. A
beginning-of-sequence token is added where the model has one, and does not count in positions.
"""

import csv
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuitfind.errors import PromptError, TaskError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.stored import parse_json
from circuitfind.tasks.base import Task

SUFFIXES = (".jsonl", ".csv")
COLUMNS = ("clean", "corrupted", "answer", "wrong_answer", "positions")
REQUIRED = COLUMNS[:3]


@dataclass(frozen=True)
class Row:
    """One line of a file.

    Attributes:
        place: File and line, for messages.
    """

    place: str
    clean: str
    corrupted: str
    answers: Sequence[str]
    wrong_answers: Sequence[str] = ()
    positions: Mapping[str, int] = field(default_factory=dict)


def custom_task(path: Path) -> Task:
    """Read a task from a file.

    Writing n pairs gives all lines of a file with n or fewer, and otherwise n of them drawn by the
    seed, in the file's order.

    Raises:
        TaskError: The file cannot be read, is empty, or a line lacks something.
    """
    rows = read_rows(path)

    def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
        chosen = sorted(random.Random(seed).sample(range(len(rows)), min(n, len(rows))))
        return [_pair(vocabulary, rows[index]) for index in chosen]

    return Task(
        name=path.stem,
        summary=f"the {len(rows)} pairs of prompts in {path.name}",
        source=str(path),
        metric="kl",
        write=write,
        written_in="either",
    )


def read_rows(path: Path) -> list[Row]:
    """Read and check a file's lines.

    Raises:
        TaskError: The file cannot be read, is empty, or a line lacks something.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise TaskError(f"cannot read the task file {path}: {reason}") from None
    records = _csv_records if path.suffix == ".csv" else _json_records
    rows = [_row(place, record) for place, record in records(path, text)]
    if not rows:
        raise TaskError(f"{path} holds no pairs of prompts; write one on each line")
    return rows


def _json_records(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except json.JSONDecodeError as error:
            raise TaskError(f"{place} is not JSON: {error.msg} at column {error.colno}") from None
        except ValueError as error:
            raise TaskError(f"{place} is not JSON that can be used: {error}") from None
        if not isinstance(record, dict):
            raise TaskError(f"{place} is not a JSON object; write {{{_example()}}}")
        yield place, record


def _example() -> str:
    return ", ".join(f'"{column}": ...' for column in REQUIRED)


def _csv_records(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    lines = text.splitlines(keepends=True)
    reader = csv.DictReader(lines, strict=True)
    try:
        for record in reader:
            place = f"{path}, line {reader.line_num}"
            if None in record or None in record.values():
                raise TaskError(
                    f"{place} does not have the {len(reader.fieldnames or ())} columns of the "
                    "header; put prompts that contain commas in double quotes"
                )
            yield (
                place,
                {
                    **record,
                    "answer": _listed(record.get("answer")),
                    "wrong_answer": _listed(record.get("wrong_answer")),
                    "positions": _named(place, record.get("positions")),
                },
            )
    except csv.Error as error:
        number = min(reader.line_num + 1, len(lines))
        raise TaskError(f"{path}, line {number} is not CSV: {error}") from None


def _listed(cell: str | None) -> list[str] | None:
    return [word for word in cell.split("|") if word.strip()] if cell else None


def _named(place: str, cell: str | None) -> dict[str, int] | None:
    if not cell:
        return None
    try:
        items = (item.split("=") for item in cell.split(";") if item.strip())
        return {name.strip(): int(index) for name, index in items}
    except ValueError:
        raise TaskError(
            f"{place}: cannot read the positions {cell!r}; write name=index;name=index"
        ) from None


def _row(place: str, record: Mapping[str, Any]) -> Row:
    missing = [column for column in REQUIRED if not record.get(column)]
    unknown = sorted(set(record) - set(COLUMNS))
    if missing or unknown:
        said = f"has no {missing[0]!r}" if missing else f"has a column {unknown[0]!r}"
        raise TaskError(
            f"{place} {said}; the columns are {', '.join(COLUMNS)}, the last two optional"
        )
    answers, wrong = (_words(record.get(column)) for column in ("answer", "wrong_answer"))
    positions = record.get("positions") or {}
    texts = (record["clean"], record["corrupted"], *(answers or ("",)), *(wrong or ()))
    if answers is None or wrong is None or not all(isinstance(t, str) and t.strip() for t in texts):
        raise TaskError(f"{place}: prompts must be texts, and answers texts or lists of texts")
    if not isinstance(positions, dict) or not all(type(i) is int for i in positions.values()):
        raise TaskError(f"{place}: positions must be an object from names to whole numbers")
    return Row(place, record["clean"], record["corrupted"], answers, wrong, positions)


def _words(value: object) -> list[Any] | None:
    if value is None:
        return []
    if isinstance(value, str):
        value = [value]
    return value if isinstance(value, list) else None


def _pair(vocabulary: Vocabulary, row: Row) -> Pair:
    clean, corrupted = vocabulary.encode(row.clean), vocabulary.encode(row.corrupted)
    if len(clean) != len(corrupted):
        raise PromptError(
            f"{row.place} is misaligned: {len(clean)} clean tokens {_shown(vocabulary, clean)} and "
            f"{len(corrupted)} corrupted ones {_shown(vocabulary, corrupted)}; "
            "make both prompts equally long"
        )
    if clean == corrupted:
        raise PromptError(f"{row.place}: the corruption changes nothing; change the prompt")
    offset = 0 if vocabulary.bos is None else 1
    positions = {name: index + offset for name, index in row.positions.items()}
    for name, index in positions.items():
        if not offset <= index < len(clean):
            raise PromptError(
                f"{row.place}: the position {name!r} is {index - offset} and the prompt has "
                f"{len(clean) - offset} tokens, counted from 0"
            )
    answers, wrong = (
        [_answer(vocabulary, row, word) for word in words]
        for words in (row.answers, row.wrong_answers)
    )
    return Pair(clean, corrupted, [answers], [wrong] if wrong else (), positions=positions)


def _shown(vocabulary: Vocabulary, tokens: Sequence[int]) -> str:
    return "|".join(vocabulary.decode([token]) for token in tokens)


def _answer(vocabulary: Vocabulary, row: Row, word: str) -> int:
    try:
        return vocabulary.answer(word.strip())
    except TaskError as error:
        raise TaskError(f"{row.place}: {error}") from None
