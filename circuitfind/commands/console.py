"""What the commands print, and how they end: results to stdout, everything else to stderr."""

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from circuitfind.errors import CircuitfindError, ReportError

if TYPE_CHECKING:
    from rich.table import Table

    from circuitfind.methods.base import Progress
    from circuitfind.progress import Checkpoint

INTERRUPTED = 130
OUT_OF_TIME = 124
"""As `timeout` exits."""

_USER_ERROR = 2
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
        code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
        if code == INTERRUPTED:
            raise RunInterruptedError("interrupted")
    except (CircuitfindError, _UsageError) as error:
        tell(f"circuitfind: {_one_line(error)}")
        return _USER_ERROR
    except (RunInterruptedError, KeyboardInterrupt) as error:
        # The terminal has shown ^C at the start of this line.
        start = "\n" if sys.stderr.isatty() else ""
        tell(f"{start}circuitfind: {str(error) or 'interrupted'}")
        return getattr(error, "code", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, _UsageError):
        command = error.ctx.command_path if error.ctx else "circuitfind"
        text = f"{error.format_message().rstrip('.')}; see `{command} --help`"
    return " ".join(text.split())


@contextmanager
def interruptible(path: Path) -> Iterator[None]:
    """Say on Ctrl-C, and when the time is over, how to go on."""
    from circuitfind.runs.budget import BudgetSpentError

    try:
        yield
    except BudgetSpentError as spent:
        message = f"the time is over: {spent}; repeat the command to resume in {path}"
        raise RunInterruptedError(message, OUT_OF_TIME) from None
    except KeyboardInterrupt:
        what = f"repeat the command to resume in {path}" if path.exists() else "nothing was written"
        raise RunInterruptedError(f"interrupted; {what}") from None


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


def print_table(table: "Table") -> None:
    """Print a table, as wide as the terminal; without a terminal, each row stays on its line."""
    from rich.console import Console

    shown = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if shown else 10_000
    drawn = io.StringIO()
    Console(file=drawn, force_terminal=shown, width=width, highlight=False).print(table)
    emit("".join(f"{line.rstrip()}\n" for line in drawn.getvalue().splitlines()))


@contextmanager
def progress_bar() -> "Iterator[Callable[[Progress | Checkpoint], None]]":
    """Show on stderr, if that is a terminal, how far a run is and the time that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from circuitfind.progress import Checkpoint

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[kept]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task("edges", total=None, kept="")
        kept: list[bool] = []

        def on_progress(progress: "Progress | Checkpoint") -> None:
            steps = progress if isinstance(progress, Checkpoint) else progress.checkpoint
            if steps is not None:
                bar.update(
                    shown, description=steps.step, total=steps.total, completed=steps.done, kept=""
                )
            if isinstance(progress, Checkpoint) or steps is not None:
                return
            # A resumed search repeats a reader that was cut short, and a series begins again at 0.
            before = progress.done - len(progress.decisions)
            kept[before:] = [decision.kept for decision in progress.decisions]
            bar.update(
                shown,
                description="edges",
                total=progress.total,
                completed=progress.done,
                kept=f"{sum(kept)} kept",
            )

        yield on_progress


@contextmanager
def pass_bar() -> "Iterator[Callable[[float, int], None]]":
    """Show on stderr, if that is a terminal, how far an evaluation is and the time that is left."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task("passes", total=None)

        def on_pass(done: float, total: int) -> None:
            bar.update(shown, completed=done, total=max(total, done))

        yield on_pass


def quieten_libraries() -> None:
    """Keep what the libraries below log and warn of off the user's terminal."""
    import logging
    import warnings

    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    warnings.simplefilter("ignore")
