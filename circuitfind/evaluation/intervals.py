"""Confidence intervals over prompts, by the paired bootstrap.

What is measured on the full model, the circuit and the empty graph belongs together prompt by
prompt, so whole prompts are drawn, with replacement. Faithfulness is a ratio of means and often
skewed: a few prompts have most of the divergence. So it is studentised (bootstrap-t): every draw's
distance from the estimate is taken in units of the draw's own standard error, that of the
linearised ratio. Intervals by percentiles of the draws are too short there, those of
`scipy.stats.bootstrap` (percentile, basic, BCa) alike; `tests/evaluation/test_intervals.py` holds
these to their coverage.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import betaincinv
from torch import Tensor

FEWEST_PROMPTS = 8
"""On fewer prompts no interval is given: too many draws repeat one prompt."""

LEVEL = 0.95

_DRAWS = 999

Values = NDArray[np.float64]


def share_interval(
    full: Float[Tensor, " batch"],
    circuit: Float[Tensor, " batch"],
    empty: Float[Tensor, " batch"],
    *,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return a 95 % interval of (mean circuit - mean empty) / (mean full - mean empty).

    Args:
        full: A metric of the full model on each prompt.
        circuit: Of the circuit.
        empty: Of the empty graph.
        seed: Fixes the draws.

    Returns:
        Lower and upper end, or None where there are too few prompts, they are too much alike, or
        there is no gap between the full and the empty graph.
    """
    closed = (circuit - empty).double().cpu().numpy()
    gap = (full - empty).double().cpu().numpy()
    return _studentised(closed, gap, seed)


def mean_interval(values: Float[Tensor, " batch"], *, seed: int = 0) -> tuple[float, float] | None:
    """Return a 95 % interval of a mean over prompts, or None where there are too few."""
    mean = values.double().cpu().numpy()
    return _studentised(mean, np.ones_like(mean), seed)


def share_bound(n_different: int, n: int, confidence: float = LEVEL) -> float:
    """Return the one-sided upper bound of a share by Clopper and Pearson."""
    if n_different == n:
        return 1.0
    # The quantile of a beta distribution; importing scipy.stats takes long.
    return float(betaincinv(n_different + 1, n - n_different, confidence))


def _studentised(part: Values, whole: Values, seed: int) -> tuple[float, float] | None:
    n = len(part)
    if n < FEWEST_PROMPTS:
        return None
    ratio, error = _ratio(part[None], whole[None])
    if not np.isfinite(ratio[0]):
        return None
    if error[0] <= 1e-12 * max(1.0, abs(ratio[0])):
        return float(ratio[0]), float(ratio[0])
    rows = np.random.default_rng(seed).integers(0, n, (_DRAWS, n))
    ratios, errors = _ratio(part[rows], whole[rows])
    with np.errstate(divide="ignore", invalid="ignore"):
        # A draw of prompts that are all alike lies infinitely far away, or on the estimate.
        distances = np.sort(
            np.nan_to_num((ratios - ratio[0]) / errors, posinf=np.inf, neginf=-np.inf)
        )
    tail = round((1 - LEVEL) / 2 * _DRAWS)
    ends = ratio[0] - distances[-1 - tail] * error[0], ratio[0] - distances[tail] * error[0]
    return (float(ends[0]), float(ends[1])) if np.isfinite(ends).all() else None


def _ratio(part: Values, whole: Values) -> tuple[Values, Values]:
    """Return ratios of means over the last axis, and their standard errors to first order."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = whole.mean(-1)
        ratio = part.mean(-1) / scale
        residual = (part - ratio[..., None] * whole) / scale[..., None]
    return ratio, residual.std(-1, ddof=1) / np.sqrt(part.shape[-1])
