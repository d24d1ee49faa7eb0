"""The directory of families of prompts: settings, work so far, figures, circuits, drawings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from circuitfind.circuit import Circuit
from circuitfind.comparison.families import Families
from circuitfind.directories.passes import PassDirectory
from circuitfind.directories.work import stored_result
from circuitfind.limits import require_fields
from circuitfind.methods.shortlist import EXACT, RANKED_BY, ranking_of
from circuitfind.records import as_json
from circuitfind.reports.families import draw_families, draw_shares
from circuitfind.settings import Settings

RESULT, FORMAT, PASSES = "families.json", "circuitfind families 1", "passes.jsonl"
MATRIX, DRAWING = "faithfulness.svg", "families.svg"


@dataclass(frozen=True)
class FamiliesConfig(Settings):
    """Settings of a search for families of prompts.

    Attributes:
        ranked_by: What scores the edges for each prompt: `eap`, `eap-ig`, either with rules for
            its gradients (`eap:gim`), or `exact`, the effect of cutting each edge alone.
        families: How many families there are; None where the test and the silhouette decide.
        target_faithfulness: How faithful the circuit of a family is on its prompts.
        seed: Fixes the halves of the test and the orders that attributes are compared with.
        device: Where to compute.
        memory: How many bytes may be taken beside the model; by default what it takes.
        circuits: A hash of the circuit's file; filled in when it is read.
    """

    ranked_by: str = RANKED_BY
    families: int | None = None
    target_faithfulness: float = 0.9
    seed: int = 0
    device: str = "cpu"
    memory: int | None = None
    circuits: tuple[str, ...] = ()

    form: ClassVar[str] = "circuitfind families run 1"
    noun: ClassVar[str] = "search for families"
    incidental: ClassVar[frozenset[str]] = frozenset({"device", "memory"})

    def __post_init__(self) -> None:
        require_fields(self)
        if self.ranked_by != EXACT:
            ranking_of(self.ranked_by, EXACT)


class FamiliesDirectory(PassDirectory[FamiliesConfig]):
    """The directory of one search for families."""

    kind = FamiliesConfig
    last = RESULT
    passes = PASSES
    lasting = (PASSES,)

    def result(self) -> Families | None:
        """Return the result, if it is there.

        Raises:
            RunDirectoryError: The file is damaged.
        """
        return stored_result(self.path / RESULT, Families, FORMAT)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the result."""
        found = self.result()
        names = [] if found is None else [*(each.name for each in found.families), "union"]
        return self.written(RESULT, *map(_file_of, names), DRAWING, MATRIX)

    def write_result(self, found: Families, circuits: Mapping[str, Circuit]) -> None:
        """Write the circuit of each family and their union, the drawings and the figures."""
        for name, circuit in circuits.items():
            self.write(_file_of(name), circuit.to_json())
        own = [circuits[family.name] for family in found.families]
        self.write(DRAWING, draw_families(own).svg())
        self.write(MATRIX, draw_shares(found).svg())
        # Written last: where it is, the others are.
        self.write(RESULT, json.dumps({"format": FORMAT, **as_json(found)}, indent=1) + "\n")
        self.drop_passes()


def _file_of(circuit: str) -> str:
    return f"{circuit.replace(' ', '-')}.json"
