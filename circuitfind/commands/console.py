"""Output and exit codes of the commands: results to stdout, everything else to stderr."""

import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from circuitfind.errors import (
    CircuitfindError,
    NoLockWarning,
    PluginWarning,
    ReportError,
    quoted,
    shortened,
)

if TYPE_CHECKING:
    from rich.table import Table


INTERRUPTED = 130
OUT_OF_TIME = 124
"""As `timeout` exits."""

_USER_ERROR = 2
_LONGEST = 400
"""Characters of a word in a message that are shown."""
_WIDE = 10_000
"""Columns of what is no terminal."""

# The base of what typer raises where the command line itself is wrong.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]


class RunInterruptedError(Exception):
    """A run that stopped before its end, with what to say about it, and the exit code."""

    def __init__(self, message: str, code: int = INTERRUPTED) -> None:
        super().__init__(message)
        self.code = code


def run_app(app: typer.Typer) -> int:
    """Run a command and return its exit code.

    What a user can act on becomes one line on stderr and code 2; Ctrl-C becomes one line and
    code 130, a spent budget of time one line and code 124; anything else is a bug and shows its
    traceback.
    """
    try:
        code = app(args=sys.argv[1:], standalone_mode=False)
        if code == INTERRUPTED:
            raise RunInterruptedError("interrupted")
    except (CircuitfindError, _UsageError) as error:
        tell(f"circuitfind: {_one_line(error)}")
        return _USER_ERROR
    except OSError as error:
        if error.filename is None:
            raise
        # A name that the system refuses (too long, not readable), wherever it was met first.
        tell(f"circuitfind: cannot use {quoted(str(error.filename))}: {error.strerror}")
        return _USER_ERROR
    except (RunInterruptedError, KeyboardInterrupt) as error:
        # The terminal has shown ^C at the start of this line.
        start = "\n" if sys.stderr.isatty() else ""
        tell(f"{start}circuitfind: {str(error) or 'interrupted'}")
        return getattr(error, "code", INTERRUPTED)
    return code if isinstance(code, int) else 0


def show_version(wanted: bool) -> bool:  # noqa: FBT001  (a callback of the command line)
    """Print the version and end, if that is wanted."""
    if wanted:
        from importlib.metadata import version

        emit(f"circuitfind {version('circuitfind')}\n")
        raise typer.Exit
    return wanted


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, _UsageError):
        command = error.ctx.command_path if error.ctx else "circuitfind"
        text = f"{shortened(error.format_message()).rstrip('.')}; see `{command} --help`"
    # Names and paths can be of any length.
    words = (word if len(word) <= _LONGEST else f"{word[:_LONGEST]}..." for word in text.split())
    return " ".join(words)


@contextmanager
def interruptible(path: Path | None, budget: str | None = None) -> Iterator[None]:
    """Say on Ctrl-C, and when the time is over, how to go on.

    Args:
        path: Where what was interrupted resumes; None where nothing is kept.
        budget: The time that the command was given, as the user wrote it.
    """
    from circuitfind.budget import BudgetSpentError, ended_after, seconds_of

    try:
        with ended_after(seconds_of(budget)):
            yield
    except BudgetSpentError as spent:
        raise RunInterruptedError(
            f"the time is over: {spent}; {_rest(path)}", OUT_OF_TIME
        ) from None
    except KeyboardInterrupt:
        raise RunInterruptedError(f"interrupted; {_rest(path)}") from None


def _rest(path: Path | None) -> str:
    if path is None or not path.exists():
        return "nothing was written"
    return f"repeat the command to resume in {path}"


def tell(message: str) -> None:
    """Write a line to stderr."""
    typer.echo(message, err=True)


def emit(text: str) -> None:
    """Write the result to stdout.

    Raises:
        ReportError: It cannot be written.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # Python tries again when it exits, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ReportError(f"cannot write the result to stdout: {error.strerror}") from None


def print_json(value: object) -> None:
    """Print a value as JSON."""
    emit(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool = False) -> None:
    """Print rows with the same columns as a table, or as a JSON list."""
    if as_json:
        print_json(list(rows))
        return
    from circuitfind.reports.terminal import listing

    print_table(listing(list(rows[0]), [[str(value) for value in row.values()] for row in rows]))


def print_facts(facts: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Print names and values as a table, or as a JSON object."""
    if as_json:
        print_json(facts)
        return
    from circuitfind.reports.terminal import fact_table

    print_table(fact_table(facts))


def print_tables(tables: Iterable["Table"]) -> None:
    """Print tables with an empty line between two."""
    for number, table in enumerate(tables):
        emit("\n" if number else "")
        print_table(table)


def print_table(table: "Table") -> None:
    """Print a table, as wide as the terminal; without a terminal, each row stays on its line.

    Where the terminal is too narrow for all columns, the cells of a row stand below one another.
    """
    from rich.console import Console

    from circuitfind.reports.terminal import fitted

    shown = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if shown else _WIDE
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=shown, width=width, highlight=False, emoji=False)
    console.print(fitted(table, width))
    emit("".join(f"{line.rstrip()}\n" for line in drawn.getvalue().splitlines()))


def quieten_libraries() -> None:
    """Keep what the libraries below log and warn of off the user's terminal."""
    import logging
    import warnings

    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    warnings.simplefilter("ignore")
    for shown in (NoLockWarning, PluginWarning):
        warnings.simplefilter("once", shown)
    warnings.showwarning = lambda message, *_: tell(f"warning: {message}")
