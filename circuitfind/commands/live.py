"""Progress of a sweep on stderr: live on a terminal, else lines when a run begins and ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from circuitfind.commands.console import tell
from circuitfind.directories.decisions import count_decisions
from circuitfind.directories.directory import DECISIONS
from circuitfind.directories.work import foreword_of
from circuitfind.sweeps.running import State, Watch
from circuitfind.sweeps.work import Outcome


@contextmanager
def watching() -> Iterator[Watch]:
    """Show how a sweep goes while this is open."""
    from rich.console import Console
    from rich.live import Live

    from circuitfind.reports.terminal import sweep_view

    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines()
        yield Watch(lines.state, lines.ended)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(state: State) -> None:
            running = {
                name: (_decided(path), foreword_of(path)) for name, path in state.running.items()
            }
            counts = state.finished, len(state.failed), state.total
            live.update(sweep_view(*counts, running), refresh=True)

        yield Watch(show, lambda name, outcome, again: None)


class _Lines:
    """Lines about runs: what is known before the search, and how each ended."""

    def __init__(self) -> None:
        self._silent: dict[str, Path] = {}
        self._told: set[str] = set()

    def state(self, state: State) -> None:
        self._silent |= {n: path for n, path in state.running.items() if n not in self._told}
        for name in list(self._silent):
            self._tell_foreword(name)

    def ended(self, name: str, outcome: Outcome, again: bool) -> None:  # noqa: FBT001
        self._tell_foreword(name)
        more = ", tried again" if again else ""
        tell(f"{name}: {outcome.kind} after {outcome.seconds:.1f} s{more}")

    def _tell_foreword(self, name: str) -> None:
        if name in self._silent and (lines := foreword_of(self._silent[name])):
            del self._silent[name]
            self._told.add(name)
            for line in lines:
                tell(f"{name}: {line}")


def _decided(path: Path) -> int:
    """Return how many decisions a run has made, as its file tells."""
    try:
        return count_decisions(path / DECISIONS)
    except OSError:
        return 0
