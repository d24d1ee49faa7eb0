"""Attention some of whose moves from place to place are cut.

A move is a port of a head, a place that is attended to, and a place that attends. In the rows of
the one and the columns of the other, a cut move has the head compute with what cut edges carry: the
query of these rows, or the keys or values of these columns (what the head reads where all edges
into it are cut: normed, projected, and rotated by its position). A row has one softmax, whatever is
cut in it:

    score[p, j] = q'[p, j] . k'[p, j]        z[p] = sum over j of softmax(score)[p, j] v'[p, j]

Where a mask is soft, scores and values are mixed.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from circuitfind.graph import SINGLE_PORTS
from circuitfind.models.base import ResidualModel
from circuitfind.models.copies import in_copies, times
from circuitfind.models.forward import Stream, read_by_heads

Kept = Bool[Tensor, "head _candidate port source destination"]
Soft = Float[Tensor, "head _candidate port source destination"]
"""How much of each move of some heads is kept."""


class Ports(NamedTuple):
    """Queries, keys and values of some query heads; candidates one after another in the batch."""

    q: Float[Tensor, "head _q_batch _last d_head"]
    k: Float[Tensor, "head _k_batch pos d_head"]
    v: Float[Tensor, "head _v_batch pos d_head"]


def ports_of_heads(model: ResidualModel, layer: int, stream: Stream) -> Ports:
    """Return what all query heads of a layer read from one stream."""
    return Ports(*(read_by_heads(model, layer, port, stream) for port in SINGLE_PORTS))


class MixedRows(NamedTuple):
    """The attention of some heads of a layer, some of whose moves are cut.

    Attributes:
        model: The model.
        layer: The layer.
        heads: The heads.
        of: The number of the place of each position.
        real: True at positions that are no padding.
    """

    model: ResidualModel
    layer: int
    heads: Sequence[int]
    of: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"] | None

    def attend(
        self, live: Ports, carried: Ports, kept: Kept | Soft
    ) -> Float[Tensor, "head most_batch last d_head"]:
        """Return the z of the heads.

        Args:
            live: What they read.
            carried: What they read where all edges into them are cut, at all positions.
            kept: Which of their moves are kept, or how much of each.
        """
        pattern = self.pattern(live, carried, kept)
        of_v = _at_positions(kept[:, :, 2], self.of, live.q.shape[2])
        if of_v is None:
            return times(pattern, live.v)
        pattern = in_copies(pattern, of_v.shape[1])
        share = in_copies(of_v, pattern.shape[1]).to(pattern.dtype)
        found = times(pattern * share, live.v)
        return found + in_copies(times(pattern * (1 - share), carried.v), found.shape[1])

    def pattern(
        self, live: Ports, carried: Ports, kept: Kept | Soft
    ) -> Float[Tensor, "head most_batch last pos"]:
        """Return how much each position (row) attends to each, as `attend` is given its inputs."""
        last = live.q.shape[2]
        of_q, of_k = (_at_positions(kept[:, :, port], self.of, last) for port in range(2))

        def scores(query: Tensor) -> Tensor:
            return _mixture(of_k, *(self._scores(query, key) for key in (live.k, carried.k)))

        score = _mixture(of_q, lambda: scores(live.q), lambda: scores(carried.q[:, :, -last:]))
        return score.softmax(-1)

    def _scores(self, query: Tensor, key: Tensor) -> Callable[[], Tensor]:
        return lambda: self.model.attention_scores(self.layer, self.heads, query, key, self.real)


def _at_positions(
    kept: Tensor, of: Int[Tensor, "batch pos"], last: int
) -> Shaped[Tensor, "head _batch last pos"] | None:
    """Return how much is kept of a port, row by row and column by column; None for all of it."""
    if kept.dtype == torch.bool and bool(kept.all()):
        return None
    return kept[:, :, of[:, None, :], of[:, -last:, None]].flatten(1, 2)


def _mixture(
    share: Tensor | None, kept: Callable[[], Tensor], cut: Callable[[], Tensor]
) -> Float[Tensor, "head batch last pos"]:
    """Return scores of which a share is one thing, and the rest another."""
    if share is None:
        return kept()
    if share.dtype == torch.bool and not bool(share.any()):
        return cut()
    one, other = kept(), cut()
    most = max(each.shape[1] for each in (share, one, other))
    share, one, other = (in_copies(each, most) for each in (share, one, other))
    if share.dtype == torch.bool:
        return torch.where(share, one, other)
    # Where a position is not seen, both are minus infinity.
    return one - (1 - share) * (one - other).masked_fill(one.isinf(), 0)
