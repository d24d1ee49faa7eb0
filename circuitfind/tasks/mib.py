"""Tasks of the Mechanistic Interpretability Benchmark (MIB), from local copies of its data sets.

A JSONL file with a row of a data set on each line, as exported from `mib-bench/ioi`,
`copycolors_mcqa`, `arc_easy`, `arc_challenge`, `arithmetic_addition` or `arithmetic_subtraction`. A
row says by its fields which kind it is:

    kind         clean prompt   corrupted prompt                    answers, right and wrong
    ioi          prompt         s2_io_flip_counterfactual.prompt    " IO" and " S" of the metadata
    choices      prompt         symbol_counterfactual.prompt        the labels of both answer keys
    arithmetic   prompt         random_counterfactual.prompt        both labels

The first token of an answer stands for it. Rows whose names, labels or results the tokenizer does
not write in equally many tokens (results: in one) are left out, and so are arithmetic rows of
another operator than the first; the first n of the others are taken in their order. Every prompt
begins with the token that starts sequences, or else that ends them. The corrupted run sees the
clean prompt's attention mask, so a shorter corrupted prompt goes on with padding and a longer one
is cut. Mueller et al. 2025, arXiv 2504.13151.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuitfind.errors import TaskError, quoted
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.pairs import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.rows import LineError

_KINDS = {
    "s2_io_flip_counterfactual": "ioi",
    "symbol_counterfactual": "choices",
    "random_counterfactual": "arithmetic",
}


@dataclass(frozen=True)
class MibRow:
    """What a row of a data set asks.

    Attributes:
        line: Its number in the file, from 1.
        clean: The clean prompt.
        corrupted: The corrupted one.
        right: The answer to the clean prompt, with the space before it.
        wrong: The answer to the corrupted one.
        alike: Texts that must take equally many tokens.
        single: Whether each of these must take one token.
        operator: That of an arithmetic row.
    """

    line: int
    clean: str
    corrupted: str
    right: str
    wrong: str
    alike: tuple[str, ...]
    single: bool = False
    operator: str | None = None


def is_official(record: Mapping[str, Any]) -> bool:
    """Return whether a line of a file is a row of one of MIB's data sets."""
    return any(name in record for name in _KINDS)


def mib_row(line: int, record: Mapping[str, Any]) -> MibRow | None:
    """Read a row.

    Returns:
        The row, or None if it has no counterfactual.

    Raises:
        LineError: A field is missing or of another kind.
    """
    column = next((name for name in _KINDS if name in record), None)
    if column is None:
        raise LineError(f" is not a row of MIB's data sets: it has none of {', '.join(_KINDS)}")
    try:
        other = record[column]
        if other is None or other["prompt"] is None:
            return None
        if not all(isinstance(each["prompt"], str) for each in (record, other)):
            raise LineError(" has a prompt that is no text")
        return _READ[_KINDS[column]](line, record, other)
    except KeyError as error:
        raise LineError(f" is not a row of MIB's data sets: it has no {error}") from None
    except (TypeError, IndexError) as error:
        raise LineError(f" is not as the rows of MIB's data sets are: {error}") from None


def _ioi(line: int, record: Mapping[str, Any], other: Mapping[str, Any]) -> MibRow:
    right, wrong, third = (
        f" {_text(record['metadata'], name)}" for name in ("indirect_object", "subject", "random_c")
    )
    return MibRow(line, record["prompt"], other["prompt"], right, wrong, (right, wrong, third))


def _choices(line: int, record: Mapping[str, Any], other: Mapping[str, Any]) -> MibRow:
    right, wrong = (_text(each["choices"]["label"], each["answerKey"]) for each in (record, other))
    return MibRow(line, record["prompt"], other["prompt"], right, wrong, (right, wrong))


def _text(values: Any, place: Any) -> str:
    """Return a text that a row has in a place."""
    if not isinstance(found := values[place], str):
        raise LineError(f" has {quoted(found)} at {quoted(place)}, which is not a text")
    return found


def _arithmetic(line: int, record: Mapping[str, Any], other: Mapping[str, Any]) -> MibRow:
    labels = [record["label"], other["label"]]
    if not all(isinstance(label, str | int) for label in labels):
        raise LineError(f" has the labels {quoted(labels)}, which must be texts or numbers")
    right, wrong = map(str, labels)
    return MibRow(
        line,
        record["prompt"],
        other["prompt"],
        right,
        wrong,
        (right, wrong),
        single=True,
        operator=record["operator"],
    )


_READ = {"ioi": _ioi, "choices": _choices, "arithmetic": _arithmetic}


def mib_task(path: Path, rows: Sequence[MibRow]) -> Task:
    """Return the task of a data set's rows; n pairs are those of its first n rows."""

    def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
        pairs = list(_pairs(vocabulary, path, rows, n))
        if not pairs:
            raise TaskError(
                f"{path} has no row that this model's tokenizer can express; its names, labels or "
                "results take several tokens; choose another model"
            )
        return pairs

    return Task(
        name=path.stem,
        summary=f"the {len(rows)} rows of {path.name}, a data set of MIB",
        source=str(path),
        metric="logit-difference",
        write=write,
    )


def _pairs(vocabulary: Vocabulary, path: Path, rows: Sequence[MibRow], n: int) -> Iterator[Pair]:
    tokenizer = vocabulary.tokenizer
    start = _first([tokenizer.bos_token_id, tokenizer.eos_token_id])
    (padding,) = _first([tokenizer.pad_token_id, tokenizer.eos_token_id, 0])
    plain = replace(vocabulary, bos=None)
    same = (row for row in rows if row.operator == rows[0].operator)
    fitting = (row for row in same if _fits(plain, row))
    for _, row in zip(range(n), fitting, strict=False):
        clean, corrupted = ([*start, *plain.encode(text)] for text in (row.clean, row.corrupted))
        missing = len(clean) - len(corrupted)
        corrupted = [*corrupted, *[padding] * missing][: len(clean)]
        right, wrong = (plain.encode(text)[0] for text in (row.right, row.wrong))
        # Such a row changes no f: each circuit has the same metric on it.
        if right != wrong and clean != corrupted:
            source = f"{path.name}, line {row.line}"
            yield Pair(clean, corrupted, [[right]], [[wrong]], source=source)


def _first(tokens: Sequence[int | None]) -> list[int]:
    """Return the first token that there is, or none."""
    return [token for token in tokens if token is not None][:1]


def _fits(plain: Vocabulary, row: MibRow) -> bool:
    widths = {len(plain.encode(text)) for text in row.alike}
    return len(widths) == 1 and (not row.single or widths == {1})
