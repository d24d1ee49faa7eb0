"""Publish a run as a folder that others verify and repeat; see `published` for the way back."""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.directories.directory import PAGE, load_circuit_of
from circuitfind.directories.publication import (
    INPUTS,
    LARGEST,
    READ,
    RUN,
    anywhere,
    asked_of,
    files_of_run,
    renamed,
    write_manifest,
)
from circuitfind.directories.work import CONFIG, WorkDirectory
from circuitfind.errors import CircuitFileError, PublicationError, shortened
from circuitfind.files import digest, path_of, read_bytes
from circuitfind.formats import FORMATS
from circuitfind.methods import METHODS
from circuitfind.plugins import facts_in
from circuitfind.store import reported
from circuitfind.verbs.draw import origin_line
from circuitfind.verbs.report import write_report

_MIB = "circuit.eap-ig.json"


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
    settings = asked_of(circuit)
    inputs = _inputs(settings)
    names = {setting: name for setting, (name, _) in inputs.items()}
    with reported(path):
        run = {file.name: read_bytes(file, most=LARGEST) for file in files_of_run(path)}
    contents = {name: _input(setting, file, settings) for setting, (name, file) in inputs.items()}
    run[PAGE] = _report(path, tell)
    try:
        run[_MIB] = FORMATS.find("eap-ig").write(circuit).encode()
    except CircuitFileError as error:
        tell(f"the folder has no {_MIB}: {error}")
    paths = {settings[setting]: name for setting, name in names.items()} | _shown(settings)
    longest = sorted(paths, key=len, reverse=True)
    run = renamed(run, [anywhere(each, paths[each]) for each in longest])
    title = origin_line(circuit) or f"{_kind(path)} {path.resolve().name}"
    texts = _words(title, circuit, authors, [*run, *contents])
    contents |= {name: text.encode() for name, text in texts.items()}
    for name, content in run.items():
        contents[name if name in (PAGE, _MIB) else f"{RUN}/{name}"] = content
    write_manifest(to, title, version("circuitfind"), contents, names)
    return to


def _kind(path: Path) -> str:
    return "Run" if (path / CONFIG).is_file() else "Circuit"


def _inputs(settings: Mapping[str, Any]) -> dict[str, tuple[str, Path]]:
    """Return the files that a run read: the setting, the name in the folder, and where it is."""
    found = {}
    for setting in READ:
        value = settings.get(setting)
        if isinstance(value, str) and Path(value).is_absolute():
            name = re.sub(r"[^\w.+ -]", "-", Path(value).name)
            found[setting] = (f"{INPUTS}/{setting}/{name}", Path(value))
    return found


def _input(setting: str, file: Path, settings: Mapping[str, Any]) -> bytes:
    """Return the content of a file that a run read, if that is still what the run read.

    Raises:
        PublicationError: It is gone, or has changed since.
    """
    advice = "restore it, or search again"
    try:
        now = digest(file)
        content = read_bytes(file, most=LARGEST)
    except OSError as error:
        raise PublicationError(
            f"cannot read {shortened(str(file))}, which the run read: {error.strerror}; {advice}"
        ) from None
    if settings.get(f"{setting}_digest", now) not in (None, now):
        raise PublicationError(f"{shortened(str(file))} has changed since the run; {advice}")
    return content


def _shown(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands for directories that are not in the folder: their last parts."""
    found = (settings.get(name) for name in ("model", "latents"))
    return {
        each: Path(each).name
        for each in found
        if isinstance(each, str) and Path(each).is_absolute()
    }


def _report(path: Path, tell: Callable[[str], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return read_bytes(write_report(path, out=Path(folder) / PAGE, tell=tell))


def _words(
    title: str, circuit: Circuit, authors: Sequence[str], files: Sequence[str]
) -> dict[str, str]:
    """Return the texts that say what a folder holds, and how to cite it."""
    origin = circuit.origin
    method = METHODS.get(origin.get("method"))
    known = origin.get("versions", {}).get("circuitfind", version("circuitfind"))
    drawn, mib = "diagram.svg" in files, _MIB in files
    is_search = "decisions.jsonl" in files
    plugins = [f"{name} ({sha256})" for name, sha256 in facts_in(origin.get("versions")).items()]
    lines = [
        f"# {title}",
        "",
        f"A circuit of {circuit.n_edges:,} of {circuit.graph.n_edges:,} edges, found with "
        f"circuitfind {known}.",
        "",
        *["![The circuit](run/diagram.svg)\n"] * drawn,
        "- `report.html`: the run in a browser, without a network",
        "- `run/`: circuit, settings, versions and figures",
        *[f"- `{_MIB}`: the circuit as MIB's circuit track takes it"] * mib,
        *(f"- `{name}`: a file that the run read" for name in files if name.startswith(INPUTS)),
        f"- fingerprint of the model's weights: {origin.get('model_fingerprint', 'unknown')}",
        *(f"- not in the folder, give it by `--plugin`: {plugin}" for plugin in plugins),
        "",
        f"Check every file against `manifest.json`{', and search again' * is_search}:",
        "",
        "```",
        f"circuitfind import THIS_FOLDER --out runs/theirs{' --repeat' * is_search}",
        "```",
        "",
        *([f"Method: {method.paper}."] if method else []),
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
