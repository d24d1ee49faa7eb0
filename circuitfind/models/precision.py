"""Number types: what weights are stored in, and what is computed with them.

Checkpoints in bfloat16 and float16 are computed with in float32: their values are float32 numbers
too, so nothing is lost, and effects do not drown in the rounding of half precision.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from circuitfind.errors import ModelError
from circuitfind.models.base import ResidualModel

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""The types that weights can be rounded to, by name."""

_STORED = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}
"""The types by their names in safetensors files."""


def number_type(name: str | None) -> torch.dtype | None:
    """Return a number type by its name; None where none is asked for.

    Raises:
        ModelError: There is no such type.
    """
    if name is None:
        return None
    if name not in DTYPES:
        raise ModelError(f"no number type named {name!r}; choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def computed_in(weights: torch.dtype) -> torch.dtype:
    """Return the type in which is computed with weights of a type."""
    return torch.float64 if weights == torch.float64 else torch.float32


def stored_in(files: Iterable[Path]) -> torch.dtype:
    """Return the type of the weights in some safetensors files, whatever a configuration says."""
    found: list[tuple[torch.dtype, int]] = []
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (the file is no mapping)
                part = file.get_slice(name)
                if (dtype := _STORED.get(part.get_dtype())) is not None:
                    found.append((dtype, torch.Size(part.get_shape()).numel()))
    return _main_type(found)


def held_in(model: Any) -> torch.dtype:
    """Return the type of a model's weights."""
    return _main_type(
        (weight.dtype, weight.numel())
        for weight in model.parameters()
        if weight.is_floating_point()
    )


def _main_type(found: Iterable[tuple[torch.dtype, int]]) -> torch.dtype:
    """Return the type of most weights; float64 where any has it, so that none loses digits."""
    sizes: dict[torch.dtype, int] = {}
    for dtype, size in found:
        sizes[dtype] = sizes.get(dtype, 0) + size
    if torch.float64 in sizes:
        return torch.float64
    return max(sizes, key=lambda dtype: sizes[dtype], default=torch.float32)


def rounded(weight: Tensor, dtype: torch.dtype | None, computed: torch.dtype) -> Tensor:
    """Round a weight to a type, where one is given, and return it in the one to compute in."""
    if not weight.is_floating_point():
        return weight
    return (weight if dtype is None else weight.to(dtype)).to(computed)


def precision_note(model: ResidualModel) -> str | None:
    """Return a note on the computing type, where it is not the type of the weights."""
    weights, streams = stored_as(model), _name(model.dtype)
    if weights == streams:
        return None
    n: int = getattr(model, "n_weights", 1)
    taken: int = getattr(model, "weight_bytes", n * model.dtype.itemsize)
    return (
        f"the {weights} weights of {model.name!r} are computed with in {streams}, and take "
        f"{taken / n:.2g} bytes each"
    )


def stored_as(model: ResidualModel) -> str:
    """Return what a model's file keeps its weights in: `bfloat16`, or `Q4_1` in a GGUF file."""
    quantisation: str | None = getattr(model, "quantisation", None)
    return quantisation or _name(model.weights_dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
