"""Numbers as the page stores them: short enough for thousands of them, exact enough to be right."""

import base64
import math
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

_DIGITS = 7
_STEPS = 2**16 - 1


def short(value: float | None) -> float | None:
    """Return a number with seven significant digits; None for what is none or not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")


def finite(value: Any) -> Any:
    """Return plain JSON values with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def packed(shares: Float[Tensor, "query key"], *, causal: bool) -> str:
    """Return shares between 0 and 1 in steps of 1/65535, two bytes each, as base64.

    Row after row; of each row, where attention is causal, only the positions that it sees.
    """
    steps = (shares.double().clamp(0, 1) * _STEPS).round().cpu().numpy().astype("<u2")
    values = steps[np.tril_indices(len(steps))] if causal else steps.ravel()
    return base64.b64encode(values.tobytes()).decode()


def packed_size(length: int, *, causal: bool) -> int:
    """Return how many letters `packed` needs for a prompt of some length."""
    n = length * (length + 1) // 2 if causal else length * length
    return -(-2 * n // 3) * 4
