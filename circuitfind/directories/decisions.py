"""The file of a run's decisions: a JSON line each, appended as the search decides.

The first line names the format. A line counts when it ends. What an interrupted write left, part of
a line or of a reader's decisions, is overwritten when the search gets there again.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from circuitfind.errors import RunDirectoryError
from circuitfind.files import read_bytes
from circuitfind.methods.base import Decision, Progress
from circuitfind.records import body_of, from_json, parse_json
from circuitfind.store import Log, parts

FORMAT = "circuitfind decisions 1"
HEAD = json.dumps({"format": FORMAT}).encode() + b"\n"


class DecisionLog:
    """Reads and appends the decisions of one run.

    Attributes:
        earlier: The decisions that the file held when it was opened.

    Args:
        log: The file.
        path: Its path, for messages.

    Raises:
        RunDirectoryError: A line other than an incomplete last one is damaged.
    """

    def __init__(self, log: Log, path: Path) -> None:
        self._log = log
        self.earlier: Sequence[Decision] = _decisions(log.head, log.lines, path)

    def record(self, progress: Progress) -> None:
        """Write decisions at their place in the search, and hand them to the operating system.

        Raises:
            RunDirectoryError: They cannot be written.
        """
        lines = [_line(decision) for decision in progress.decisions]
        self._log.write(lines, after=progress.done - len(lines))

    def holds(self, decisions: Sequence[Decision]) -> bool:
        """Return whether these are the decisions that were recorded."""
        return self._log.lines == [_line(decision) for decision in decisions]


@contextmanager
def decision_log(path: Path) -> Iterator[DecisionLog]:
    """Open the file of some decisions, or begin it.

    Raises:
        RunDirectoryError: It cannot be opened, or a line of it is damaged.
    """
    with Log(path, HEAD) as log:
        yield DecisionLog(log, path)


def text_of(decisions: Sequence[Decision]) -> str:
    """Return the content of a file of these decisions."""
    return b"".join([HEAD, *map(_line, decisions)]).decode()


def read_decisions(path: Path) -> Sequence[Decision]:
    """Return the decisions of a finished run.

    Raises:
        RunDirectoryError: The file cannot be read, or a line of it is damaged.
    """
    try:
        return _decisions(*parts(read_bytes(path)), path)
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from None


def count_decisions(path: Path) -> int:
    """Return how many decisions a file holds.

    Raises:
        OSError: It cannot be read.
    """
    return len(parts(read_bytes(path))[1])


def _decisions(head: bytes, lines: Sequence[bytes], path: Path) -> list[Decision]:
    if head:
        with _reported(f"{path}, line 1"):
            body_of(parse_json(head), FORMAT, path)
    first = 2 if head else 1
    return [_decision(f"{path}, line {number}", line) for number, line in enumerate(lines, first)]


def _line(decision: Decision) -> bytes:
    content = asdict(decision)
    if decision.error is None:
        # Most decisions have none, and files of versions that knew none have the same lines.
        del content["error"]
    return json.dumps(content).encode() + b"\n"


def _decision(place: str, line: bytes) -> Decision:
    with _reported(place):
        decision: Decision = from_json(Decision, parse_json(line, finite=False))
        return decision


@contextmanager
def _reported(place: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise RunDirectoryError(
            f"{place}, is damaged ({error}); delete the lines from there on to resume before them"
        ) from None
