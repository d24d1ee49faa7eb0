"""The directory of a search for rivals: settings, work so far, figures, circuits, drawing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from circuitfind.circuit import Circuit
from circuitfind.comparison.rivals import Rivals
from circuitfind.directories.attempts import ATTEMPTS, drop
from circuitfind.directories.passes import PassDirectory
from circuitfind.directories.work import stored_result
from circuitfind.limits import require, require_fields
from circuitfind.records import as_json
from circuitfind.reports.diagram import draw_difference
from circuitfind.settings import Settings

RESULT, FORMAT, PASSES = "rivals.json", "circuitfind rivals 1", "passes.jsonl"
DRAWING, RIVAL = "rivals.svg", "rival.json"


@dataclass(frozen=True)
class RivalsConfig(Settings):
    """Settings of a search for rivals.

    Attributes:
        restarts: How many searches are made where not every circuit can be measured.
        threshold: The threshold of these; None for the one of the run, where its method has one in
            the metric's unit, or else a share of the gap.
        tolerance: How much less faithful than the circuit a rival may be.
        seed: Fixes the orders of the searches.
        device: Where to compute.
        memory: How many bytes may be taken beside the model; by default what it takes.
        circuits: A hash of the circuit's file; filled in when it is read.
    """

    restarts: int = 12
    threshold: float | None = None
    tolerance: float = 0.0
    seed: int = 0
    device: str = "cpu"
    memory: int | None = None
    circuits: tuple[str, ...] = ()

    form: ClassVar[str] = "circuitfind rivals run 1"
    noun: ClassVar[str] = "search for rivals"
    incidental: ClassVar[frozenset[str]] = frozenset({"device", "memory"})

    def __post_init__(self) -> None:
        require_fields(self)
        require(restart_threshold=self.threshold)


class RivalsDirectory(PassDirectory[RivalsConfig]):
    """The directory of one search for rivals."""

    kind = RivalsConfig
    last = RESULT
    passes = PASSES
    lasting = (PASSES, ATTEMPTS)

    def result(self) -> Rivals | None:
        """Return the result, if it is there.

        Raises:
            RunDirectoryError: The file is damaged.
        """
        return stored_result(self.path / RESULT, Rivals, FORMAT)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the result."""
        return self.written(RESULT, RIVAL, DRAWING)

    def write_result(self, found: Rivals, circuit: Circuit, rivals: Sequence[Circuit]) -> None:
        """Write the figures, and the rival that shares least with its drawing."""
        if rivals:
            self.write(RIVAL, rivals[0].to_json())
            names = ("the found circuit", "the rival")
            self.write(DRAWING, draw_difference(circuit, rivals[0], names=names).svg())
        # Written last: where it is, the others are.
        self.write(RESULT, json.dumps({"format": FORMAT, **as_json(found)}, indent=1) + "\n")
        self.drop_passes()

    def drop_passes(self) -> None:
        drop(self.path)
        super().drop_passes()
