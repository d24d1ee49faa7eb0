"""Sources of models: a name stands for an embedded model, a file, a directory, or a hub model.

Names are judged before anything is loaded and before any network is asked.
"""

import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from circuitfind.errors import ModelError
from circuitfind.models.base import ResidualModel
from circuitfind.models.gguf_files import SUFFIX, only_gguf
from circuitfind.models.guards import reading, shortened
from circuitfind.models.pretrained import PRETRAINED, require_pretrained
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo import TRAINED, ZOO, zoo_path
from circuitfind.registry import Table

_PICKLE = (
    "is a pickle, which can run code when it is read; load it once where you trust it, and save "
    "the model with save_pretrained(..., safe_serialization=True)"
)
_FILES = {
    ".pt": _PICKLE,
    ".pth": _PICKLE,
    ".bin": _PICKLE,
    ".ckpt": _PICKLE,
    ".pkl": _PICKLE,
    ".safetensors": (
        "holds weights alone; give the directory it is in, with config.json and tokenizer files "
        "(or, of a compiled model, the .json file beside it)"
    ),
}
"""Files that are not models, by ending, and what to do with them."""

_OTHER_FILE = (
    "is not a model; give a directory written by save_pretrained, a GGUF file, or a compiled "
    "model's .json"
)

TOKENIZER_FILE = re.compile(r"^(tokenizer|vocab|spiece|sentencepiece|tekken)|\.(model|tiktoken)$")
"""Matches the names of files of which a tokenizer has at least one."""

_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class ModelSource:
    """A kind of models from outside the package; each is named `NAME:REST`.

    Attributes:
        name: What stands before the colon.
        load: Loads a model, given what stands after the colon, `dtype` (`float32`, ...; None for
            the type of the weights) and `device`.
        load_vocabulary: Loads what turns text into its tokens, given the same text alone.
        summary: What these models are, in a sentence.
    """

    name: str
    load: Callable[..., ResidualModel]
    load_vocabulary: Callable[[str], Vocabulary | None]
    summary: str = ""


MODEL_SOURCES: Table[ModelSource] = Table(
    "model source", ModelSource, ModelError, (), group="circuitfind.models"
)
"""Every kind of models that the package does not know of itself."""


@dataclass(frozen=True)
class Source:
    """The place of a model.

    Attributes:
        kind: A directory in Hugging Face layout, a GGUF file, a compiled model's JSON file, a hub
            name, or a source from outside.
        name: What the model is called; for a source from outside, what stands after the colon.
        path: Of a directory or a file.
        outside: The source from outside.
    """

    kind: Literal["directory", "gguf", "program", "hub", "outside"]
    name: str
    path: Path = Path()
    outside: ModelSource | None = None


def find_source(source: str | Path) -> Source:
    """Return what a name stands for.

    Raises:
        ModelError: Nothing that can be loaded, with what is possible.
    """
    name = str(source)
    if name in ZOO:
        return Source("directory" if name in TRAINED else "program", name, zoo_path(name))
    prefix, colon, rest = name.partition(":")
    if colon and (outside := MODEL_SOURCES.get(prefix)) is not None:
        return Source("outside", rest, outside=outside)
    if (pretrained := PRETRAINED.get(name)) is not None:
        return Source("gguf", name, require_pretrained(pretrained))
    path = Path(source)
    # The empty path would be the current directory.
    kind = file_type(path) if name else None
    if kind == "directory":
        inside = only_gguf(path)
        name = path.resolve().name
        return Source("gguf", name, inside) if inside else Source(kind, name, path)
    if kind == "file" and path.suffix.lower() == SUFFIX:
        return Source("gguf", path.stem, path)
    if kind == "file" and path.suffix == ".json":
        return Source("program", path.stem, path)
    if kind is not None:
        what = _FILES.get(path.suffix.lower(), _OTHER_FILE) if kind == "file" else _OTHER_FILE
        raise ModelError(f"{shortened(name)} {what}")
    _require_hub_name(name)
    return Source("hub", name)


def file_type(path: Path) -> Literal["directory", "file", "other"] | None:
    """Return what is at a path; None if nothing is, or nothing could be.

    Raises:
        ModelError: It cannot be told, for want of permission.
    """
    try:
        mode = path.stat().st_mode
    except PermissionError:
        with reading(path):
            raise
    except (OSError, ValueError):
        # No such file, a name too long, a loop of links, or a character that no name can have.
        return None
    if stat.S_ISDIR(mode):
        return "directory"
    return "file" if stat.S_ISREG(mode) else "other"


def require_directory(path: Path) -> None:
    """Refuse a directory that holds no model in Hugging Face layout.

    Raises:
        ModelError: A file is missing, or the directory cannot be read.
    """
    with reading(path):
        names = {item.name for item in path.iterdir()}
    if _ADAPTER in names:
        raise ModelError(
            f"{path} holds an adapter (LoRA), no whole model; merge it into its base model "
            "(merge_and_unload() of peft), save that with save_pretrained, and give its directory"
        )
    if "config.json" not in names:
        raise ModelError(
            f"{path} is not a model directory: it has no config.json; give a directory written by "
            "save_pretrained"
        )
    if not any(name.endswith(".safetensors") for name in names):
        raise ModelError(
            f"{path} has no weights in safetensors format; save them with "
            "save_pretrained(..., safe_serialization=True)"
        )


def require_tokenizer(path: Path, name: str) -> None:
    """Refuse a directory without any tokenizer file.

    Raises:
        ModelError: There is none, or the directory cannot be read.
    """
    with reading(path):
        if not any(TOKENIZER_FILE.search(item.name) for item in path.iterdir()):
            raise ModelError(
                f"{name!r} has no tokenizer files; add the tokenizer that the model was trained "
                "with (tokenizer.json and tokenizer_config.json)"
            )


def _require_hub_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    meant = get_close_matches(name.strip(" /\\").lower(), ZOO, 1, cutoff=0.8)
    known = f"did you mean {meant[0]!r}?" if meant else f"the embedded models are {', '.join(ZOO)}"
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(".json"):
        raise ModelError(
            f"there is no model at {shortened(name)}: no such file or directory; {known}"
        )
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise ModelError(
            f"no model is named {shortened(name)}: there is no such file or directory, and names "
            f"on the hub are NAME or OWNER/NAME of letters, digits, '-', '_' and '.'; {known}"
        ) from None
