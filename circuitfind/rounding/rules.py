"""How far the result of each operation of PyTorch is from its exact value at most (see `balls`).

Of an operation on elements `c` that are within `r` of their exact values, a rule adds

- what the errors of its inputs can do: for a product |a| r_b + r_a |b| + r_a r_b; for a smooth
  function r times its largest slope within r;
- its own rounding. One addition, product or quotient is off by an ulp at most. A sum of n products,
  in whatever order and whether fused or not, is off by n u / (1 - n u) <= n eps times the sum of
  their sizes (Higham 2002, section 3.1; u is half of eps). Elementary functions are assumed to be
  accurate to 4 ulp, which is more than their libraries state. Underflow, also to 0, is covered by
  the smallest normal number for each operation. A product with an exact 0 is exact, and so is a sum
  with it.

Radii are computed in float64 and then enlarged, which covers their own rounding.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from circuitfind.rounding.functions import FUNCTIONS
from circuitfind.rounding.numbers import (
    ENLARGED,
    Number,
    Radius,
    Result,
    Rule,
    unbounded,
    vanishing,
)


def radius(name: str, computed: Tensor, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    """Return how far each element of a result is from its exact value at most.

    Args:
        name: The operation.
        computed: What it returned.
        args: What it was given, tensors as `Number`.
        kwargs: More of that.

    Raises:
        Unproved: There is no rule for this.
    """
    result = Result(computed.double(), torch.finfo(computed.dtype))
    try:
        found = RULES[name](result, *args, **kwargs)
    except (KeyError, TypeError) as unknown:
        raise unbounded(name) from unknown
    found = torch.as_tensor(found, dtype=torch.float64, device=computed.device) * ENLARGED
    # What has become infinite says nothing of the exact value, unless a rule knows that it is.
    return found.masked_fill(~result.c.isfinite() & (found != 0), torch.inf).expand(computed.shape)


def decided(name: str, args: Sequence[Any]) -> None:
    """Raise unless what an operation says of its inputs is the same of their exact values.

    Raises:
        Unproved: It may be another.
    """
    given = [each for each in args if isinstance(each, Number)]
    if all(bool(each.is_exact.all()) for each in given):
        return
    certain = torch.tensor([False])
    if name in ("isfinite", "isnan", "isinf"):
        certain = torch.as_tensor(given[0].r).isfinite()
    elif name in ("eq", "ne", "lt", "le", "gt", "ge"):
        values, radii = zip(*map(_compared, args), strict=True)
        certain = (values[0] - values[1]).abs() > (radii[0] + radii[1]) * ENLARGED
        certain |= radii[0] + radii[1] == 0
    if not bool(certain.all()):
        raise unbounded(name)


def _compared(given: Any) -> tuple[Any, Any]:
    return (given.c, torch.as_tensor(given.r)) if isinstance(given, Number) else (given, 0.0)


def _add(result: Result, left: Any, right: Any, *, alpha: float | int = 1) -> Radius:
    a, b = map(result.operand, (left, right))
    rounding = result.rounding().masked_fill(a.is_zero | b.is_zero, 0)
    if abs(alpha) != 1:
        rounding = result.rounding() + result.rounding(2, b.c * alpha)
    found = a.r + b.r * abs(alpha) + rounding
    # Where minus infinity is known to stand, adding changes nothing.
    infinite = (a.c.isinf() & a.is_exact) | (b.c.isinf() & b.is_exact)
    return found.masked_fill(infinite, 0)


def _reversed(rule: Rule) -> Rule:
    return lambda result, left, right, **more: rule(result, right, left, **more)


def _mul(result: Result, left: Any, right: Any) -> Radius:
    a, b = map(result.operand, (left, right))
    found = a.c.abs() * b.r + a.r * (b.c.abs() + b.r) + result.rounding()
    return vanishing(found, (a.is_zero | b.is_zero) & (result.c == 0))


def _div(result: Result, left: Any, right: Any) -> Radius:
    a, b = map(result.operand, (left, right))
    # (a + da) / (b + db) - a / b = (da - (a / b) db) / (b + db)
    least = b.c.abs() - b.r
    moved = (a.r + (a.c / b.c).abs() * b.r) / least
    # Some devices multiply by the inverse.
    found = moved.masked_fill(~(least > 0), torch.inf) + result.rounding(3)
    return vanishing(found, a.is_zero & (result.c == 0))


def _addcmul(result: Result, to: Any, left: Any, right: Any, *, value: float | int = 1) -> Radius:
    if value != 1:
        raise unbounded("addcmul with a factor")
    a, b, c = map(result.operand, (to, left, right))
    moved = b.c.abs() * c.r + b.r * (c.c.abs() + c.r)
    return a.r + moved + result.rounding(4, a.c.abs() + (b.c * c.c).abs())


def _same(result: Result, a: Number, *_: Any, **__: Any) -> Radius:
    """Of a function that is exact and moves no two values further apart."""
    return a.r


def _largest(result: Result, left: Any, right: Any) -> Radius:
    a, b = map(result.operand, (left, right))
    return torch.maximum(torch.as_tensor(a.r), torch.as_tensor(b.r))


def _extreme(result: Result, a: Number, dim: Any = (), keepdim: bool = False) -> Radius:  # noqa: FBT001, FBT002
    return a.r if isinstance(a.r, float) else a.r.amax(dim, keepdim=keepdim)


def _clamp(result: Result, a: Number, low: Any = None, high: Any = None) -> Radius:
    bounds = [result.operand(each).r for each in (low, high) if each is not None]
    return sum((torch.as_tensor(each) for each in bounds), torch.as_tensor(a.r))


def _converted(result: Result, a: Number, **_: Any) -> Radius:
    before = Number(a.c.to(result.c.device), torch.as_tensor(a.r).to(result.c.device))
    return result.operand(before).r


def _sum(
    result: Result,
    a: Number,
    dim: Any = None,
    keepdim: bool = False,  # noqa: FBT001, FBT002
    *,
    dtype: Any = None,
    mean: bool = False,
) -> Radius:
    n = a.c.numel() // max(1, result.c.numel())

    def total(values: Any) -> Any:
        if isinstance(values, float):
            return values * n
        whole = dim is None or (isinstance(dim, (list, tuple)) and not dim)
        return values.sum() if whole else values.sum(dim, keepdim=keepdim)

    sizes = total(a.c.abs())
    moved = total(a.r)
    found: Tensor = moved + result.rounding(n + 3, sizes).masked_fill(sizes == 0, 0)
    return found / n if mean else found


def _cumsum(result: Result, a: Number, dim: int, *, dtype: Any = None) -> Radius:
    moved = a.r if isinstance(a.r, float) else a.r.cumsum(dim)
    return moved + result.rounding(a.c.shape[dim], a.c.abs().cumsum(dim))


def _product(result: Result, a: Number, b: Number, extra: int = 0) -> Radius:
    n = a.c.shape[-1] + extra
    left, right = a.c.abs(), b.c.abs()
    found = left @ (result.rounding(n, right) + b.r) + result.least(n)
    found = found if isinstance(a.r, float) else found + a.r @ (right + b.r)
    if not bool((result.c == 0).any()):
        return found
    n_products = (~a.is_zero).double() @ (~b.is_zero).double()
    return vanishing(found, n_products == 0)


def _added_product(
    result: Result,
    to: Number,
    a: Number,
    b: Number,
    *,
    beta: float | int = 1,
    alpha: float | int = 1,
) -> Radius:
    n = a.c.shape[-1] + 4
    product = abs(alpha) * _product(result, a, b, extra=4)
    added = abs(beta) * (to.r + result.rounding(n, to.c).masked_fill(to.is_zero, 0))
    return product + added + (result.least(n) if abs(alpha) != 1 or abs(beta) != 1 else 0.0)


def _norm(
    result: Result,
    a: Number,
    ord: float | int = 2,  # noqa: A002
    dim: Any = None,
    keepdim: bool = False,  # noqa: FBT001, FBT002
    *,
    dtype: Any = None,
) -> Radius:
    if ord != 2:  # noqa: PLR2004
        raise unbounded("linalg_vector_norm")
    n = a.c.numel() // max(1, result.c.numel())
    moved: Radius = a.r
    if not isinstance(moved, float):
        moved = torch.linalg.vector_norm(moved, 2, dim, keepdim)
    # Squares may vanish.
    return moved + result.rounding(n + 4) + 2 * math.sqrt(n * result.kind.tiny)


RULES: dict[str, Rule] = {
    "add": _add,
    "sub": _add,
    "rsub": _reversed(_add),
    "mul": _mul,
    "div": _div,
    "addcmul": _addcmul,
    "neg": _same,
    "abs": _same,
    "relu": _same,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp,
    "maximum": _largest,
    "minimum": _largest,
    "amax": _extreme,
    "amin": _extreme,
    "_to_copy": _converted,
    "sum": _sum,
    "mean": partial(_sum, mean=True),
    "cumsum": _cumsum,
    "mm": _product,
    "bmm": _product,
    "mv": _product,
    "dot": _product,
    "addmm": _added_product,
    "baddbmm": _added_product,
    "addmv": _added_product,
    "linalg_vector_norm": _norm,
    **FUNCTIONS,
}
"""By the name of the operation; those in place are the same with `_` at the end."""
