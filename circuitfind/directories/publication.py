"""Published runs: a folder with all that others need, and a manifest of what is in it.

    manifest.json       hashes of all other files, and what each input is
    README.md           what the folder holds, in words
    CITATION.cff        who found it, if that was said
    report.html         the run's page
    circuit.eap-ig.json the circuit as MIB takes it
    run/                the run directory, or the circuit
    inputs/             files that the run read: prompts, spans, constants

Every hash is checked before a file is used, and nothing that the manifest does not name is read.
"""

import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from circuitfind.circuit import Circuit, circuit_from
from circuitfind.directories.directory import digest_of
from circuitfind.directories.work import CIRCUIT
from circuitfind.errors import PublicationError, quoted, shortened
from circuitfind.files import read_bytes, write_whole
from circuitfind.records import as_json, body_of, from_json, parse_json
from circuitfind.store import reported

MANIFEST, RUN, INPUTS = "manifest.json", "run", "inputs"
TAKEN = "published.json"
"""The copy of the manifest beside a run that was imported."""

FORM = "circuitfind publication 1"
READ = ("task", "ablation", "places")
"""Settings of a run that can name a file, whose content the folder then holds."""

_OURS = (
    "*.json", "*.jsonl", "diagram*", "heatmap-*", "patch*", "report.md", "*.csv", "size-curve.*",
    "*.svg", "constants.safetensors",
)  # fmt: skip
"""Names of files that commands write into the directory of a run."""

LARGEST = 1 << 30
"""Bytes of a file that a folder can hold."""

_TEXTS = (".json", ".jsonl", ".html", ".svg", ".dot", ".md", ".csv")


@dataclass(frozen=True)
class Manifest:
    """What a published folder holds.

    Attributes:
        title: What was found.
        circuitfind: Version that published it.
        files: The hash (SHA-256) of each file, by its path in the folder.
        inputs: The files that the run read, by the setting that named each.
    """

    title: str
    circuitfind: str
    files: Mapping[str, str]
    inputs: Mapping[str, str]


def is_published(path: Path) -> bool:
    """Return whether a directory holds a manifest."""
    return (path / MANIFEST).is_file()


def files_of_run(path: Path) -> list[Path]:
    """Return the files in the directory of a run that commands wrote; no links."""
    return [
        file
        for file in sorted(path.iterdir())
        if file.is_file()
        and not file.is_symlink()
        and not file.name.startswith(".")
        and file.name != TAKEN
        and any(map(file.match, _OURS))
    ]


def write_manifest(
    folder: Path, title: str, version: str, contents: Mapping[str, bytes], inputs: Mapping[str, str]
) -> None:
    """Write files, and the manifest last: its presence means that the folder is complete.

    Args:
        folder: The folder, empty so far.
        title: What was found.
        version: That of circuitfind.
        contents: The content of each file, by its path in the folder.
        inputs: The path of each input, by its setting.
    """
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = Manifest(title, version, hashes, dict(inputs))
    with reported(folder):
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, content)
        text = json.dumps({"format": FORM, **as_json(manifest)}, indent=1, ensure_ascii=False)
        write_whole(folder / MANIFEST, text + "\n")


