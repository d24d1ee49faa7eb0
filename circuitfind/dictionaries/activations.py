"""From pre-activations to the activations of latents.

Two functions are enough for all formats. A ReLU is a JumpReLU whose thresholds are 0. A gated SAE
(Rajamanoharan et al. 2024) is one too, once its gate is written as a threshold of its magnitudes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitfind.errors import quoted


@dataclass(frozen=True, eq=False)
class JumpRelu:
    """Pre-activations above a threshold stay as they are; all others become 0.

    Attributes:
        thresholds: One for each latent. A latent at its threshold is not active.
    """

    thresholds: Float[Tensor, " latent"]

    def __call__(
        self,
        pre: Float[Tensor, "*any latent"],
        latents: Int[Tensor, " latent"] | None = None,
    ) -> Float[Tensor, "*any latent"]:
        """Return the activations.

        Args:
            pre: The pre-activations.
            latents: Which latents these are; by default all.
        """
        thresholds = self.thresholds if latents is None else self.thresholds[latents]
        return pre * (pre > thresholds)


@dataclass(frozen=True)
class TopK:
    """The largest pre-activations of a position stay as they are; all others become 0.

    Attributes:
        k: How many stay.
        rectified: Whether negative ones become 0 even so, as in SAELens and sparsify, and not in
            circuit-tracer.
    """

    k: int
    rectified: bool = True

    def __call__(self, pre: Float[Tensor, "*any latent"]) -> Float[Tensor, "*any latent"]:
        """Return the activations, given the pre-activations of all latents."""
        largest, places = pre.topk(self.k, dim=-1, sorted=False)
        kept = largest.relu() if self.rectified else largest
        return torch.zeros_like(pre).scatter(-1, places, kept)


Activation = JumpRelu | TopK


def relu(n_latents: int) -> JumpRelu:
    """Return a ReLU."""
    return JumpRelu(torch.zeros(n_latents))


def top_k(k: object, n_latents: int, *, rectified: bool) -> TopK:
    """Return a TopK whose k comes from a file.

    Raises:
        ValueError: It is not a number of latents.
    """
    if type(k) is not int or not 1 <= k <= n_latents:
        raise ValueError(f"its k must be from 1 to {n_latents:,}, its latents, not {quoted(k)}")
    return TopK(k, rectified)
