"""How a circuit's logits differ from the full model's, without holding the logits.

The unembedding being affine, the rise of all logits over the full model's is the unembedding of
what the final norm's output has changed by, and the mean of that rise under the full model's
distribution is one dot product. KL divergence follows from the rises minus their mean
(`measures.divergence`). They are computed some thousand tokens at a time, in the processor's
cache; accelerators take more at once. Differences come first, so nothing large cancels: the result
is never negative, and 0 for a stream that is the full model's.
"""

from collections.abc import Iterator
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.kl_bounds import KlBounds
from circuitfind.engine.sizes import sizes_of
from circuitfind.measures import Reference, Shift, divergence
from circuitfind.models.base import ResidualModel, Unembedding

Stepped = Float[Tensor, "candidate batch step d_model"]


class ShiftReadout:
    """Turns final streams at the metric's steps into what tells them from the full model's logits.

    Args:
        model: A model with an affine unembedding.
        unembedding: That.
        clean: The full graph's final stream at the steps of each prompt.
        full: The logits that it gives.

    Attributes:
        rows: Of how many steps of prompts logits are held at once.
    """

    def __init__(
        self,
        model: ResidualModel,
        unembedding: Unembedding,
        clean: Float[Tensor, "batch step d_model"],
        full: Reference,
    ) -> None:
        self._model, self._weight = model, unembedding[0]
        sizes = sizes_of(model.device)
        self.rows, self._tokens = sizes.kl_steps, sizes.kl_tokens
        self._clean = model.final_norm(clean)
        self._full = full
        self._mean_row = full.probability @ self._weight

    def shift(self, streams: Stepped) -> Shift:
        """Return the shift of all candidates."""
        change = self.normed(streams) - self._clean
        mean = (change * self._mean_row).sum(-1)
        return Shift(divergence(lambda: self._rises(change, mean), self._full))

    def normed(self, streams: Stepped) -> Stepped:
        """Return the streams after the final norm."""
        return self._model.final_norm(streams.flatten(0, 1)).view(streams.shape)

    @cached_property
    def bounds(self) -> KlBounds:
        """Bounds on the divergence that compute few logits."""
        return KlBounds(self._weight, self._clean, self._full, self._mean_row)

    def _rises(
        self, change: Stepped, mean: Float[Tensor, "candidate batch step"]
    ) -> Iterator[tuple[slice, Float[Tensor, "candidate batch step token"]]]:
        """Yield some tokens at a time, and how far their logits rise beyond the mean rise."""
        flat, below = change.flatten(0, 2), -mean.flatten()[:, None]
        for start in range(0, len(self._weight), self._tokens):
            tokens = slice(start, start + self._tokens)
            rises = torch.addmm(below, flat, self._weight[tokens].T)
            yield tokens, rises.view(*mean.shape, -1)
