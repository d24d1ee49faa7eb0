"""Take a run up again in the middle, with many patched streams stacked along the batch.

Nothing before the point at which a patch enters is run again, nor any position before the first
one that it changed: with causal attention those are what they were, and their keys and values are
taken from the recorded run. In the last block only the positions are run whose logits the metric
reads.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import Block, Input
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Heads, Run
from circuitfind.patching.recording import Recording

Entering = Float[Tensor, "candidate batch _span d_model"]
"""Streams of some candidates at the last positions, or at all."""

Rows = Float[Tensor, "row _span d_model"]
"""The same with candidates and prompts on one axis."""


class Point(NamedTuple):
    """A place in the run: the stream that the blocks of a stage are about to read.

    Attributes:
        stage: The stage; the last one is that of the logits.
        frozen: Whether the final norm keeps the scale of the recorded run.
    """

    stage: int
    frozen: bool = False


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

    def n_changed(self, point: Point, streams: Entering) -> int:
        """Return how many positions, counted from the end, differ from the recorded run.

        Args:
            point: Where the streams enter.
            streams: At all positions.
        """
        changed = (streams != self._base.entering[point.stage]).any(dim=-1).flatten(0, 1).any(dim=0)
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
            rows = run.run(streams.flatten(0, 1), point.stage)
        return rows.view(n, batch, *rows.shape[1:])


class _Rows(Run):
    """The rest of a run for rows of streams, which are given at the last positions."""

    def __init__(
        self, model: ResidualModel, base: Recording, real: Bool[Tensor, "row pos"], steps: int
    ) -> None:
        super().__init__(model, real)
        self._base, self._steps = base, steps
        looks_back = {i for i, reader in enumerate(self.graph.readers) if reader.looks_back}
        self._last = max(b.stage for b in self.graph.blocks if looks_back & set(b.readers))

    def read(self, block: Block, port: Input, stream: Rows) -> Heads:
        """Return keys and values at all positions, and all else where it is wanted."""
        if port not in ("k", "v"):
            return super().read(block, port, self._wanted(block, stream))
        last = super().read(block, port, stream)
        recorded = (self._base.key if port == "k" else self._base.value)[block.name]
        missing = recorded.shape[2] - last.shape[2]
        if not missing:
            return last
        n_candidates = last.shape[1] // recorded.shape[1]
        return torch.cat([recorded[:, :, :missing].repeat(1, n_candidates, 1, 1), last], dim=2)

    def _wanted(self, block: Block, stream: Rows) -> Rows:
        """Return a stream where it matters: after the last attention where the metric reads."""
        return stream[:, -self._steps :] if block.stage >= self._last else stream
