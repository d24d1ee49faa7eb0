"""Results of a run, and reading them back from its directory."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from circuitfind import records
from circuitfind.circuit import Circuit
from circuitfind.directories.directory import SCORECARD, config_of_run, load_circuit_of
from circuitfind.errors import CircuitFileError, RunDirectoryError
from circuitfind.evaluation.scorecard import Scorecard
from circuitfind.store import read_json

FORMAT = "circuitfind scorecard 1"
"""What `scorecard.json` says of itself; that of version 0.1.0 says nothing, and is read as well."""


@dataclass(frozen=True)
class RunResult:
    """Results of a run.

    Attributes:
        path: The run directory.
        circuit: The circuit.
        card: Its scorecard.
        search: Figures of the search: seconds, edges tested, dead ends, self-check figures.
    """

    path: Path
    circuit: Circuit
    card: Scorecard
    search: Mapping[str, Any]

    def _repr_svg_(self) -> str:
        """Draw the circuit; notebooks call this."""
        return self.circuit._repr_svg_()

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        edges = [edge.name for edge in self.circuit.edges]
        return {"run": str(self.path), "edges": edges, **self.measured()}

    def measured(self) -> dict[str, Any]:
        """Return the content of `scorecard.json` but for its format."""
        return {"scorecard": asdict(self.card), "search": dict(self.search)}


def read_result(path: Path) -> RunResult:
    """Return what a finished run produced.

    Raises:
        RunDirectoryError: One of its files is missing or damaged, or its circuit was found with
            other settings than it has.
    """
    card, figures = read_scorecard(path / SCORECARD)
    try:
        circuit = load_circuit_of(path)
    except CircuitFileError as error:
        raise RunDirectoryError(f"{error}; delete the file to compute it again") from None
    config_of_run(path, circuit)
    return RunResult(path, circuit, card, figures)


def read_scorecard(path: Path) -> tuple[Scorecard, dict[str, Any]]:
    """Return a run's scorecard and the figures of its search.

    Raises:
        RunDirectoryError: The file is missing or damaged.
    """
    try:
        stored = records.body_of(read_json(path), FORMAT, path, optional=True)
        measured: Scorecard = records.from_json(Scorecard, stored["scorecard"], "the scorecard")
        return measured, dict(stored["search"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunDirectoryError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it to compute it again"
        ) from None
