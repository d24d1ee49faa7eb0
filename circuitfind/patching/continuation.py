"""Take a run up again in the middle, with many patched streams stacked along the batch.

Nothing before the point at which a patch enters is run again, nor any position before the first
one that it changed: with causal attention those are what they were, and their keys and values are
taken from the recorded run. In the last block only the positions are run whose logits the metric
reads.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.models.base import ResidualModel
from circuitfind.patching.recording import Recording, add_heads, attend, project

Entering = Float[Tensor, "candidate batch _ d_model"]
"""Streams of some candidates at the last positions, or at all."""

Rows = Float[Tensor, "row _ d_model"]
"""The same with candidates and prompts on one axis."""


class Point(NamedTuple):
    """A place in the run: the stream that a block's attention or its MLP is about to read.

    The stream that the logits read enters the attention of a block behind the last one.
    """

    layer: int
    half: Literal["attention", "mlp"] = "attention"


class Continuation:
    """A recorded run that can be taken up at any point.

    Args:
        model: The model.
        base: The run.
        real: True at positions that are no padding.
        steps: How many positions, counted from the end, the metric may read.
    """

    def __init__(
        self,
        model: ResidualModel,
        base: Recording,
        real: Bool[Tensor, "batch pos"],
        steps: int,
    ) -> None:
        self._model, self._base, self._real, self.steps = model, base, real, steps

    def entering(self, point: Point) -> Float[Tensor, "batch pos d_model"]:
        """Return the stream at a point of the recorded run."""
        layer, half = point
        return self._base.stream[layer] if half == "attention" else self._base.middle(layer)

    def n_changed(self, point: Point, streams: Entering) -> int:
        """Return how many positions, counted from the end, differ from the recorded run.

        Args:
            point: Where the streams enter.
            streams: At all positions.
        """
        changed = (streams != self.entering(point)).any(dim=-1).flatten(0, 1).any(dim=0)
        if not bool(changed.any()):
            return 0
        n = len(changed)
        return n - int(changed.int().argmax()) if self._model.causal else n

    def finish(
        self, point: Point, streams: Entering
    ) -> Float[Tensor, "candidate batch final d_model"]:
        """Return what the logits read if the run goes on from these streams.

        Args:
            point: Where the streams enter.
            streams: At the last positions, those before being as in the recorded run.
        """
        n, batch = streams.shape[:2]
        rows, layer = streams.flatten(0, 1), point.layer
        with torch.no_grad():
            if point.half == "mlp":
                rows = rows[:, -self._n_wanted(layer, rows.shape[1]) :]
                rows = rows + self._model.mlp(layer, rows)
                layer += 1
            for later in range(layer, self._model.shape.n_layers):
                rows = self._through(later, rows)
        return rows.view(n, batch, *rows.shape[1:])

    def _n_wanted(self, layer: int, n: int) -> int:
        is_last = layer == self._model.shape.n_layers - 1
        return min(n, self.steps) if is_last else n

    def _through(self, layer: int, entering: Rows) -> Rows:
        shape = self._model.shape
        wanted = self._n_wanted(layer, entering.shape[1])
        attention = self._attention(layer, entering, wanted)
        entering = entering[:, -wanted:]
        leaving = entering + attention
        if not shape.has_mlp:
            return leaving
        return leaving + self._model.mlp(layer, entering if shape.parallel_mlp else leaving)

    def _attention(self, layer: int, entering: Rows, wanted: int) -> Rows:
        query = project(self._model, layer, "q", entering[:, -wanted:])
        key = self._with_earlier(self._base.key[layer], project(self._model, layer, "k", entering))
        value = self._with_earlier(
            self._base.value[layer], project(self._model, layer, "v", entering)
        )
        real = self._real.repeat(len(entering) // len(self._real), 1)
        return add_heads(self._model, layer, attend(self._model, layer, query, key, value, real))

    def _with_earlier(
        self,
        recorded: Float[Tensor, "kv_head batch pos d_head"],
        last: Float[Tensor, "kv_head row last d_head"],
    ) -> Float[Tensor, "kv_head row pos d_head"]:
        """Put the recorded positions before those that were run again."""
        missing = recorded.shape[2] - last.shape[2]
        if not missing:
            return last
        n_candidates = last.shape[1] // recorded.shape[1]
        return torch.cat([recorded[:, :, :missing].repeat(1, n_candidates, 1, 1), last], dim=2)
