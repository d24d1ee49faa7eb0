"""The last checkpoint of a run that has its result at its end.

It lies in the run directory, in `state.safetensors` unless the file has another name, is replaced
in one step, at most once every few seconds, and is removed when the run is done.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save

from circuitfind.budget import BudgetSpentError
from circuitfind.errors import CircuitfindError, RunDirectoryError
from circuitfind.files import write_whole
from circuitfind.progress import Checkpoint, State
from circuitfind.store import STATE, held, reported
from circuitfind.stored import read_tensors

SECONDS_BETWEEN = 5.0
"""How much work the end of the process may cost."""


def read_state(path: Path, name: str = STATE) -> State | None:
    """Return the state that a run left in its directory, or None.

    Raises:
        RunDirectoryError: The file is damaged.
    """
    with reported(path):
        if not (path / name).is_file():
            return None
        try:
            state: State = read_tensors(path / name)
        except SafetensorError as error:
            raise RunDirectoryError(
                f"{path / name} is damaged ({error}); delete it to begin the search again"
            ) from None
        return state


@contextmanager
def checkpoints(path: Path, name: str = STATE) -> Iterator[Callable[[Checkpoint | None], None]]:
    """Give what writes states down: one every few seconds, and the last one of a run that is cut.

    A run is cut by Ctrl-C or by its budget of time.

    Raises:
        RunDirectoryError: A state cannot be written.
    """
    written_at, unwritten = time.monotonic(), None

    def write(state: State) -> None:
        with reported(path):
            write_whole(path / name, save({key: t.contiguous() for key, t in state.items()}))

    def keep(checkpoint: Checkpoint | None) -> None:
        nonlocal written_at, unwritten
        unwritten = (checkpoint.state if checkpoint else None) or unwritten
        if unwritten is not None and time.monotonic() - written_at >= SECONDS_BETWEEN:
            write(unwritten)
            written_at, unwritten = time.monotonic(), None

    try:
        yield keep
    except (KeyboardInterrupt, BudgetSpentError):
        if unwritten is not None:
            write(unwritten)
        raise


def drop_state(path: Path) -> None:
    """Remove the state of a run that is done."""
    with suppress(OSError):
        (path / STATE).unlink()


def drop_left_state(path: Path) -> None:
    """Remove the state that a process left which was killed between its result and the removal."""
    if (path / STATE).is_file():
        with suppress(CircuitfindError), held(path):
            drop_state(path)
