"""Operations that are taken apart into others, which have rules."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _softmax(scores: Tensor, dim: int, _half_to_float: bool) -> Tensor:  # noqa: FBT001
    # The same whatever is subtracted from all, so that what was found largest is exact.
    shift = getattr(scores, "centre", scores).amax(dim, keepdim=True)
    sizes = (scores - shift).exp()
    return sizes / sizes.sum(dim, keepdim=True)


def _safe_softmax(scores: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    none = (scores == -torch.inf).all(dim, keepdim=True)
    return _softmax(scores.masked_fill(none, 0), dim, False).masked_fill(none, 0)  # noqa: FBT003


def _layer_norm(
    stream: Tensor, shape: list[int], gain: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    dims = tuple(range(-len(shape), 0))
    mean = stream.mean(dims, keepdim=True)
    found, factor = _scaled(stream - mean, dims, gain, eps)
    return (found if bias is None else found + bias), mean, factor


def _scaled(
    stream: Tensor, dims: tuple[int, ...], gain: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    factor = (stream.square().mean(dims, keepdim=True) + eps).rsqrt()
    found = stream * factor
    return (found if gain is None else found * gain), factor


COMPOSED: dict[str, Callable[..., Any]] = {
    "_softmax": _softmax,
    "_safe_softmax": _safe_softmax,
    "native_layer_norm": _layer_norm,
}
"""By the name of the operation."""
