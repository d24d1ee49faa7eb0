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

from circuitfind.graph import Block, SinglePort
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Heads, Run, graph_of
from circuitfind.patching.recording import Recording

Entering = Float[Tensor, "candidate batch _span d_model"]
"""Streams of some candidates at the last positions, or at all."""

Rows = Float[Tensor, "row _span d_model"]
"""The same with candidates and prompts on one axis."""


class Point(NamedTuple):
    """A place in the run: the stream that a block's attention or its MLP is about to read.

    The stream that the logits read enters the attention of a block behind the last one; or its
    `logits`, if the final norm keeps the scale of the recorded run.
    """

    layer: int
    half: Literal["attention", "mlp", "logits"] = "attention"


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
        return self._base.middle(layer) if half == "mlp" else self._base.stream[layer]

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
        """Return the final residual stream if the run continues from these streams.

        Args:
            point: Where the streams enter.
            streams: At the last positions, those before being as in the recorded run.
        """
        n, batch = streams.shape[:2]
        with torch.no_grad():
            run = _Rows(self._model, self._base, self._real.repeat(n, 1), self.steps)
            rows = run.run(streams.flatten(0, 1), self._stage(point))
        return rows.view(n, batch, *rows.shape[1:])

    def _stage(self, point: Point) -> int:
        """Return the stage that a point's stream enters."""
        blocks = graph_of(self._model.shape).blocks
        entered = (b.stage for b in blocks if (b.kind, b.layer) == (point.half, point.layer))
        return next(entered, blocks[-1].stage)


class _Rows(Run):
    """The rest of a run for rows of streams, which are given at the last positions."""

    def __init__(
        self, model: ResidualModel, base: Recording, real: Bool[Tensor, "row pos"], steps: int
    ) -> None:
        super().__init__(model, real)
        self._base, self._steps = base, steps

    def projected(self, block: Block, port: SinglePort, stream: Rows) -> Heads:
        """Return queries where they are wanted, and keys and values at all positions."""
        if port == "q":
            return super().projected(block, port, self._wanted(block, stream))
        last = super().projected(block, port, stream)
        recorded = (self._base.key if port == "k" else self._base.value)[block.layer]
        missing = recorded.shape[2] - last.shape[2]
        if not missing:
            return last
        n_candidates = last.shape[1] // recorded.shape[1]
        return torch.cat([recorded[:, :, :missing].repeat(1, n_candidates, 1, 1), last], dim=2)

    def mlp(self, block: Block, stream: Rows) -> Rows:
        return super().mlp(block, self._wanted(block, stream))

    def _wanted(self, block: Block, stream: Rows) -> Rows:
        """Return a stream at the positions that matter: after the last block the metric's."""
        is_last = block.layer == self.model.shape.n_layers - 1
        return stream[:, -self._steps :] if is_last else stream
