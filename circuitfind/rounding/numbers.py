"""What a rule is given: what was computed, and how far that is from its exact value at most."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

ENLARGED = 1 + 2.0**-30
"""By this radii are multiplied: more than their own rounding as sums of terms not below 0, of which
there are at most as many as below."""

_MOST_TERMS = 1 << 21

Radius = Tensor | float


class Unproved(Exception):  # noqa: N818  (not an error of the user)
    """There is no bound on rounding; the message says why."""


def unbounded(operation: str) -> Unproved:
    """Return what to raise where an operation has no rule, or its result no bound."""
    return Unproved(f"no bound for the operation {operation}")


class Number(NamedTuple):
    """A tensor as a rule is given it.

    Attributes:
        c: What was computed, in float64.
        r: How far that is from its exact value at most; 0.0 where all is exact.
    """

    c: Tensor
    r: Radius

    @property
    def is_exact(self) -> Tensor:
        return torch.as_tensor(self.r, device=self.c.device) == 0

    @property
    def is_zero(self) -> Tensor:
        """Where an element is exactly 0: then so is a product with it, and a sum is the other."""
        return (self.c == 0) & self.is_exact


class Result(NamedTuple):
    """What an operation returned.

    Attributes:
        c: That, in float64.
        kind: The number type in which it was computed.
    """

    c: Tensor
    kind: torch.finfo

    def rounding(self, n: int = 1, sizes: Tensor | None = None) -> Tensor:
        """Return what rounding n times is at most; sizes are by default those of the result.

        Raises:
            Unproved: There are too many terms for a bound.
        """
        # Then n u / (1 - n u) <= n eps, and what is said of radii is true.
        if n > _MOST_TERMS or n * self.kind.eps > 1:
            raise unbounded(f"of a sum of {n:,} terms")
        return (self.c if sizes is None else sizes).abs() * (n * self.kind.eps) + self.least(n)

    def least(self, n: int = 1) -> float:
        """Return what underflow can do n times."""
        return float(4 * n * self.kind.tiny)

    def operand(self, given: Any) -> Number:
        """Return an input; a scalar is rounded to the number type of the result first."""
        if isinstance(given, Number):
            exact = given
        else:
            value = torch.tensor(float(given), dtype=torch.float64, device=self.c.device)
            exact = Number(value, 0.0)
        if self.kind.dtype == "float64":
            return exact
        return Number(exact.c, exact.r + rounded_off(exact.c, getattr(torch, self.kind.dtype)))


def vanishing(found: Tensor, where: Tensor) -> Tensor:
    """Return radii that are 0 where a result is a product of an exact 0 and something finite."""
    return found.masked_fill(where & found.isfinite(), 0)


def rounded_off(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return how far values are from those of another number type that are nearest."""
    wide = values.double()
    narrow = wide.to(dtype).double()
    return (wide - narrow).abs().masked_fill(wide == narrow, 0)


Rule = Callable[..., Radius]
"""Given a result and the inputs of an operation, it returns radii."""
