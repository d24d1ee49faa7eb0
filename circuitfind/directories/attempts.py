"""Restarts of a search for rivals: what each came to, and the decisions of the one under way.

`attempts.jsonl` has a line for each restart that was made: its number, and the edges of its rival
with their effects, or null. The decisions of each search of the restart under way are in a file of
their own, or the last checkpoint of a training, until the restart is made.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from circuitfind.circuit import Circuit
from circuitfind.directories.checkpoints import checkpoints, read_state
from circuitfind.directories.decisions import decision_log
from circuitfind.errors import CircuitfindError
from circuitfind.graph import Graph
from circuitfind.methods.base import Decision, Progress
from circuitfind.progress import Checkpoint, State
from circuitfind.records import from_json, parse_json
from circuitfind.store import Log, reported
from circuitfind.stored import EdgeRow, masks_from

ATTEMPTS, SEARCHES = "attempts.jsonl", "restart-*"

Record = Callable[[Progress], None]
Keep = Callable[[Checkpoint | None], None]

_Line = tuple[int, tuple[tuple[str, float | None], ...] | None]


class Attempts:
    """Restarts that were made, now or earlier.

    Attributes:
        told: What a user should know of the file.

    Args:
        graph: That of the rivals.
        folder: Where they are kept; None keeps them as long as this object.
    """

    def __init__(self, graph: Graph, folder: Path | None = None) -> None:
        self._graph, self._folder = graph, folder
        self._log = None if folder is None else Log(folder / ATTEMPTS)
        self._known: dict[int, Circuit | None] = {}
        n_damaged = 0
        for line in self._log.lines if self._log else []:
            try:
                number, edges = from_json(_Line, parse_json(line))
                self._known[number] = None if edges is None else self._circuit(edges)
            except (ValueError, CircuitfindError):
                n_damaged += 1
        self.told = _told(len(self._known), n_damaged)

    def __contains__(self, number: int) -> bool:
        return number in self._known

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, number: int) -> Circuit | None:
        """Return the rival that a restart ended in; None if it ended in none."""
        return self._known[number]

    def add(self, number: int, rival: Circuit | None) -> None:
        """Keep what a restart came to, in place of its decisions."""
        self._known[number] = rival
        if self._log is None or self._folder is None:
            return
        edges = rival and [[edge.name, rival.effect(edge)] for edge in rival.edges]
        self._log.write([json.dumps([number, edges]).encode() + b"\n"])
        drop(self._folder)

    @contextmanager
    def searching(self, number: int, trial: int) -> Iterator[tuple[Sequence[Decision], Record]]:
        """Return the earlier decisions of a search of a restart, and what keeps further ones.

        Raises:
            RunDirectoryError: The decisions are damaged.
        """
        if self._folder is None:
            yield (), lambda progress: None
            return
        file = self._folder / _file_of(number, trial, "jsonl")
        with decision_log(file) as log:
            yield log.earlier, log.record

    @contextmanager
    def training(self, number: int, trial: int) -> Iterator[tuple[State | None, Keep]]:
        """Return what an earlier training of a restart left, and what keeps its checkpoints.

        Raises:
            RunDirectoryError: What it left is damaged.
        """
        if self._folder is None:
            yield None, lambda checkpoint: None
            return
        name = _file_of(number, trial, "safetensors")
        state = read_state(self._folder, name)
        with checkpoints(self._folder, name) as keep:
            yield state, keep

    def close(self) -> None:
        """Keep no more."""
        if self._log is not None:
            self._log.close()

    def _circuit(self, edges: Sequence[tuple[str, float | None]]) -> Circuit:
        rows = [EdgeRow(name, kept=True, effect=effect) for name, effect in edges]
        return Circuit(self._graph, *masks_from(self._graph, rows))


def _file_of(number: int, trial: int, ending: str) -> str:
    return SEARCHES.replace("*", f"{number}-{trial}.{ending}")


def _told(n_known: int, n_damaged: int) -> list[str]:
    found = []
    if n_known:
        found.append(f"restarts of an interrupted search that are not repeated: {n_known}")
    if n_damaged:
        found.append(f"damaged lines of {ATTEMPTS}, whose restarts are repeated: {n_damaged}")
    return found


def drop(folder: Path) -> None:
    """Delete the decisions and checkpoints of restarts that are made."""
    with reported(folder):
        for file in folder.glob(SEARCHES):
            file.unlink(missing_ok=True)
