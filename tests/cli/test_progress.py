"""Where stderr is no terminal, a long command says now and then how far it is."""

import time

from circuitfind.commands import progress
from circuitfind.methods.base import Decision, Progress
from circuitfind.progress import Checkpoint


def test_a_batch_log_shows_how_far_a_search_is(monkeypatch, capfd):
    monkeypatch.setattr(progress, "FIRST_LINE", 0.05)
    monkeypatch.setattr(progress, "NEXT_LINES", 0.05)
    with progress.progress_bar() as on_progress:
        wait_for(capfd, "... preparing, 0 s\n")
        cut, kept = Decision("a", False, "tested"), Decision("b", True, "tested")  # noqa: FBT003
        on_progress(Progress(2, 479, (cut, kept)))
        wait_for(capfd, "... 2 of 479 edges, 1 kept, 0 s\n")
        on_progress(Progress(0, 479, (), checkpoint=Checkpoint(3, 5, "gradients")))
        wait_for(capfd, "... 3 of 5 gradients, 0 s\n")


def test_a_quick_command_is_silent(capfd):
    with progress.progress_bar() as on_progress:
        on_progress(Checkpoint(1, 5, "passes"))
    assert capfd.readouterr() == ("", "")


def test_nothing_is_written_after_the_end(monkeypatch, capfd):
    monkeypatch.setattr(progress, "FIRST_LINE", 0.01)
    monkeypatch.setattr(progress, "NEXT_LINES", 0.01)
    with progress.progress_bar() as on_progress:
        on_progress(Checkpoint(1, 5, "passes"))
        wait_for(capfd, "... 1 of 5 passes, 0 s\n")
    capfd.readouterr()
    time.sleep(0.1)
    assert capfd.readouterr().err == ""


def wait_for(capfd, line):
    """Wait until a line has been written to stderr."""
    seen = ""
    for _ in range(1000):
        seen += capfd.readouterr().err
        if line in seen:
            return
        time.sleep(0.01)
    raise AssertionError(seen)
