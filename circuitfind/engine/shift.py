"""How a circuit's logits differ from the full model's, without holding the logits.

KL divergence needs two things of the logits at a step: the log of the sum of their exponentials,
and their mean under the full model's distribution. The unembedding being affine, that mean's rise
is one dot product with what the final norm gives. The sum is made some thousand tokens at a time,
in the processor's cache, of differences from the full model's normaliser, so that it is near 1 and
its log near 0 for a circuit that is nearly the full model.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.measures import Reference, Shift
from circuitfind.models.base import ResidualModel, Unembedding

Stepped = Float[Tensor, "candidate batch step d_model"]

_TOKENS = 2048
"""How many tokens' logits are held at once."""

ROWS = 256
"""Of how many steps of prompts; with fewer, more time goes into reading the unembedding."""


class ShiftReadout:
    """Turns final streams at the metric's steps into what tells them from the full model's logits.

    Args:
        model: A model with an affine unembedding.
        unembedding: That.
        clean: The full graph's final stream at the steps of each prompt.
        full: The logits that it gives.
    """

    def __init__(
        self,
        model: ResidualModel,
        unembedding: Unembedding,
        clean: Float[Tensor, "batch step d_model"],
        full: Reference,
    ) -> None:
        self._model, self._weight, self._bias = model, *unembedding
        self._clean = model.final_norm(clean)
        self._log_normaliser = full.log_normaliser
        self._mean_row = full.probability @ self._weight

    def shift(self, streams: Stepped) -> Shift:
        """Return the shift of all candidates."""
        normed = self._model.final_norm(streams.flatten(0, 1)).view(streams.shape)
        expected = ((normed - self._clean) * self._mean_row).sum(-1)
        return Shift(self._log_normalisers(normed), expected)

    def _log_normalisers(self, normed: Stepped) -> Float[Tensor, "candidate batch step"]:
        flat = normed.flatten(0, 2)
        base = self._log_normaliser.expand(normed.shape[:-1]).flatten()
        sums = torch.zeros_like(base)
        for logits in self._logits(flat, base):
            sums += logits.exp_().sum(0)
        logs = sums.log()
        if not bool(logs.isfinite().all()):
            # Logits so far from the full model's that their exponentials overflow, or all vanish.
            parts = [logits.logsumexp(0) for logits in self._logits(flat, base)]
            logs = torch.stack(parts).logsumexp(0)
        return logs.view(normed.shape[:-1])

    def _logits(
        self, flat: Float[Tensor, "row d_model"], base: Float[Tensor, " row"]
    ) -> Iterator[Float[Tensor, "token row"]]:
        for start in range(0, len(self._weight), _TOKENS):
            rows = slice(start, start + _TOKENS)
            logits = torch.addmm(base[None], self._weight[rows], flat.T, beta=-1)
            if self._bias is not None:
                logits += self._bias[rows, None]
            yield logits
