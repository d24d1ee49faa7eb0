"""Progress of a command on stderr: a bar on a terminal, elsewhere a line now and then.

Logs of batch systems show no bars, and a search can take hours. There a line every 20 seconds says
what is done and for how long the command has run, also while a model is loaded.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from circuitfind.commands.console import tell

if TYPE_CHECKING:
    from circuitfind.methods.base import Progress
    from circuitfind.progress import Checkpoint

FIRST_LINE, NEXT_LINES = 8.0, 20.0
"""Seconds until the first line, and between two of them."""

START = "..."
"""The start of such a line, which tells it from other messages."""


class Lines:
    """Lines about what is being done, written by a thread of its own while this is open."""

    def __init__(self) -> None:
        self._said, self._started = "preparing", time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> "Lines":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def say(self, text: str) -> None:
        """Take note of how far things are."""
        self._said = text

    def _write(self) -> None:
        pause = FIRST_LINE
        while not self._over.wait(pause):
            tell(f"{START} {self._said}, {time.monotonic() - self._started:.0f} s")
            pause = NEXT_LINES


@contextmanager
def progress_bar() -> "Iterator[Callable[[Progress | Checkpoint], None]]":
    """Show how far a search, a measurement or an evaluation is while this is open."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        with Lines() as lines:
            yield _observer(
                lambda step, done, total, kept: lines.say(f"{done} of {total} {step}{kept}")
            )
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[kept]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        shown = bar.add_task("preparing", total=None, kept="")
        yield _observer(
            lambda step, done, total, kept: bar.update(
                shown, description=step, completed=done, total=total, kept=kept.lstrip(", ")
            )
        )


def _observer(
    show: Callable[[str, int, int, str], None],
) -> "Callable[[Progress | Checkpoint], None]":
    """Return what is told of progress, and shows the kind of steps, those done, all, and more."""
    from circuitfind.progress import Checkpoint

    kept: list[bool] = []

    def on_progress(progress: "Progress | Checkpoint") -> None:
        steps = progress if isinstance(progress, Checkpoint) else progress.checkpoint
        if steps is not None:
            show(steps.step, steps.done, steps.total, "")
        if isinstance(progress, Checkpoint) or steps is not None:
            return
        # A resumed search repeats a reader that was cut short, and a series begins again at 0.
        before = progress.done - len(progress.decisions)
        kept[before:] = [decision.kept for decision in progress.decisions]
        show("edges", progress.done, progress.total, f", {sum(kept)} kept")

    return on_progress
