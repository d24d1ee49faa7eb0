"""Weights of half precision that are kept as they are, and widened where they are multiplied.

A search computes in float32, whatever type the weights have (`precision.py`). Kept in float32, the
weights of a large model take twice the memory of their file. Most of them belong to the linear maps
of MLPs. In a large model these are kept in half precision; each use widens one map, whose products
are those of a float32 copy, to the last bit. Others are few, and used more often for less.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_WORTH = 1 << 28
"""Weights that MLPs must have for this: with fewer it saves less than 0.5 GB, and takes time."""

_HALF = (torch.bfloat16, torch.float16)


def narrow(mlps: list[Any], dtype: torch.dtype) -> None:
    """Keep the linear maps of a large model's MLPs in half precision, where that loses nothing.

    Args:
        mlps: The modules.
        dtype: The type of the weights in their file.
    """
    # A second that a name which leads to no model need not wait for.
    from transformers.pytorch_utils import Conv1D

    if dtype not in _HALF:
        return
    kinds = (torch.nn.Linear, Conv1D)
    maps = [part for mlp in mlps for part in mlp.modules() if isinstance(part, kinds)]
    if sum(part.weight.numel() for part in maps) < _WORTH:
        return
    for part in maps:
        halved = part.weight.detach().to(dtype)
        if torch.equal(halved.to(part.weight.dtype), part.weight):
            part.weight.data = halved
            part.__class__ = _widening(type(part))


def _widening(kind: type[Any]) -> type[Any]:
    """Return a class of linear maps whose `weight` is in float32, and kept as it is."""

    def weight(part: Any) -> Tensor:
        return kept(part).float()

    return type(kind.__name__, (kind,), {"weight": property(weight)})


def kept(part: Any) -> Tensor:
    """Return the weight of a linear map in the type in which it is kept."""
    weight: Tensor = part._parameters["weight"]
    return weight


def linear(
    values: Float[Tensor, "*any inner"],
    weight: Float[Tensor, "inner outer"],
    bias: Float[Tensor, " outer"] | None = None,
) -> Float[Tensor, "*any outer"]:
    """Multiply by a weight, widened if need be, and add a bias."""
    if weight.dtype == values.dtype:
        return torch.nn.functional.linear(values, weight.T, bias)
    apply: Any = _Widened.apply
    found: Tensor = apply(values, weight, bias)
    return found


class _Widened(torch.autograd.Function):
    """A product with a widened weight, which is widened again on the way back, not kept."""

    @staticmethod
    def forward(context: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(weight)
        return torch.nn.functional.linear(values, weight.T.to(values.dtype), bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = context.saved_tensors
        return gradient @ weight.T.to(gradient.dtype), None, None
