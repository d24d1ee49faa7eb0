"""The numbers of a rule: what was computed, and how far that is from its exact value at most."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

ENLARGED = 1 + 2.0**-30
"""By this radii are multiplied: more than their own rounding as sums of terms not below 0, of which
there are at most as many as below."""

_MOST_TERMS = 1 << 21

Radius = Tensor | float


class Unproved(Exception):  # noqa: N818  (it is no error of the user)
    """There is no bound on rounding; the message says why."""


def unbounded(operation: str) -> Unproved:
    """Return what to raise where an operation has no rule, or its result no bound."""
    return Unproved(f"no bound for the operation {operation}")


class Number(NamedTuple):
    """Numbers as a rule is given them.

    Attributes:
        c: What was computed, in float64.
        r: How far that is from its exact value at most; 0.0 where all is exact.
    """

    c: Tensor
    r: Radius

    @property
    def is_exact(self) -> Tensor:
        return torch.as_tensor(self.r, device=self.c.device) == 0


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
        """Return an input as numbers; a scalar is rounded to the number type first."""
        if isinstance(given, Number):
            return given
        value = torch.tensor(float(given), dtype=torch.float64, device=self.c.device)
        is_wide = self.kind.dtype == "float64"
        return Number(value, 0.0 if is_wide else abs(float(given)) * self.kind.eps)


Rule = Callable[..., Radius]
"""Given a result and the inputs of an operation, it returns radii."""
