"""Published runs: a folder with all that others need, and a manifest of what is in it.

    manifest.json       hashes of all other files, and what each input is
    README.md           what the folder holds, in words
    CITATION.cff        who found it, if that was said
    report.html         the run's page
    circuit.eap-ig.json the circuit as MIB takes it
    run/                the run directory, or the circuit
    inputs/             files that the run read: prompts, spans, constants

Nothing in a folder is believed before its hash is found right, and nothing that the manifest does
not name is read.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from circuitfind.circuit import circuit_from
from circuitfind.directories.directory import digest_of
from circuitfind.directories.work import CIRCUIT
from circuitfind.errors import PublicationError, quoted, shortened
from circuitfind.files import read_bytes, write_whole
from circuitfind.records import as_json, body_of, from_json, parse_json
from circuitfind.store import STATE, reported

MANIFEST, RUN, INPUTS = "manifest.json", "run", "inputs"
FORM = "circuitfind publication 1"
READ = ("task", "ablation", "places")
"""Settings of a run that can name a file, whose content the folder then holds."""

_LARGEST = 1 << 30


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
    """Return the files of a run directory that results are made of."""
    return [
        file
        for file in sorted(path.iterdir())
        if file.is_file() and file.name != STATE and not file.name.startswith(".")
    ]


def write_manifest(
    folder: Path, title: str, version: str, contents: Mapping[str, bytes], inputs: Mapping[str, str]
) -> Manifest:
    """Write files, and the manifest last: where it is, the folder is whole.

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
    return manifest


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
            f"cannot read {file}: {error.strerror}; give a folder that `publish` wrote"
        ) from None
    except ValueError as error:
        raise PublicationError(f"{file} is damaged ({error}); get the folder again") from None
    contents = {name: _content(folder, name, sha256) for name, sha256 in manifest.files.items()}
    for name in manifest.inputs.values():
        if name not in contents:
            raise PublicationError(
                f"{file} is damaged (it has no hash of {quoted(name)}); get the folder again"
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
        content = read_bytes(folder / path, most=_LARGEST)
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


def unpack(
    manifest: Manifest, contents: Mapping[str, bytes], out: Path, model: str | None = None
) -> None:
    """Write the run of a published folder into a directory of ours.

    Args:
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
    with reported(out):
        for name, content in {**others, **renamed(run, here)}.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(out / name, content)


def renamed(files: Mapping[str, bytes], names: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of a run in which its model, or files that it read, have other names.

    What files say of the circuit, by its hash, stays true.

    Args:
        files: The content of each, by name; `circuit.json` among them.
        names: The new names, by setting.
    """
    before = circuit_from(parse_json(files[CIRCUIT]))
    after = replace(before, origin={**before.origin, **names})
    changes = [_said(name, before.origin.get(name), new) for name, new in names.items()]
    hashes = digest_of(before).encode(), digest_of(after).encode()
    found = {}
    for name, content in files.items():
        if name.endswith((".json", ".html")):
            for pattern, text in changes:
                content = pattern.sub(text, content)
            content = content.replace(*hashes)
        found[name] = content
    return found


def _said(setting: str, old: object, new: str) -> tuple[re.Pattern[bytes], bytes]:
    """Return what finds a setting in JSON text, and what is to stand there, escaped."""
    ways = {json.dumps(old, ensure_ascii=ascii_only).encode() for ascii_only in (True, False)}
    pattern = b'"%s": ?(?:%s)' % (setting.encode(), b"|".join(map(re.escape, sorted(ways))))
    return re.compile(pattern), f'"{setting}": {json.dumps(new)}'.encode().replace(b"\\", b"\\\\")
