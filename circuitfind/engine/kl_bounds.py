"""Bounds on KL divergence that read few rows of the unembedding, and all others as a whole.

Let p be the full model's distribution, and q that of an anchor: a state whose logits were all
computed. A candidate's logits exceed the anchor's by e = W d, where d is the change of the normed
final stream. Let t = e - E_q[e] and S = E_q[exp t - 1 - t].

1. KL(p || candidate) - KL(p || anchor) = E_q[e] - E_p[e] + log(1 + S).
   Proof: the candidate's log-probabilities are log q + e - log E_q[exp e]; take the mean under p.
   Then E_q[exp e] = exp(E_q[e]) E_q[exp t], and E_q[exp t] = 1 + S because E_q[t] = 0.
2. S is at least the sum of its terms over any set of tokens.
   Proof: no term is negative.
3. If t <= B, then exp t - 1 - t <= phi(B) t^2, where phi(B) = (exp B - 1 - B) / B^2.
   Proof: phi(t) is the integral of (1 - s) exp(s t) over s from 0 to 1, so it rises with t.

The terms of the likeliest tokens are computed. If no other token is likelier than m, the others add
at most m phi(B) sum(t^2) to S. Over all tokens, the sum of t^2 is a quadratic form of d (the Gram
matrix of the rows around their mean, plus the square of the mean row's t); the computed ones are
subtracted. B is the largest distance of a row from the mean row, times the norm of d, plus the mean
row's t. So a candidate costs one token in 24 and the Gram matrix. The bounds are tight where d is
small, so the anchor has to follow the search.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitfind.engine.sizes import sizes_of
from circuitfind.measures import Reference, divergence, surplus_of

Normed = Float[Tensor, "*candidate batch step d_model"]
PerStep = Float[Tensor, "*candidate batch step"]
AtSteps = Float[Tensor, "batch step d_model"]

_EXACT_SHARE = 1 / 24
"""The share of all tokens whose logits are computed for each candidate: the likeliest ones."""

_MOST_SHARE = 1 / 4
"""Bounds are used where a candidate costs at most this share of the rows of the unembedding."""

_FEWEST_TOKENS = 8192
"""Of smaller vocabularies all logits take no more time than the many small steps of bounds."""

_ROUNDING = 8
"""Error of a rounded dot product, as a multiple of the spacing of numbers at 1 times the norms of
both vectors. The errors of single products have random signs; about 1 is usual."""

_SLACK = 1 + 2.0**-10
"""A factor for rounding in sums of terms that are not negative."""


def n_exact(n_tokens: int) -> int:
    """Return for how many tokens a candidate's logits are computed."""
    return max(1, int(n_tokens * _EXACT_SHARE))


def bounds_pay(n_tokens: int, d_model: int) -> bool:
    """Return whether bounds cost much less than all logits."""
    costs = n_exact(n_tokens) + d_model
    return n_tokens >= _FEWEST_TOKENS and costs <= n_tokens * _MOST_SHARE


def numbers_of_bounds(n_tokens: int, d_model: int, n_steps: int) -> int:
    """Return how many numbers bounds hold: the Gram matrix, and an anchor while it is made."""
    return (d_model + n_exact(n_tokens)) * d_model + n_steps * n_tokens


@dataclass(frozen=True)
class Anchor:
    """A state whose distributions are known, at each step of each prompt.

    Attributes:
        divergence: KL(full || anchor), in nats, computed from all logits.
        normed: Its final stream, after the final norm.
        distance: How far that is from the full model's.
        mean_row: The mean of the unembedding's rows under its distribution.
        rows: The rows of the likeliest tokens of all steps.
        probability: The probabilities of these tokens.
        largest: The largest probability of another token.
        radius: The largest distance of another token's row from the mean of all rows.
    """

    divergence: Float[Tensor, "batch step"]
    normed: AtSteps
    distance: Float[Tensor, "batch step"]
    mean_row: AtSteps
    rows: Float[Tensor, "token d_model"]
    probability: Float[Tensor, "batch step token"]
    largest: Float[Tensor, "batch step"]
    radius: float