def verified(folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    """Return a folder's manifest, and the content of every file that it names.

    Raises:
        PublicationError: The manifest is damaged, or a file is missing or not the one published.
    """
    file = folder / MANIFEST
    try:
        body = body_of(parse_json(read_bytes(file)), FORM, file)
        manifest: Manifest = from_json(Manifest, body)
    except OSError as error:
        raise PublicationError(
            f"cannot read {file}: {error.strerror}; a directory is imported if `circuitfind "
            "publish` wrote it: give such a one, or a circuit's file"
        ) from None
    except ValueError as error:
        raise PublicationError(f"{file} is damaged ({error}); get the folder again") from None
    contents = {name: _content(folder, name, sha256) for name, sha256 in manifest.files.items()}
    for setting, name in manifest.inputs.items():
        if name not in contents or setting not in READ:
            raise PublicationError(
                f"{file} is damaged ({quoted(setting)} is no file of the folder); get it again"
            )
    return manifest, contents


def _content(folder: Path, name: str, sha256: str) -> bytes:
    """Return the content of a file, if it is the one that was published."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name:
        raise PublicationError(
            f"{folder / MANIFEST} names {quoted(name)}, which is outside the folder; nothing is "
            "taken from it"
        )
    try:
        content = read_bytes(folder / path, most=LARGEST)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PublicationError(
            f"cannot read {shortened(str(folder / path))}: {reason}; get the folder again"
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PublicationError(
            f"{shortened(str(folder / path))} is not the file that was published (its hash is "
            "another one); get the folder again"
        )
    return content


def is_taken(folder: Path, out: Path) -> bool:
    """Return whether a directory holds the run of a published folder."""
    copy = out / TAKEN
    return copy.is_file() and read_bytes(copy) == read_bytes(folder / MANIFEST)


def unpack(
    folder: Path,
    manifest: Manifest,
    contents: Mapping[str, bytes],
    out: Path,
    model: str | None = None,
) -> None:
    """Write the run of a published folder into a directory of ours.

    Args:
        folder: The folder.
        manifest: What `verified` returned.
        contents: The same.
        out: The directory, empty so far.
        model: What the model is called here; by default as where it was published.
    """
    run, others = {}, {}
    for name, content in contents.items():
        first, *rest = PurePosixPath(name).parts
        if first == RUN and rest:
            run["/".join(rest)] = content
        elif first == INPUTS and rest:
            others[name] = content
    here = {setting: str((out / name).resolve()) for setting, name in manifest.inputs.items()}
    here |= {} if model is None else {"model": model}
    settings = asked_of(circuit_from(parse_json(run[CIRCUIT])))
    changes = [_said(name, settings.get(name), new) for name, new in here.items()]
    others[TAKEN] = read_bytes(folder / MANIFEST)
    with reported(out):
        for name, content in {**others, **renamed(run, changes)}.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(out / name, content)


def asked_of(circuit: Circuit) -> Mapping[str, Any]:
    """Return what a circuit was found with; files of patching have it one level deeper."""
    deeper = circuit.origin.get("settings")
    return {**circuit.origin, **(deeper if isinstance(deeper, Mapping) else {})}


Change = tuple[re.Pattern[bytes], bytes]
"""What is looked for in the text of files, and what replaces it, escaped."""


def renamed(files: Mapping[str, bytes], changes: Sequence[Change]) -> dict[str, bytes]:
    """Return the files of a run in which its model, or files that it read, have other names.

    What files say of the circuit, by its hash, stays true.

    Args:
        files: The content of each, by name; `circuit.json` among them.
        changes: What is changed in text files.
    """
    found = dict(files)
    for name, content in files.items():
        if name.endswith(_TEXTS):
            for pattern, text in changes:
                content = pattern.sub(text, content)
            found[name] = content
    before, after = (circuit_from(parse_json(each[CIRCUIT])) for each in (files, found))
    hashes = digest_of(before).encode(), digest_of(after).encode()
    return {
        name: content.replace(*hashes) if name.endswith(_TEXTS) else content
        for name, content in found.items()
    }


def anywhere(path: str, name: str) -> Change:
    """Return the change of a path to a plain name, wherever it stands and however it is escaped."""
    ways = {
        path,
        html.escape(path),
        *(json.dumps(path, ensure_ascii=each)[1:-1] for each in (True, False)),
    }
    longest = sorted(ways, key=len, reverse=True)
    return re.compile(b"|".join(re.escape(way.encode()) for way in longest)), name.encode()


def _said(setting: str, old: object, new: str) -> Change:
    """Return the change of a setting in JSON text."""
    ways = {json.dumps(old, ensure_ascii=ascii_only).encode() for ascii_only in (True, False)}
    pattern = b'"%s": ?(?:%s)' % (setting.encode(), b"|".join(map(re.escape, sorted(ways))))
    return re.compile(pattern), f'"{setting}": {json.dumps(new)}'.encode().replace(b"\\", b"\\\\")
