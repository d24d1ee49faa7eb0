"""Commands in processes that are killed at random moments."""

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cli.conftest import call
from tests.sweeps.conftest import files_of


def begun(words: Sequence[object]) -> int:
    """Begin a command in a copy of this process, which has loaded the libraries already."""
    child = os.fork()
    if child == 0:
        # Its end must not be this one's: no tests, no reports, no files of pytest.
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            os._exit(call(*words))
        finally:
            os._exit(70)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_after(words: Sequence[object], seconds: float) -> int:
    """Kill a command after some time, and return how it ended."""
    child = begun(words)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return ended(child)


def kill_and_resume(
    words: Callable[[Path], Sequence[object]],
    folder: Path,
    n_times: int,
    seed: int,
    stage: Callable[[Path], str],
    prepare: Callable[[Path], None] = lambda path: None,
) -> Counter[str]:
    """Kill a command at random moments, resume it, and compare with what nobody killed.

    Args:
        words: The command that works in a directory.
        folder: Where the directories lie.
        n_times: How often it is killed.
        seed: Fixes the moments.
        stage: Tells from a directory at what the command was killed.
        prepare: Puts into a directory what the command works on.

    Returns:
        How often the command was killed at which stage.
    """
    for name in ("whole", "again"):
        prepare(folder / name)
    # In this process, so that its copies need not load the libraries, each for itself.
    assert call(*words(folder / "whole")) == 0
    started = time.monotonic()
    assert ended(begun(words(folder / "again"))) == 0
    duration = time.monotonic() - started
    expected, moment, stages = files_of(folder / "whole"), random.Random(seed), Counter[str]()
    assert files_of(folder / "again") == expected
    for number in range(n_times):
        path = folder / f"killed-{number}"
        prepare(path)
        killed_after(words(path), moment.uniform(0, duration))
        stages[stage(path)] += 1
        assert ended(begun(words(path))) == 0, number
        assert files_of(path) == expected, number
    print(f"{n_times} kills: {dict(sorted(stages.items()))}", file=sys.stderr)
    return stages
