"""Train a transcoder: from what an MLP reads to what it writes.

Batch-top-k (Bussmann et al. 2024): of all pre-activations of a batch, as many of the largest are
kept as `n_active` for each position, so positions share them out as they need them. What is kept is
above a threshold, the same for all latents but for the batch; its mean over the last steps makes
the trained transcoder a JumpReLU, whose latents no longer depend on one another. Latents that are
never active learn what the others leave over (Gao et al. 2024).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.dictionaries.activations import JumpRelu
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.sites import Site


@dataclass(frozen=True)
class Recipe:
    """How a transcoder is trained.

    Attributes:
        n_latents: How many latents it has.
        n_active: How many are active at a position, on average.
        steps: How many batches are learned from.
        batch: How many positions a batch has.
        peak_rate: Learning rate; it falls to zero along a cosine.
        idle_steps: After how many steps without being active a latent counts as dead.
        revival: Weight of the loss by which dead latents learn.
        seed: Fixes the first weights and the order of the positions.
    """

    n_latents: int = 512
    n_active: int = 12
    steps: int = 5000
    batch: int = 1024
    peak_rate: float = 5e-3
    idle_steps: int = 100
    revival: float = 1 / 32
    seed: int = 0


class TranscoderTraining:
    """A transcoder in training.

    Args:
        read: What the MLP reads, a row for each position.
        written: What it writes.
        recipe: How to train.
    """

    def __init__(
        self,
        read: Float[Tensor, "row d_in"],
        written: Float[Tensor, "row d_out"],
        recipe: Recipe,
    ) -> None:
        self._recipe = recipe
        self._generator = torch.Generator().manual_seed(recipe.seed)
        # Numbers near 1, so that one learning rate is right for all sites.
        self._sizes = tuple(_size(values) for values in (read, written))
        self._read, self._written = read / self._sizes[0], written / self._sizes[1]
        self._weights = [each.requires_grad_() for each in self._first_weights()]
        self._idle = torch.zeros(recipe.n_latents, dtype=torch.long)
        self._threshold = 0.0

    def _first_weights(self) -> list[Tensor]:
        """Latents begin with directions in which the inputs differ from their mean."""
        n = self._recipe.n_latents
        mean = self._read.mean(0)
        rows = self._drawn(n)
        apart = self._read[rows] - mean
        apart += 0.1 * torch.randn(apart.shape, generator=self._generator)
        encoder = apart / apart.norm(dim=-1, keepdim=True)
        decoder = 0.1 * torch.randn(n, self._written.shape[1], generator=self._generator)
        return [encoder, -(encoder @ mean), decoder, self._written.mean(0)]

    def _drawn(self, n: int) -> Int[Tensor, " row"]:
        return torch.randint(len(self._read), (n,), generator=self._generator)

    def run(self) -> Iterator[float]:
        """Train, yielding the share of the variance that is not explained in each batch."""
        recipe = self._recipe
        optimizer = torch.optim.Adam(self._weights, lr=recipe.peak_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (1 + math.cos(math.pi * step / recipe.steps)) / 2
        )
        variance = float((self._written - self._written.mean(0)).square().sum(-1).mean())
        for step in range(recipe.steps):
            rows = self._drawn(recipe.batch)
            loss, revival, least = self._losses(self._read[rows], self._written[rows])
            optimizer.zero_grad()
            (loss + recipe.revival * revival).backward()
            optimizer.step()
            schedule.step()
            # Over the last fifth, the mean of the least that was kept.
            late = step - int(0.8 * recipe.steps)
            if late >= 0:
                self._threshold += (least - self._threshold) / (late + 1)
            yield loss.item() / variance

    def _losses(
        self, read: Float[Tensor, "row d_in"], written: Float[Tensor, "row d_out"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], float]:
        """Return the squared error, that of the dead latents, and the least that was kept."""
        encoder, encoder_bias, decoder, decoder_bias = self._weights
        pre = torch.relu(read @ encoder.T + encoder_bias)
        kept, least = _largest(pre, self._recipe.n_active * len(read))
        error = written - kept @ decoder - decoder_bias
        active = (kept.detach() != 0).any(0)
        self._idle = torch.where(active, 0, self._idle + 1)
        revival = self._revival(pre, error.detach(), self._idle > self._recipe.idle_steps)
        return error.square().sum(-1).mean(), revival, least

    def _revival(
        self,
        pre: Float[Tensor, "row latent"],
        error: Float[Tensor, "row d_out"],
        dead: Bool[Tensor, " latent"],
    ) -> Float[Tensor, ""]:
        """Return how far dead latents are from what the others leave over."""
        if not bool(dead.any()):
            return pre.new_zeros(())
        decoder = self._weights[2]
        n_used = min(int(dead.sum()), error.shape[1] // 2)
        kept, _ = _largest(pre[:, dead], n_used * len(error))
        return (error - kept @ decoder[dead]).square().sum(-1).mean()

    def trained(self, name: str, site: Site, trained_on: str) -> Dictionary:
        """Return the transcoder, for inputs and outputs of their own size.

        Each latent is scaled so that what it writes, when its activation is 1, has the norm 1.

        Args:
            name: What it is called.
            site: What it reads and writes.
            trained_on: The model.
        """
        encoder, encoder_bias, decoder, decoder_bias = (each.detach() for each in self._weights)
        read, written = self._sizes
        norms = (decoder * written).norm(dim=-1)
        return Dictionary(
            name=name,
            site=site,
            encoder=encoder / read * norms[:, None],
            encoder_bias=encoder_bias * norms,
            activation=JumpRelu(self._threshold * norms),
            decoder=decoder * written / norms[:, None],
            decoder_bias=decoder_bias * written,
            trained_on=trained_on,
        )


def _size(values: Float[Tensor, "row width"]) -> float:
    """Return the root of the mean square of an entry, its mean taken off."""
    return float((values - values.mean(0)).square().mean().sqrt())


def _largest(pre: Float[Tensor, "row latent"], n: int) -> tuple[Float[Tensor, "row latent"], float]:
    """Keep the n largest of all entries; return them, and the least of them."""
    flat = pre.flatten()
    least = flat.detach().kthvalue(max(1, len(flat) - n + 1)).values
    return pre * (pre >= least), float(least)
