"""The directory of a run's repetitions: each is a run in a directory below, and has its own files.

`config.json` says which run is repeated and is written first; `stability.json` is written last and
says which repetitions it is about.
"""

import json
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import ClassVar

from circuitfind.circuit import Circuit
from circuitfind.directories.config import RunConfig
from circuitfind.directories.work import WorkDirectory
from circuitfind.errors import RunDirectoryError
from circuitfind.evaluation.stability import Stability
from circuitfind.records import as_json, body_of, from_json
from circuitfind.reports.diagram import Diagram
from circuitfind.store import read_json, reported

STABILITY, CONSENSUS, DIAGRAM = "stability.json", "consensus.json", "consensus.svg"
VARIED = ("resamples", "seeds", "orders", "thresholds")
FORMAT = "circuitfind stability 1"
"""What `stability.json` says of itself; that of version 0.1.0 says nothing, and is made anew."""


@dataclass(frozen=True)
class StabilityConfig(RunConfig):
    """Settings of repetitions: the run, and what is varied.

    Attributes:
        circuits: A hash of the run's circuit.
        varied: What is varied.
        repetitions: How many repetitions for each.
        share: From which share of the runs on an edge is in the consensus.
    """

    _: KW_ONLY
    circuits: tuple[str, ...]
    varied: tuple[str, ...] = VARIED
    repetitions: int = 5
    share: float = 0.8

    form: ClassVar[str] = "circuitfind stability run 1"
    noun: ClassVar[str] = "set of repetitions"
    of_the_report: ClassVar[frozenset[str]] = frozenset({"varied", "repetitions", "share"})


class StabilityDirectory(WorkDirectory[StabilityConfig]):
    """The directory of one run's repetitions."""

    kind = StabilityConfig

    @property
    def is_complete(self) -> bool:
        return self.result() is not None

    @classmethod
    def is_ours(cls, file: Path) -> bool:
        # Version 0.1.0 wrote no settings; each repetition says whose it is.
        known = (*VARIED, STABILITY, CONSENSUS, DIAGRAM)
        return super().is_ours(file) or file.name.partition("-")[0] in known

    def result(self) -> Stability | None:
        """Return the figures, if they are there and of the repetitions that are asked for.

        Raises:
            RunDirectoryError: The file is damaged.
        """
        file = self.path / STABILITY
        if not file.is_file():
            return None
        try:
            content = body_of(read_json(file), FORMAT, file, optional=True)
            if content.get("of") != self.config.all_asked:
                return None
            found: Stability = from_json(Stability, content, "it")
        except ValueError as error:
            raise RunDirectoryError(
                f"{file} is damaged ({error}); delete it to compute it again"
            ) from None
        return found

    def write_result(self, found: Stability, agreed: Circuit, drawn: Diagram) -> None:
        """Write the figures, the circuit of the consensus and its drawing."""
        with reported(self.path):
            # Where it is, the others are those that it speaks of.
            (self.path / STABILITY).unlink(missing_ok=True)
        self.write(CONSENSUS, agreed.to_json())
        self.write(DIAGRAM, drawn.svg())
        content = {"format": FORMAT, "of": self.config.all_asked, **as_json(found)}
        self.write(STABILITY, json.dumps(content, indent=1) + "\n")
