"""The directory of a search: its settings, its decisions, and at last its circuit.

`circuit.json` is written last: where it exists, the run is complete.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from circuitfind.circuit import FORMAT, Circuit, load_circuit
from circuitfind.directories.config import RunConfig
from circuitfind.directories.decisions import DecisionLog, decision_log, read_decisions
from circuitfind.directories.kinds import content_kind
from circuitfind.directories.work import CIRCUIT, CONFIG, WorkDirectory, read_config
from circuitfind.errors import CircuitfindError, GraphError, RunDirectoryError
from circuitfind.files import read_bytes
from circuitfind.graph import Graph
from circuitfind.methods.base import circuit_of
from circuitfind.plugins import expect, facts_in, plugin_facts
from circuitfind.question import FOUND_ON, require_same
from circuitfind.records import from_json

DECISIONS, SCORECARD, PAGE = "decisions.jsonl", "scorecard.json", "report.html"
TRIALS, TRIED = "thresholds.json", "tried"
"""How several thresholds did, and the runs with those that the automatic one has given up."""

KIND = FORMAT.rpartition(" ")[0].encode()
"""What is near the beginning of every circuit file."""

TRIALS_FORMAT = "circuitfind thresholds 1"
"""What the first says of itself; that of version 0.1.0 says nothing, and is read as well."""


def config_of_run(path: Path, circuit: Circuit) -> RunConfig:
    """Return a run's settings, which must be those that its circuit was found with.

    Raises:
        RunDirectoryError: They are damaged, or the circuit's file says otherwise.
        NewerFileError: A newer version has written them.
    """
    config = read_config(RunConfig, path)
    own = {name: value for name, value in circuit.origin.items() if name in config.identity}
    try:
        found = from_json(RunConfig, {**config.stored(), **own}, "its origin").completed()
    except (ValueError, TypeError, CircuitfindError) as error:
        raise RunDirectoryError(
            f"the origin in {path / CIRCUIT} cannot be used ({error}); restore the file"
        ) from None
    if different := "; ".join(config.differences(found)):
        raise RunDirectoryError(
            f"{path / CIRCUIT} was found with other settings than {CONFIG} beside it says "
            f"({different}); restore the file that was changed"
        )
    return config


class RunDirectory(WorkDirectory[RunConfig]):
    """The directory of one run."""

    kind = RunConfig
    lasting = (DECISIONS,)

    @property
    def is_complete(self) -> bool:
        return (self.path / CIRCUIT).is_file() and (self.path / SCORECARD).is_file()

    @classmethod
    def is_ours(cls, file: Path) -> bool:
        return (
            super().is_ours(file)
            or (file.name == DECISIONS and file.stat().st_size == 0)
            or file.name == TRIED
            or (file.name == TRIALS and file.with_name(TRIED).is_dir())
        )

    @contextmanager
    def recording(
        self, facts: Mapping[str, str], foreword: Sequence[str] = ()
    ) -> Iterator[DecisionLog]:
        """Work in the directory, and open the log of decisions; see `working` and `begin`."""
        with self.working():
            self.begin(facts, foreword)
            with decision_log(self.path / DECISIONS) as log:
                yield log


def circuit_file(path: Path) -> Path:
    """Return a run directory's circuit file, or the path itself if it is no directory."""
    return path / CIRCUIT if path.is_dir() else path


def effects_of(path: Path, circuit: Circuit) -> Float[Tensor, "writer reader"] | None:
    """Return the effects of all edges that a run decided about, of cut ones too.

    Where an edge was scored and not measured, its score; NaN where there is neither.

    Args:
        path: A run directory, or its circuit file.
        circuit: The circuit there.

    Returns:
        The effects; None where there is a circuit without the run that found it.

    Raises:
        RunDirectoryError: The decisions are damaged, or those of another circuit.
    """
    file = circuit_file(path)
    log = file.with_name(DECISIONS)
    if file.name != CIRCUIT or not log.is_file():
        return None
    try:
        return circuit_of(circuit.graph, read_decisions(log)).effects
    except GraphError as error:
        raise RunDirectoryError(f"{log} does not belong to its circuit: {error}") from None


def digest_of(circuit: Circuit) -> str:
    """Return a hash of a circuit and of what it was found on, but for the versions in use."""
    origin = {name: value for name, value in circuit.origin.items() if name != "versions"}
    text = replace(circuit, origin=origin).to_json()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_circuit_of(path: Path, graph: Graph | None = None) -> Circuit:
    """Read the circuit of a run directory or file.

    Raises:
        RunDirectoryError: The run has no circuit yet, the directory holds one of another name, or
            a plug-in that it was found with has changed since.
        CircuitFileError: There is none, or it cannot be trusted.
    """
    if content_kind(path) == "search" and not (path / CIRCUIT).is_file():
        raise RunDirectoryError(
            f"the run in {path} is not finished, so it has no circuit yet; repeat its "
            "`circuitfind discover` command to resume it"
        )
    if path.is_dir() and not (path / CIRCUIT).is_file() and (file := _other_circuit(path)):
        raise RunDirectoryError(f"{path} holds no {CIRCUIT}, but another circuit; give {file}")
    circuit = load_circuit(circuit_file(path), graph)
    versions, found = circuit.origin.get("versions"), f"the circuit in {path}"
    expect(versions)
    require_same(facts_in(versions), plugin_facts(), found, FOUND_ON)
    return circuit


def _other_circuit(path: Path) -> Path | None:
    """Return a circuit file of another name in a directory, as `rivals` and `stability` write."""
    for file in sorted(path.glob("*.json")):
        with suppress(OSError):
            if KIND in read_bytes(file)[:100]:
                return file
    return None
