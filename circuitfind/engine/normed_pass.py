"""Runs with edges cut before the norm of a layer's heads (Gemma 2), as MIB has them.

    input[r] = ... + sum over earlier layers of norm(sum over heads of the kept output or the
               replacement, before the norm)

Every reader has a mixture of its own, so the norm is applied for each of them. Only whole runs from
scratch are made.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from circuitfind.engine.full_pass import (
    Mask,
    MaskedRun,
    Stream,
    Streams,
    plain_pass,
    sources,
)
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.work import Start
from circuitfind.graph import Graph
from circuitfind.models.base import ResidualModel

_FLOATS = 1 << 27
"""How many numbers the streams of all writers, and of a layer's readers, may have together."""


class NormedEngine(IncrementalEngine):
    """Measures circuits of a model with raw heads (`models.raw_heads`), and cuts nothing else."""

    def finals(
        self, masks: Sequence[Bool[Tensor, "writer reader"]], start: Start | None = None
    ) -> Iterator[Stream]:
        """Yield the final stream of each mask where the metric reads it, computed from scratch."""
        problem, graph = self.problem, self.graph
        n_prompts, length = problem.prompts.clean.shape
        n_streams = len(graph.writers) + 3 * max(len(b.writers) for b in graph.attention.values())
        size = max(1, _FLOATS // (n_streams * length * graph.shape.d_model))
        for kept in masks:
            parts = []
            for first in range(0, n_prompts, size):
                parts.append(self._final(kept, slice(first, first + size)))
            yield torch.cat(parts)[:, -self.horizon.steps :]

    def _final(self, kept: Bool[Tensor, "writer reader"], rows: slice) -> Stream:
        problem, graph = self.problem, self.graph
        prompts, model = problem.prompts.rows(rows), problem.model
        with torch.no_grad():
            replaced = plain_pass(model, graph, prompts.corrupted, prompts.real).written
            given = sources(model, graph, prompts.clean, prompts.real)
            mask = kept.to(model.device, model.dtype)
            return _NormedRun(model, graph, prompts.real, replaced, mask).run(given).final


class _NormedRun(MaskedRun):
    """A run in which heads are normed together for each reader."""

    def __init__(
        self,
        model: ResidualModel,
        graph: Graph,
        real: Bool[Tensor, "batch pos"],
        replacement: Streams,
        kept: Mask,
    ) -> None:
        super().__init__(model, graph, real, replacement, kept, None, keep_reads=False)
        # Of each layer: the rows of its heads, what they write minus its replacement, and the sum
        # of all replacements.
        self._heads: dict[int, tuple[slice, Streams, Stream]] = {}

    def _write(self, written: Streams) -> None:
        first = self._sums.n_written
        rows, writer = slice(first, first + len(written)), self._graph.writers[first]
        if writer.kind != "head":
            super()._write(written)
            return
        replacement = self._replacement[rows]
        self._heads[writer.layer or 0] = rows, written - replacement, replacement.sum(0)
        # The stream is a sum of what is normed: heads themselves add nothing to it.
        self._replacement[rows] = 0
        super()._write(torch.zeros_like(written))

    def _received(self, readers: Sequence[int]) -> Streams:
        streams = super()._received(readers)
        for layer, (rows, difference, total) in self._heads.items():
            weights = self._kept[rows, list(readers)]
            kept = torch.einsum("wr,wbpd->rbpd", weights, difference)
            streams = streams + self._model.head_norm(layer, kept + total)  # type: ignore[attr-defined]
        return streams
