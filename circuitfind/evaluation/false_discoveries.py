"""Edges whose effect is more than chance, with the false discovery rate controlled.

Each edge is cut in the circuit; the change of the loss on each prompt is tested for a mean of 0
(Student's t over prompts). Of many tested edges some look effective by chance, so p-values are
adjusted to control the false discovery rate: the expected share of edges without effect among those
called effective. Benjamini & Hochberg (1995) holds for independent and positively dependent
tests, Benjamini & Yekutieli (2001) for any dependence, and effects of edges measured on the same
prompts do depend on one another. The prompts should be others than those on which the circuit was
found: a search keeps edges that happen to look good on its own.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control, t
from torch import Tensor

from circuitfind.circuit import Circuit

LEVEL = 0.05


@dataclass(frozen=True)
class EdgeEvidence:
    """Evidence for an edge.

    Attributes:
        edge: Its name.
        effect: Mean rise of the loss when it is cut in the circuit, in the metric's unit.
        p_value: Two-sided, of this edge alone.
        adjusted: Adjusted after Benjamini & Hochberg.
        adjusted_any: Adjusted after Benjamini & Yekutieli.
        low: Lower end of a 95 % interval of the effect, of this edge alone; None in older files.
        high: Its upper end.
    """

    edge: str
    effect: float
    p_value: float
    adjusted: float
    adjusted_any: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Discoveries:
    """The edges of a circuit, tested together.

    Attributes:
        held_out: Whether the prompts are others than those that the circuit was found on.
        n_prompts: How many.
        n_effective: Edges with an adjusted p-value below 0.05 (Benjamini & Hochberg).
        n_effective_any: Likewise after Benjamini & Yekutieli.
        edges: All edges, by p-value.
    """

    held_out: bool
    n_prompts: int
    n_effective: int
    n_effective_any: int
    edges: tuple[EdgeEvidence, ...]


def discoveries(
    circuit: Circuit, rises: Float[Tensor, "edge batch"], *, held_out: bool
) -> Discoveries | None:
    """Test all edges of a circuit.

    Args:
        circuit: The circuit.
        rises: For each edge, the rise of the loss on each prompt when it is cut in the circuit.
        held_out: Whether the circuit was found on other prompts.

    Returns:
        The outcome, or None if there is no edge or only one prompt.
    """
    if not len(rises) or rises.shape[1] < 2:
        return None
    effects, chances, half = _tested(rises.double().cpu())
    adjusted = false_discovery_control(chances, method="bh")
    adjusted_any = false_discovery_control(chances, method="by")
    names = [edge.name for edge in circuit.edges]
    columns = effects, chances, adjusted, adjusted_any, effects - half, effects + half
    rows = [
        EdgeEvidence(name, *map(float, row)) for name, *row in zip(names, *columns, strict=True)
    ]
    return Discoveries(
        held_out,
        rises.shape[1],
        int((adjusted < LEVEL).sum()),
        int((adjusted_any < LEVEL).sum()),
        tuple(sorted(rows, key=lambda row: (row.p_value, -abs(row.effect)))),
    )


def _tested(rises: Float[Tensor, "edge batch"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the means, their p-values, and half of the width of their intervals."""
    values = rises.numpy()
    n = values.shape[1]
    mean, error = values.mean(1), values.std(1, ddof=1) / np.sqrt(n)
    # Rounding is no effect: an edge that changes nothing may still change the last bits.
    nothing = np.abs(mean) <= 1e-12
    with np.errstate(divide="ignore", invalid="ignore"):
        chances = 2 * t.sf(np.abs(mean) / error, n - 1)
    half = t.ppf(1 - LEVEL / 2, n - 1) * error
    return mean, np.where(nothing, 1.0, np.nan_to_num(chances, nan=1.0)), half
