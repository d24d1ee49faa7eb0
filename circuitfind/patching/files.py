"""Results of patching as two files: tensors with named axes, and what the axes mean.

`NAME.safetensors` holds `base`, `source` and `values.SITE`; `NAME.json` beside it holds everything
else, as text. Reading checks that the two belong together.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from circuitfind.errors import ResultFileError, quoted
from circuitfind.files import read_text, write_whole
from circuitfind.patching.result import MODES, PatchResult
from circuitfind.stored import parse_json, read_tensors

FORMAT = "circuitfind patching 1"
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, SafetensorError)


def to_json(result: PatchResult) -> str:
    """Return everything but the tensors as JSON text."""
    content = {
        "format": FORMAT,
        "mode": result.mode,
        "metric": result.metric,
        "unit": result.unit,
        "axes": {site: [*axes, "prompt"] for site, axes in result.axes.items()},
        "labels": {axis: list(labels) for axis, labels in result.labels.items()},
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
    path = Path(path)
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
    """
    path = Path(path)
    try:
        content = parse_json(read_text(path))
        return _result_from(content, read_tensors(path.with_suffix(".safetensors")))
    except OSError as error:
        raise ResultFileError(f"cannot read the result {path}: {error.strerror or error}") from None
    except _UNREADABLE as error:
        raise ResultFileError(
            f"{path} is not a result of patching, or was damaged: {type(error).__name__}: {error}; "
            "such files are written by `circuitfind patch` and `circuitfind path-patch`"
        ) from None


def _result_from(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PatchResult:
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {quoted(content['format'])}, not {FORMAT!r}")
    if content["mode"] not in MODES:
        raise ValueError(f"its mode is {quoted(content['mode'])}")
    axes = {site: tuple(names[:-1]) for site, names in content["axes"].items()}
    labels = {axis: tuple(map(str, names)) for axis, names in content["labels"].items()}
    base, source = tensors["base"], tensors["source"]
    values = {site: tensors[f"values.{site}"] for site in axes}
    for site, found in values.items():
        _require_shape(site, found, (*(len(labels[axis]) for axis in axes[site]), len(base)))
    _require_shape("source", source, (len(base),))
    if content["mode"] == "interchange" and len(base) % 2:
        raise ValueError(f"it has {len(base)} prompts, and an interchange has each pair twice")
    return PatchResult(
        values,
        axes,
        labels,
        base,
        source,
        content["mode"],
        str(content["metric"]),
        str(content["unit"]),
        dict(content["origin"]),
    )


def _require_shape(name: str, found: Float[Tensor, "..."], expected: tuple[int, ...]) -> None:
    if tuple(found.shape) != expected:
        raise ValueError(f"{name} has shape {tuple(found.shape)} where its axes ask for {expected}")
