"""Random scores: the baseline that every method has to beat."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.limits import require_fields
from circuitfind.methods.base import SEED
from circuitfind.methods.scored import Scored
from circuitfind.methods.selection import Selection
from circuitfind.progress import Checkpoint, State


@dataclass(frozen=True, kw_only=True)
class RandomOptions:
    """Settings of the random baseline.

    Attributes:
        seed: Fixes the scores.
    """

    seed: int = field(default=0, metadata=SEED)

    def __post_init__(self) -> None:
        require_fields(self)


class Random(Scored):
    """Random scores as an entry of the table of methods.

    Edges are taken by a walk from the logits, so that none is wasted on a dead end.
    """

    name = "random"
    summary = "keep random edges that lead to the logits: the baseline"
    paper = "a baseline; no paper"
    knows_moves = True
    options = RandomOptions
    selection = Selection(walk="greedy")

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