class KlBounds:
    """Bounds how much KL(full || candidate) exceeds that of an anchor.

    Args:
        weight: The weight of the unembedding; its bias cancels.
        clean: The full model's final stream at the metric's steps, after the final norm.
        full: The full model's logits there.
        mean_row: The mean of the weight's rows under the full model's distribution.
    """

    def __init__(
        self,
        weight: Float[Tensor, "d_vocab d_model"],
        clean: AtSteps,
        full: Reference,
        mean_row: AtSteps,
    ) -> None:
        self._weight, self._clean, self._full, self._mean_row = weight, clean, full, mean_row
        self._tokens = sizes_of(weight.device).kl_tokens
        self._middle = weight.mean(0)
        self._gram = weight.new_zeros(weight.shape[1], weight.shape[1])
        radii = []
        for rows in weight.split(self._tokens):
            centred = rows - self._middle
            self._gram.addmm_(centred.T, centred)
            radii.append(centred.norm(dim=-1))
        self._radii = torch.cat(radii)
        number = torch.finfo(weight.dtype)
        self._rounding, self._tiny = _ROUNDING * number.eps, number.tiny
        self._longest = float(self._radii.max() + self._middle.norm())
        self._gram_rounding = self._rounding * float(self._gram.norm())
        # Up to there, probabilities too small for a number of this kind add nothing to the sums.
        self._largest_rise = math.log(number.max) / 2

    def anchor(self, normed: AtSteps) -> Anchor:
        """Return the anchor at a state, given its normed final stream; this computes all logits."""
        change = normed - self._clean
        divergence, probability, mean_row = self._distributions(change)
        likeliest = self._likeliest(probability)
        others = torch.ones_like(self._radii).index_fill(0, likeliest, 0)
        return Anchor(
            divergence=divergence,
            normed=normed,
            distance=change.norm(dim=-1),
            mean_row=mean_row,
            rows=self._weight[likeliest],
            probability=probability[..., likeliest],
            largest=probability.index_fill_(-1, likeliest, 0).amax(-1),
            radius=float((self._radii * others).max()),
        )

    def _distributions(
        self, change: AtSteps
    ) -> tuple[Float[Tensor, "batch step"], Float[Tensor, "batch step d_vocab"], AtSteps]:
        """Return the divergence, the probabilities and the mean row where the stream is changed.

        The weight is read once: some of its rows after the other, from the processor's cache.
        """
        below, full = -(change * self._mean_row).sum(-1, keepdim=True), self._full.probability
        probability, mean_row = torch.empty_like(full), torch.zeros_like(change)
        surplus, total = torch.zeros_like(below[..., 0]), torch.zeros_like(below[..., 0])
        for start in range(0, len(self._weight), self._tokens):
            tokens = slice(start, start + self._tokens)
            rise = below + change @ self._weight[tokens].T
            weights = torch.mul(rise.exp(), full[..., tokens], out=probability[..., tokens])
            surplus += surplus_of(rise, full[..., tokens])
            total += weights.sum(-1)
            mean_row += weights @ self._weight[tokens]
        if not bool(surplus.isfinite().all()):
            return self._far(change)
        divided = probability.div_(total[..., None]), mean_row.div_(total[..., None])
        return surplus.clamp(min=0).log1p(), *divided

    def _far(
        self, change: AtSteps
    ) -> tuple[Float[Tensor, "batch step"], Float[Tensor, "batch step d_vocab"], AtSteps]:
        """Return the same where exponentials overflow."""
        rise = change @ self._weight.T - (change * self._mean_row).sum(-1, keepdim=True)
        probability = (self._full.logits + rise).softmax(-1)
        found = divergence(lambda: iter([(slice(None), rise.clone())]), self._full)
        return found, probability, probability @ self._weight

    def _likeliest(self, probability: Float[Tensor, "batch step d_vocab"]) -> Int[Tensor, " token"]:
        """Return the tokens that are likeliest at any step."""
        return probability.flatten(0, 1).amax(0).topk(n_exact(len(self._weight))).indices

    def rises(self, anchor: Anchor, normed: Normed) -> tuple[PerStep, PerStep]:
        """Return the least and the largest rise of KL divergence from the anchor, in nats.

        They include the rounding error of the divergence as it is computed from all logits. They
        are infinite where exponentials may overflow.

        Args:
            anchor: The anchor.
            normed: Normed final streams of candidates.

        Returns:
            Both in float64, at each step.
        """
        change = normed - anchor.normed
        size = change.norm(dim=-1).double()
        mean_rise = (change * anchor.mean_row).sum(-1).double()
        of_middle = (change @ self._middle).double() - mean_rise
        rise = change @ anchor.rows.T
        rise -= mean_rise.to(rise)[..., None]

        squares = ((change @ self._gram) * change).sum(-1).double()
        squares = squares + len(self._weight) * of_middle.square() - rise.square().sum(-1).double()
        squares = squares.clamp(min=0) + self._gram_rounding * size.square()
        computed = surplus_of(rise, anchor.probability).double().clamp(min=0)
        largest_rise = anchor.radius * size + of_middle
        largest = anchor.largest.double().clamp(min=self._tiny)
        others = _SLACK * largest * phi(largest_rise) * squares

        linear = mean_rise - (change * self._mean_row).sum(-1).double()
        # That of the logits, and that of the anchor's probabilities, weighted with the rises.
        reach = self._longest * size
        far = (normed - self._clean).norm(dim=-1) + anchor.distance * (1 + reach)
        error = self._rounding * self._longest * far.double()
        low = linear + computed.log1p() - error
        high = linear + (computed + others).log1p() + error
        unknown = ~(low.isfinite() & high.isfinite()) | (2 * reach > self._largest_rise)
        return low.masked_fill(unknown, -torch.inf), high.masked_fill(unknown, torch.inf)


def phi(x: Float[Tensor, "*_"]) -> Float[Tensor, "*_"]:
    """Return (exp x - 1 - x) / x^2, which is 1/2 at 0."""
    near = x.abs() < 1e-3  # where the difference cancels, and the series is short
    series = 1 / 2 + x / 6 + x.square() / 24
    far = x.masked_fill(near, 1)
    return torch.where(near, series, (far.expm1() - far) / far.square())
