"""Random scores: the baseline that every method has to beat."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.methods.scored import Scored
from circuitfind.methods.selection import Choice, Walk
from circuitfind.progress import Checkpoint, State


@dataclass(frozen=True, kw_only=True)
class RandomOptions(Choice):
    """Settings of the random baseline.

    Attributes:
        walk: By default a walk from the logits, so that no edge is wasted on a dead end.
        seed: Fixes the scores.
    """

    walk: Walk = "greedy"
    seed: int = 0


class Random(Scored):
    """Random scores as an entry of the table of methods."""

    name = "random"
    summary = "keep random edges that lead to the logits: the baseline"
    paper = "a baseline; no paper"
    options = RandomOptions

    def scoring(
        self, engine: IncrementalEngine, options: RandomOptions, state: State | None = None
    ) -> Iterator[Checkpoint]:
        """Yield the scores: independent, uniform between 0 and 1."""
        generator = torch.Generator().manual_seed(options.seed)
        shape = engine.graph.edge_mask.shape
        scores = torch.rand(shape, generator=generator, dtype=torch.float64)
        yield Checkpoint(1, 1, "draws", {"scores": scores})

    def unit(self, engine: IncrementalEngine) -> str:
        return "uniform"
