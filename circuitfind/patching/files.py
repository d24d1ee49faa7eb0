"""Results of patching as two files: tensors with named axes, and what the axes mean.

`NAME.safetensors` holds `base`, `source` and `values.SITE`; `NAME.json` beside it holds everything
else, as text. Reading checks that the two belong together.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from circuitfind.errors import ResultFileError, require_kind
from circuitfind.files import path_of, read_text, write_whole
from circuitfind.patching.result import Mode, PatchResult
from circuitfind.records import body_of, from_json, parse_json
from circuitfind.stored import read_tensors

FORMAT = "circuitfind patching 1"
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, SafetensorError)


def to_json(result: PatchResult) -> str:
    """Return everything but the tensors as JSON text."""
    content = {
        "format": FORMAT,
        "mode": result.mode,
        "metric": result.metric,
        "unit": result.unit,
        "notes": [*result.notes],
        "per": result.per,
        "axes": {site: [*axes, "prompt"] for site, axes in result.axes.items()},
        "labels": {axis: [*labels] for axis, labels in result.labels.items()},
        "origin": dict(result.origin),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_bytes(result: PatchResult) -> bytes:
    """Return the tensors in the safetensors format."""
    values = {f"values.{site}": values for site, values in result.values.items()}
    tensors = {"base": result.base, "source": result.source, **values}
    content: bytes = tensor_bytes(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    )
    return content


def save_patching(result: PatchResult, path: Path | str) -> None:
    """Write a result to `path`, which ends in `.json`, and the .safetensors file beside it.

    Raises:
        ResultFileError: A file cannot be written.
    """
    path = path_of(path)
    require_kind(result, PatchResult, "a result of patching; give what `patch` returned")
    try:
        write_whole(path.with_suffix(".safetensors"), to_bytes(result))
        write_whole(path, to_json(result))
    except OSError as error:
        raise ResultFileError(f"cannot write the result {path}: {error.strerror}") from None


def load_patching(path: Path | str) -> PatchResult:
    """Read a result.

    Args:
        path: The `.json` file; the .safetensors file lies beside it.

    Raises:
        ResultFileError: A file is missing, damaged, of another format, or does not fit the other.
        NewerFileError: A newer version has written it.
    """
    path = path_of(path)
    try:
        content = body_of(parse_json(read_text(path)), FORMAT, path)
        return _result_from(content, read_tensors(path.with_suffix(".safetensors")))
    except OSError as error:
        raise ResultFileError(f"cannot read the result {path}: {error.strerror or error}") from None
    except _UNREADABLE as error:
        raise ResultFileError(
            f"{path} is not a result of patching, or was damaged: {type(error).__name__}: {error}; "
            "such files are written by `circuitfind patch` and `circuitfind path-patch`"
        ) from None


@dataclass(frozen=True)
class _Content:
    """Content of the JSON file; the last axis of its values is that of the prompts."""

    mode: Mode
    metric: str
    unit: str
    axes: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()
    per: Literal["prompt", "batch"] = "prompt"
    origin: Mapping[str, Any] = field(default_factory=dict)


def _result_from(content: Any, tensors: Mapping[str, Tensor]) -> PatchResult:
    stored: _Content = from_json(_Content, content)
    axes = {site: names[:-1] for site, names in stored.axes.items()}
    base, source = tensors["base"], tensors["source"]
    values = {site: tensors[f"values.{site}"] for site in axes}
    for site, found in values.items():
        sizes = (len(stored.labels[axis]) for axis in axes[site])
        _require_shape(site, found, (*sizes, len(base)))
    _require_shape("source", source, (len(base),))
    if stored.mode == "interchange" and len(base) % 2:
        raise ValueError(f"it has {len(base)} prompts, and an interchange has each pair twice")
    facts = {item.name: getattr(stored, item.name) for item in fields(stored)}
    return PatchResult(**{**facts, "values": values, "axes": axes, "base": base, "source": source})


def _require_shape(name: str, found: Float[Tensor, "..."], expected: tuple[int, ...]) -> None:
    if tuple(found.shape) != expected:
        raise ValueError(f"{name} has shape {tuple(found.shape)} where its axes ask for {expected}")
