"""Values whose gradient is that of another computation."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Values = Float[Tensor, "*_"]


def with_slope_of(value: Values, path: Callable[[], Values]) -> Values:
    """Return a value, to the last bit, through which gradients go as through another.

    Args:
        value: The value.
        path: Computes, nearly enough, the same in the way that gradients take; not called where
            none are recorded.
    """
    if not torch.is_grad_enabled():
        return value
    found: Values = _Graft.apply(value.detach(), path().to(value.dtype))  # type: ignore[no-untyped-call]
    return found


def scaled_slope(values: Values, factor: float) -> Values:
    """Return values whose gradient is multiplied by a factor on the way back."""
    return with_slope_of(values, lambda: factor * values)


class _Graft(torch.autograd.Function):
    """The value of the first argument, with the gradient of the second."""

    @staticmethod
    def forward(ctx: Any, value: Values, path: Values) -> Values:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Values) -> tuple[None, Values]:
        return None, gradients[0]
