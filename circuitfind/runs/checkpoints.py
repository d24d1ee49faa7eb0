"""The last checkpoint of a run whose method decides about all edges at its end.

It lies in `state.safetensors` in the run directory, is replaced in one step, at most once every few
seconds, and goes when the run is done.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from circuitfind.errors import RunDirectoryError
from circuitfind.methods.base import Progress, State
from circuitfind.runs.directory import STATE, reported, write_whole

SECONDS_BETWEEN = 5.0
"""How much work an interruption may cost."""


def read_state(path: Path) -> State | None:
    """Return the state that a run left in its directory, or None.

    Raises:
        RunDirectoryError: The file is damaged.
    """
    with reported(path):
        if not (path / STATE).is_file():
            return None
        try:
            state: State = load_file(path / STATE)
        except SafetensorError as error:
            raise RunDirectoryError(
                f"{path / STATE} is damaged ({error}); delete it to begin the search again"
            ) from None
        return state


def state_writer(path: Path) -> Callable[[Progress], None]:
    """Return what writes the states of checkpoints down, unless it did so a moment ago."""
    latest = time.monotonic()

    def write(progress: Progress) -> None:
        nonlocal latest
        state = progress.checkpoint.state if progress.checkpoint else None
        if state is None or time.monotonic() - latest < SECONDS_BETWEEN:
            return
        with reported(path):
            write_whole(path / STATE, save({name: t.contiguous() for name, t in state.items()}))
        latest = time.monotonic()

    return write


def drop_state(path: Path) -> None:
    """Remove the state of a run that is done."""
    with suppress(OSError):
        (path / STATE).unlink()
