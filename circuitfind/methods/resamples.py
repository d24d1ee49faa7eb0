"""Scores over resamples of the prompts: which edges matter whichever prompts are drawn.

A score is a sum over prompts, so one attribution, prompt by prompt, gives the scores on any number
of resamples: as many prompts as there are, drawn with replacement. An edge's score is then the mean
over resamples. It is stable if

    mean +- 1.96 sd / sqrt(number of resamples)

does not hold 0 (arXiv 2510.25786, with 10 resamples). An edge whose score is not stable scores a
millionth of it: by size it comes after all stable edges, in the order of these scores; by value it
stands between the stable edges that help and those that harm. The interval shrinks with the number
of resamples, so that number is part of the filter. The draws are the same for every seed of a run.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.problem import Problem
from circuitfind.progress import State
from circuitfind.prompts import PromptPairs

Scores = Float[Tensor, "writer reader"]

_SEED = 0
_UNSTABLE = 1e-6
_Z = 1.96
"""Standard errors from the middle to an end of an interval of 95 %."""


@dataclass(frozen=True)
class Resampled:
    """Scores on resamples, so far.

    Attributes:
        drawn: How often each row of the prompts is drawn into each resample.
        sums: The scores on each resample.
        before: The scores on the prompts themselves.
    """

    drawn: Float[Tensor, "resample row"]
    sums: Float[Tensor, "resample writer reader"]
    before: Scores

    @classmethod
    def of(cls, problem: Problem, n: int, state: State | None = None) -> "Resampled":
        """Begin, or go on from a checkpoint."""
        drawn = draws(problem.prompts, n)
        if state is not None:
            return cls(drawn, state["resampled"], state["scores"])
        zeros = torch.zeros(n, *problem.graph.edge_mask.shape, dtype=torch.float64)
        return cls(drawn, zeros, zeros[0])

    def add(self, scores: Scores, row: int) -> "Resampled":
        """Return the same with the scores so far, to which one row has added something."""
        added = self.drawn[:, row, None, None] * (scores - self.before)
        return replace(self, sums=self.sums + added, before=scores)

    @property
    def stable(self) -> Scores:
        """The mean score of each edge, a little of it where it is not stable."""
        mean, spread = self.sums.mean(0), self.sums.std(0)
        is_stable = mean.abs() > _Z * spread / math.sqrt(len(self.sums))
        return mean.where(is_stable, _UNSTABLE * mean)


def draws(prompts: PromptPairs, n: int) -> Float[Tensor, "resample row"]:
    """Return how often each row of some prompts is drawn into each of n resamples."""
    generator = torch.Generator().manual_seed(_SEED)
    drawn = torch.randint(prompts.n_prompts, (n, prompts.n_prompts), generator=generator)
    counts = torch.zeros(n, prompts.n_prompts, dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))
    return counts.repeat_interleave(prompts.n_runs, dim=1)
