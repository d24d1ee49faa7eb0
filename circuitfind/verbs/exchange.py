"""Circuits of runs to files of others, and back into directories of ours."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import circuit_file, effects_of, load_circuit_of
from circuitfind.directories.work import CIRCUIT
from circuitfind.errors import CircuitFileError, RunDirectoryError, quoted
from circuitfind.files import digest, read_bytes, write_whole
from circuitfind.formats import FORMATS, import_circuit
from circuitfind.formats.submission import circuits, importances
from circuitfind.formats.tables import write_csv
from circuitfind.graph import Graph
from circuitfind.store import reported

SUBMISSIONS: Mapping[str, Callable[[Circuit], dict[str, str]]] = {
    "mib-importances": importances,
    "mib-circuits": circuits,
}
"""Folders rather than files."""

SCORES = "scores.csv"


def scored_circuit(path: Path) -> Circuit:
    """Return the circuit of a run or file, with the effects of all edges that were measured.

    Raises:
        CircuitfindError: There is no circuit, or a file cannot be trusted.
    """
    circuit = load_circuit_of(path)
    effects = effects_of(path, circuit)
    return circuit if effects is None else replace(circuit, effects=effects)


def export_run(path: Path, format_name: str, out: Path | None = None) -> Path:
    """Write a circuit in another format, and return the file or folder.

    Args:
        path: A run directory or a circuit file.
        format_name: A name of `FORMATS` or of `SUBMISSIONS`.
        out: Where to; by default beside the circuit.

    Raises:
        CircuitFileError: The format is unknown, or cannot express the circuit.
        RunDirectoryError: A file is there already, or cannot be written.
    """
    or_else = f", {', '.join(SUBMISSIONS)}"
    found = None if format_name in SUBMISSIONS else FORMATS.find(format_name, or_else=or_else)
    circuit = scored_circuit(path)
    beside = circuit_file(path)
    if found is None:
        folder = out or beside.with_name(submission_name(circuit.origin))
        files = {folder / name: text for name, text in SUBMISSIONS[format_name](circuit).items()}
    else:
        kind = f".{format_name}" if found.suffix == beside.suffix else ""
        folder = out or beside.with_name(f"{beside.stem}{kind}{found.suffix}")
        files = {folder: found.write(circuit)}
    _write_new(files)
    return folder


def submission_name(origin: Mapping[str, Any]) -> str:
    """Return the name that MIB gives to a folder: the task and the model of a circuit's origin."""
    task, model = (str(origin.get(name, name)) for name in ("task", "model"))
    task, model = Path(task).stem.replace("_", "-"), Path(model).stem
    # Names come from a file, which may hold anything.
    return re.sub(r"[^\w.+-]+", "-", f"{task}_{model}")[:200]


def _write_new(files: dict[Path, str]) -> None:
    """Write files, none over another that says something else."""
    for file, text in files.items():
        with reported(file.parent):
            if file.exists() and (not file.is_file() or read_bytes(file) != text.encode()):
                raise RunDirectoryError(
                    f"{file} is there already and says something else; choose another --out"
                )
    for file, text in files.items():
        with reported(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, text)


def import_file(
    file: Path,
    out: Path,
    *,
    graph: Graph | None,
    format_name: str | None,
    n_edges: int | None,
    task: str | None = None,
    model: str | None = None,
) -> Circuit:
    """Read a circuit of any format and write it into a directory of ours.

    The directory then holds `circuit.json` and, if the file has scores of cut edges too,
    `scores.csv`. Commands that take a circuit take the directory.

    Args:
        file: The file.
        out: The directory.
        graph: The model's graph, for files that do not hold it.
        format_name: The file's format; by default it is told from the file.
        n_edges: Keep this many edges of the largest scores, instead of those that the file keeps.
        task: The task that the circuit is about, where the file does not say.
        model: The name of its model, likewise.

    Raises:
        CircuitFileError: The file cannot be trusted, or has no scores to choose by.
        RunDirectoryError: The directory holds something else, or cannot be written.
    """
    circuit = import_circuit(file, graph, format_name=format_name)
    if task is not None and (circuit.origin or model is None):
        raise CircuitFileError(
            f"{quoted(str(file))} says itself what it is about; leave --task out"
            if circuit.origin
            else "--task needs --model: a circuit is about both; give it, too"
        )
    if not circuit.origin:
        about = _about(task, model)
        origin = {"imported_from": file.name, "file_digest": digest(file), **about}
        circuit = replace(circuit, origin=origin)
    if n_edges is not None:
        circuit = _largest(circuit, n_edges)
    files = {out / CIRCUIT: circuit.to_json()}
    if circuit.effects is not None and bool((~circuit.effects.isnan() & ~circuit.kept).any()):
        files[out / SCORES] = write_csv(circuit)
    _write_new(files)
    return circuit


def _about(task: str | None, model: str | None) -> dict[str, Any]:
    """Return what a run's circuit file says of its task, its model and its prompts."""
    if model is None or task is None:
        return {} if model is None else {"model": model}
    config = RunConfig(task, model, "").located()
    names = ("task", "task_digest", "model", "metric", "n_prompts", "seed")
    return {name: getattr(config, name) for name in names}


def _largest(circuit: Circuit, n_edges: int) -> Circuit:
    if circuit.effects is None or n_edges < 0:
        raise CircuitFileError(f"{n_edges} edges cannot be chosen by their scores")
    chosen = EdgeScores(circuit.graph, circuit.effects, "", "").top(n_edges)
    if chosen.n_edges < n_edges:
        raise CircuitFileError(
            f"{n_edges} edges were asked for and the file has {chosen.n_edges} scores"
        )
    return replace(chosen, origin={**circuit.origin, "n_edges": n_edges})
