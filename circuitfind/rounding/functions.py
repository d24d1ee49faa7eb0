"""Rules for functions of an element: a radius times the largest slope within it, and rounding.

The functions are assumed to be accurate to 4 ulp, which is more than their libraries state.
"""

from typing import Any

import torch

from circuitfind.rounding.numbers import Number, Radius, Result, Rule, unbounded


def _pow(result: Result, a: Number, exponent: Any) -> Radius:
    if exponent in (0.5, -0.5, -1):
        return {0.5: _sqrt, -0.5: _rsqrt, -1: _reciprocal}[exponent](result, a)
    if isinstance(exponent, Number) or exponent != int(exponent) or not 1 <= exponent <= 8:  # noqa: PLR2004
        raise unbounded("pow")
    n = int(exponent)
    # By the mean value theorem.
    return n * a.r * (a.c.abs() + a.r) ** (n - 1) + result.rounding(n + 4)


def _sqrt(result: Result, a: Number) -> Radius:
    # |sqrt y - sqrt x| = |y - x| / (sqrt y + sqrt x)
    moved = (a.r / a.c.sqrt()).masked_fill(~(a.c > a.r), torch.inf).masked_fill(a.is_exact, 0)
    return moved + result.rounding()


def _rsqrt(result: Result, a: Number) -> Radius:
    least = a.c - a.r
    moved = (a.r / 2 * least**-1.5).masked_fill(~(least > 0), torch.inf)
    return moved.masked_fill(a.is_exact, 0) + result.rounding(4)


def _reciprocal(result: Result, a: Number) -> Radius:
    least = a.c.abs() - a.r
    moved = (a.r / a.c.abs() / least).masked_fill(~(least > 0), torch.inf)
    return moved + result.rounding()


def _log(result: Result, a: Number) -> Radius:
    least = a.c - a.r
    return (a.r / least).masked_fill(~(least > 0), torch.inf) + result.rounding(4)


def _exp(result: Result, a: Number) -> Radius:
    return a.r * (a.c + a.r).exp() + result.rounding(4)


def _smooth(slope: float, *, of_input: bool = False) -> Rule:
    """Return the rule of a function whose slope is nowhere larger.

    Args:
        slope: That slope.
        of_input: Whether it is a product of its input and a factor between 0 and 1, which is a sum
            in which digits may be lost: it is rounded like a value as large as the input.
    """

    def rule(result: Result, a: Number, **_: Any) -> Radius:
        found = a.r * slope + (result.rounding(8, a.c) if of_input else result.rounding(4))
        # Those that are 0 at 0 are so exactly.
        return found.masked_fill(a.is_zero & (result.c == 0), 0)

    return rule


def _wave(result: Result, a: Number) -> Radius:
    return a.r + result.rounding(4, torch.ones_like(result.c))


def _gelu(result: Result, a: Number, *, approximate: str = "none") -> Radius:
    # The slope is P(x) + x p(x), where P is between 0 and 1 and |x p(x)| <= 1 / sqrt(2 pi e) < 1/4.
    # With tanh(u) it is (1 + tanh u) / 2 + x u' / (2 cosh^2 u), where |x u'| <= 3 |u|, and
    # |u| / cosh^2 u < 0.45.
    return _smooth(1.25 if approximate == "none" else 1.7, of_input=True)(result, a)


FUNCTIONS: dict[str, Rule] = {
    "pow": _pow,
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "reciprocal": _reciprocal,
    "log": _log,
    "exp": _exp,
    "tanh": _smooth(1.0),
    "sigmoid": _smooth(0.25),
    "erf": _smooth(1.13),
    "sin": _wave,
    "cos": _wave,
    "gelu": _gelu,
    # The slope is s + x s (1 - s), where s is between 0 and 1 and |x| s (1 - s) <= |x| exp(-|x|).
    "silu": _smooth(1.4, of_input=True),
}
"""By the name of the operation."""
