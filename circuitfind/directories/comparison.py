"""The directory of a comparison: `config.json` first, `comparison.json` last."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from circuitfind.comparison.chance import DRAWS
from circuitfind.comparison.result import Comparison, load_comparison
from circuitfind.directories.work import CONFIG, WorkDirectory
from circuitfind.limits import require_fields
from circuitfind.records import from_json
from circuitfind.settings import Settings

COMPARISON = "comparison.json"


@dataclass(frozen=True)
class ComparisonConfig(Settings):
    """Settings of a comparison.

    Attributes:
        seed: Fixes what is drawn at random.
        draws: How many exchanges of heads are drawn where there are too many to try all.
        by_name: Whether to compare names alone, which needs no model.
        device: Where to compute.
        memory: How many bytes an engine may take beside the model; by default what it takes.
        circuits: A hash of each circuit's file; filled in when they are read.
    """

    seed: int = 0
    draws: int = DRAWS
    by_name: bool = False
    device: str = "cpu"
    memory: int | None = None
    circuits: tuple[str, ...] = ()

    form: ClassVar[str] = "circuitfind comparison run 1"
    noun: ClassVar[str] = "comparison"
    incidental: ClassVar[frozenset[str]] = frozenset({"device", "memory"})

    def __post_init__(self) -> None:
        require_fields(self)


class ComparisonDirectory(WorkDirectory[ComparisonConfig]):
    """The directory of one comparison."""

    kind = ComparisonConfig
    last = COMPARISON

    @classmethod
    def is_ours(cls, file: Path) -> bool:
        is_drawing = file.name.startswith(("matrix.", "matched-", "difference-"))
        return super().is_ours(file) or is_drawing

    def there(self) -> ComparisonConfig | None:
        if (self.path / CONFIG).is_file() or not self.is_complete:
            return super().there()
        # Version 0.1.0 wrote the result alone.
        found = load_comparison(self.path / COMPARISON)
        circuits = [side.digest for side in found.circuits]
        read: ComparisonConfig = from_json(
            ComparisonConfig, {**found.settings, "circuits": circuits}, "its settings"
        )
        return read

    def result(self) -> Comparison | None:
        """Return the comparison if it is complete.

        Raises:
            ResultFileError: It is damaged.
        """
        return load_comparison(self.path / COMPARISON) if self.is_complete else None
