"""The directory of a dissociation: settings, the passes made so far, figures and the matrix."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from circuitfind.directories.passes import PassDirectory
from circuitfind.directories.work import stored_result
from circuitfind.evaluation.dissociate import N_RANDOM
from circuitfind.evaluation.dissociation import Dissociation
from circuitfind.files import digest
from circuitfind.limits import require_fields
from circuitfind.records import as_json
from circuitfind.reports.dissociation import draw_dissociation
from circuitfind.settings import Settings

RESULT, FORMAT, PASSES = "dissociation.json", "circuitfind dissociation 1", "passes.jsonl"
TABLE, MATRIX = "dissociation.csv", "dissociation.svg"


@dataclass(frozen=True)
class DissociationConfig(Settings):
    """Settings of a dissociation.

    Attributes:
        text: A file of unrelated text; None for none.
        own_edges: Whether the edges of a circuit that no other one has are knocked out alone.
        draws: How many random circuits each is compared with.
        seed: Fixes them.
        device: Where to compute.
        memory: How many bytes may be taken beside the model; by default what it takes.
        text_digest: A hash of the text; filled in by `pinned`.
        circuits: A hash of each circuit's file; filled in when they are read.
    """

    text: str | None = None
    own_edges: bool = False
    draws: int = N_RANDOM
    seed: int = 0
    device: str = "cpu"
    memory: int | None = None
    text_digest: str | None = None
    circuits: tuple[str, ...] = ()

    form: ClassVar[str] = "circuitfind dissociation run 1"
    noun: ClassVar[str] = "dissociation"
    incidental: ClassVar[frozenset[str]] = frozenset({"device", "memory", "text"})

    def __post_init__(self) -> None:
        require_fields(self)

    def pinned(self) -> "DissociationConfig":
        if self.text is None:
            return self
        file = Path(self.text).resolve()
        return replace(self, text=str(file), text_digest=digest(file))


class DissociationDirectory(PassDirectory[DissociationConfig]):
    """The directory of one dissociation."""

    kind = DissociationConfig
    last = RESULT
    passes = PASSES
    lasting = (PASSES,)

    def result(self) -> Dissociation | None:
        """Return the result, if it is there.

        Raises:
            RunDirectoryError: The file is damaged.
        """
        return stored_result(self.path / RESULT, Dissociation, FORMAT)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the result."""
        return self.written(RESULT, TABLE, MATRIX)

    def write_result(self, found: Dissociation) -> None:
        """Write the matrix, the table and the figures, and delete the passes."""
        self.write(MATRIX, draw_dissociation(found).svg())
        self.write(TABLE, found.to_csv())
        # Written last: where it is, the others are.
        self.write(RESULT, json.dumps({"format": FORMAT, **as_json(found)}, indent=1) + "\n")
        self.drop_passes()
