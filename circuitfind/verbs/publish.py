"""Publish a run as a folder that others verify and repeat, and take such a folder in."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import PAGE, load_circuit_of
from circuitfind.directories.publication import (
    INPUTS,
    READ,
    RUN,
    files_of_run,
    renamed,
    unpack,
    verified,
    write_manifest,
)
from circuitfind.directories.results import RunResult, read_result
from circuitfind.directories.work import CONFIG, ENVIRONMENT, WorkDirectory, read_config
from circuitfind.errors import CircuitfindError, PublicationError
from circuitfind.files import path_of, read_bytes
from circuitfind.formats import FORMATS
from circuitfind.methods import METHODS
from circuitfind.methods.base import Progress
from circuitfind.store import read_json, reported
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.draw import origin_line
from circuitfind.verbs.report import write_report

_MIB = "circuit.eap-ig.json"
_LARGEST = 1 << 30


def publish_run(
    path: Path | str,
    to: Path | str,
    *,
    authors: Sequence[str] = (),
    tell: Callable[[str], None] = lambda message: None,
) -> Path:
    """Write a run into a folder of its own, with everything that others need to check it.

    Paths of this machine are not in it: files that the run read are named by their place in the
    folder, a model directory by its last part.

    Args:
        path: A finished run's directory, or the directory of a circuit.
        to: The folder, new or empty.
        authors: Who found it; without them there is no `CITATION.cff`.
        tell: Called with what the report lacks and why.

    Raises:
        PublicationError: The folder is not empty.
        CircuitfindError: The run is not finished, or a file cannot be read or written.
    """
    path, to = path_of(path), path_of(to)
    circuit = load_circuit_of(path)
    if not path.is_dir():
        raise PublicationError(f"{path} is a file; give the directory of a run")
    if not WorkDirectory.is_fresh(to):
        raise PublicationError(f"{to} is not empty; choose another --to")
    inputs = _inputs(circuit)
    names = {setting: name for setting, (name, _) in inputs.items()}
    with reported(path):
        run = {file.name: read_bytes(file, most=_LARGEST) for file in files_of_run(path)}
        contents = {name: read_bytes(file, most=_LARGEST) for name, file in inputs.values()}
    run[PAGE] = _report(path, tell)
    run[_MIB] = FORMATS.find("eap-ig").write(circuit).encode()
    run = renamed(run, {**names, **_shown_model(circuit)})
    title = origin_line(circuit) or path.name
    texts = _words(title, circuit, authors, names)
    contents |= {name: text.encode() for name, text in texts.items()}
    for name, content in run.items():
        contents[name if name in (PAGE, _MIB) else f"{RUN}/{name}"] = content
    write_manifest(to, title, version("circuitfind"), contents, names)
    return to


def _inputs(circuit: Circuit) -> dict[str, tuple[str, Path]]:
    """Return the files that a run read: the setting, the name in the folder, and where it is."""
    found = {}
    for setting in READ:
        value = circuit.origin.get(setting)
        if isinstance(value, str) and Path(value).is_absolute():
            found[setting] = (f"{INPUTS}/{setting}-{Path(value).name}", Path(value))
    return found


def _shown_model(circuit: Circuit) -> dict[str, str]:
    model = str(circuit.origin.get("model", ""))
    return {"model": Path(model).name} if Path(model).is_absolute() else {}


def _report(path: Path, tell: Callable[[str], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return read_bytes(write_report(path, out=Path(folder) / PAGE, tell=tell))


def _words(
    title: str, circuit: Circuit, authors: Sequence[str], inputs: Mapping[str, str]
) -> dict[str, str]:
    """Return the texts that say what a folder holds, and how to cite it."""
    origin = circuit.origin
    method = METHODS.get(origin.get("method"))
    paper = method.paper if method else ""
    number, full = circuit.n_edges, circuit.graph.n_edges
    lines = [
        f"# {title}",
        "",
        f"A circuit of {number:,} of {full:,} edges, found with circuitfind "
        f"{origin.get('versions', {}).get('circuitfind', version('circuitfind'))}.",
        "",
        "![The circuit](run/diagram.svg)",
        "",
        "- `report.html`: the run in a browser, without a network",
        "- `run/`: circuit, settings, versions, decisions and figures",
        f"- `{_MIB}`: the circuit as MIB's circuit track takes it",
        *(
            f"- `{name}`: the file that the setting `{setting}` names"
            for setting, name in inputs.items()
        ),
        f"- fingerprint of the model's weights: {origin.get('model_fingerprint', 'unknown')}",
        "",
        "Check every file against `manifest.json`, and search again:",
        "",
        "```",
        "circuitfind import THIS_FOLDER --out runs/theirs --repeat",
        "```",
        "",
        *([f"Method: {paper}."] if paper else []),
        *([f"Found by {', '.join(authors)}."] if authors else []),
    ]
    texts = {"README.md": "\n".join(lines).rstrip() + "\n"}
    if authors:
        texts["CITATION.cff"] = _citation(title, authors)
    return texts


def _citation(title: str, authors: Sequence[str]) -> str:
    names = "".join(f"  - name: {_yaml(name)}\n" for name in authors)
    return (
        "cff-version: 1.2.0\n"
        "message: If you use this circuit, please cite it.\n"
        f"type: dataset\ntitle: {_yaml(f'Circuit: {title}')}\nauthors:\n{names}"
    )


def _yaml(text: str) -> str:
    import yaml

    return str(yaml.safe_dump(text, default_style='"', width=10_000, allow_unicode=True)).strip()


@dataclass(frozen=True)
class Repetition:
    """A published run beside the same run made again.

    Attributes:
        rows: What was compared: its name, as published, and here.
        same: Whether both have the same edges.
    """

    rows: tuple[tuple[str, str, str], ...]
    same: bool


def import_publication(
    folder: Path | str,
    out: Path | str,
    *,
    model: str | None = None,
) -> Circuit:
    """Verify a published folder and write its run into a directory of ours.

    Args:
        folder: A folder that `publish_run` wrote.
        out: The directory, new or empty.
        model: What `load_model` takes for the model here; by default as where it was published.

    Raises:
        PublicationError: A file is missing or not the one published, or `out` is not empty.
    """
    folder, out = path_of(folder), path_of(out)
    if not WorkDirectory.is_fresh(out):
        raise PublicationError(f"{out} is not empty; choose another --out")
    manifest, contents = verified(folder)
    try:
        unpack(manifest, contents, out, model)
        return load_circuit_of(out)
    except (CircuitfindError, ValueError, KeyError) as error:
        shutil.rmtree(out, ignore_errors=True)
        raise PublicationError(
            f"the run in {folder} cannot be used ({error}); ask who published it"
        ) from error


def rerun(
    path: Path,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda message: None,
) -> Repetition:
    """Make the run in a directory again, beside it, and compare both.

    Args:
        path: A run directory; the repetition is in `NAME-repeated`.
        on_progress: Called as the search proceeds.
        tell: Called with what a user should know.

    Raises:
        PublicationError: It holds a circuit without the settings of a search.
    """
    if not (path / CONFIG).is_file():
        raise PublicationError(
            f"{path} holds a circuit without the search that found it; there is nothing to repeat"
        )
    theirs, config = read_result(path), read_config(RunConfig, path)
    beside = path.with_name(f"{path.name}-repeated")
    ours = run_discovery(beside, config, on_progress=on_progress, tell=tell)
    rows = (*_versions(path, beside), *_differences(theirs, ours))
    return Repetition(rows, theirs.circuit.edges == ours.circuit.edges)


def _versions(theirs: Path, ours: Path) -> Iterator[tuple[str, str, str]]:
    """Yield what differs between the environments of two runs."""
    left, right = (read_json(path / ENVIRONMENT) for path in (theirs, ours))
    for name in sorted({*left, *right} - {"foreword"}):
        if left.get(name) != right.get(name):
            yield name, str(left.get(name, "-")), str(right.get(name, "-"))


def _differences(theirs: RunResult, ours: RunResult) -> Iterator[tuple[str, str, str]]:
    left, right = ({edge.name for edge in each.circuit.edges} for each in (theirs, ours))
    yield "edges", str(len(left)), str(len(right))
    yield "edges that the other has not", str(len(left - right)), str(len(right - left))
    for old, new in zip(theirs.card.measurements, ours.card.measurements, strict=False):
        yield f"faithfulness, {old.metric}", _number(old.faithfulness), _number(new.faithfulness)
    effects = [
        abs(a - b)
        for edge in theirs.circuit.edges
        if edge.name in right
        for a, b in [(theirs.circuit.effect(edge), ours.circuit.effect(edge))]
        if a is not None and b is not None
    ]
    if effects:
        yield "largest difference of an effect", "", f"{max(effects):.1e}"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.6f}"
