"""Progress of a sweep on stderr: live on a terminal, else a line per finished run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from circuitfind.commands.console import tell
from circuitfind.directories.decisions import count_decisions
from circuitfind.directories.directory import DECISIONS
from circuitfind.sweeps.running import State, Watch
from circuitfind.sweeps.work import Outcome


@contextmanager
def watching() -> Iterator[Watch]:
    """Show how a sweep goes while this is open."""
    from rich.console import Console
    from rich.live import Live

    from circuitfind.reports.terminal import sweep_view

    console = Console(stderr=True)

    def ended(name: str, outcome: Outcome, again: bool) -> None:  # noqa: FBT001
        more = ", tried again" if again else ""
        tell(f"{name}: {outcome.kind} after {outcome.seconds:.1f} s{more}")

    if not console.is_terminal:
        yield Watch(ended=ended)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(state: State) -> None:
            running = {name: _decided(path) for name, path in state.running.items()}
            counts = state.finished, len(state.failed), state.total
            live.update(sweep_view(*counts, running), refresh=True)

        yield Watch(show, lambda name, outcome, again: None)


def _decided(path: Path) -> int:
    """Return how many decisions a run has made, as its file tells."""
    try:
        return count_decisions(path / DECISIONS)
    except OSError:
        return 0
