"""Ablations: what a cut edge carries in place of what its writer writes.

An ablation is data: a weighted sum of what the writer writes in some runs of the model, averaged
over pairs of prompts, over positions, over both or over neither; or constants that were trained
from there. All that the package asks of an ablation follows from that, so nothing asks for its
name.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitfind.errors import MethodError, PromptError, quoted
from circuitfind.prompts import PromptPairs
from circuitfind.registry import Table

Tokens = Int[Tensor, "batch pos"]
TokensOf = Callable[[PromptPairs], Tokens]
Axis = Literal["batch", "pos"]
Constants = Mapping[str, Float[Tensor, "writer 1 place width"]]
"""What cut edges carry at each place, by the name of the part of a graph that writes it (see
`engine.written`); one place where edges act at all positions."""


def clean(prompts: PromptPairs) -> Tokens:
    """Return the clean prompts."""
    return prompts.clean


def corrupted(prompts: PromptPairs) -> Tokens:
    """Return the corrupted prompts."""
    return prompts.corrupted


def _is_run(given: object) -> bool:
    """Return whether this is a finite weight and a function of prompts."""
    match given:
        case (int() | float() as weight, tokens):
            return math.isfinite(weight) and callable(tokens)
    return False


@dataclass(frozen=True)
class Ablation:
    """What a cut edge carries.

    Attributes:
        name: What options and files call it.
        runs: Weights, and the prompts of the run that each is the weight of: a function that gives
            for each pair of prompts the tokens of a prompt as long as these two, and gives them
            for each pair alone. A cut edge carries the sum of what its writer writes in these
            runs, times their weights; without a run it carries 0.
        mean_over: The axes over which this is averaged: `batch`, all pairs of prompts; `pos`, the
            positions of a prompt. Padding counts nowhere.
        summary: What a cut edge carries, in a sentence.
        constants: What cut edges carry in place of a sum of runs, where it was trained.

    Raises:
        MethodError: There is no such axis, or a run is not a number and a function.
    """

    name: str
    runs: tuple[tuple[float, TokensOf], ...]
    mean_over: tuple[Axis, ...] = ()
    summary: str = ""
    constants: Constants | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        axes: object = self.mean_over
        if not isinstance(axes, tuple) or not set(axes) <= {"batch", "pos"}:
            raise MethodError(
                f"the ablation {quoted(self.name)} cannot be averaged over {quoted(axes)}; give a "
                "tuple of 'batch' (pairs of prompts) and 'pos' (positions), or ()"
            )
        runs: object = self.runs
        if not isinstance(runs, tuple) or not all(_is_run(run) for run in runs):
            raise MethodError(
                f"the runs of the ablation {quoted(self.name)} are {quoted(runs)}; give a tuple "
                "with a weight and a function for each run: ((0.5, clean), (0.5, corrupted))"
            )

    def empty_graph(self, prompts: PromptPairs) -> Tokens | None:
        """Return the prompts on which the model itself is the empty graph; None if on none.

        Where there are such prompts, a component that reads nothing of the clean run writes what
        its cut edges would carry. What is lined up by spans is no run of the model.
        """
        if not self.pruning_is_free or prompts.alignment is not None:
            return None
        return self.runs[0][1](prompts)

    @property
    def pruning_is_free(self) -> bool:
        """Whether dead ends can be removed without a change of any output.

        That is so where the empty graph is a run of the model.
        """
        return not self.mean_over and [weight for weight, _ in self.runs] == [1]

    def first_change(self, prompts: PromptPairs) -> int:
        """Return how many positions at the beginning no cut changes, reading from left to right."""
        if self.mean_over or sum(weight for weight, _ in self.runs) != 1:
            return 0
        if prompts.alignment is not None:
            return 0
        runs = torch.stack([tokens(prompts) for _, tokens in self.runs])
        differs = (runs != prompts.clean).flatten(0, 1).any(dim=0)
        return int(differs.long().argmax()) if bool(differs.any()) else len(differs)

    def check(self, prompts: PromptPairs) -> None:
        """Refuse prompts for which nothing says what a cut edge carries.

        Raises:
            PromptError: Positions of prompts of unequal lengths would be averaged.
            MethodError: The tokens of a run do not belong to these prompts.
        """
        if "batch" in self.mean_over and "pos" not in self.mean_over and prompts.padded:
            raise PromptError(
                f"the ablation {quoted(self.name)} averages position by position and these prompts "
                "have unequal lengths; choose 'mean-over-positions', or prompts of one length"
            )
        for tokens, by_pair in self._outside_tokens(prompts):
            given: object = tokens
            if not isinstance(given, Tensor) or given.dtype != prompts.clean.dtype:
                kind = given.dtype if isinstance(given, Tensor) else type(given).__name__
                raise MethodError(
                    f"the ablation {quoted(self.name)} runs the model on {kind}; return token ids "
                    f"like those of `prompts.clean`, {prompts.clean.dtype}"
                )
            if tokens.shape != prompts.clean.shape:
                raise MethodError(
                    f"the ablation {quoted(self.name)} runs the model on tokens of shape "
                    f"{tuple(tokens.shape)} and the prompts have {tuple(prompts.clean.shape)}; "
                    "return a prompt for each pair, as long as the pair"
                )
            if not all(alone.equal(row[None]) for alone, row in zip(by_pair, tokens, strict=True)):
                raise MethodError(
                    f"the ablation {quoted(self.name)} runs the model on prompts that depend on "
                    "more than one pair; return for each pair what it gives alone"
                )

    def _outside_tokens(self, prompts: PromptPairs) -> Iterator[tuple[Tokens, Iterator[Tokens]]]:
        """Yield each run's tokens, all at once and pair by pair."""
        for _, tokens in self.runs:
            if tokens not in (clean, corrupted):
                rows = (prompts.rows(slice(row, row + 1)) for row in range(len(prompts)))
                yield tokens(prompts), (tokens(pair) for pair in rows)


RESAMPLE = Ablation(
    "resample", ((1.0, corrupted),), summary="the writer's output on the corrupted prompt"
)

MEAN_OF_CLEAN = Ablation(
    "mean-of-clean",
    ((1.0, clean),),
    ("batch", "pos"),
    summary="the mean output over all clean prompts and positions",
)
"""For prompts that have no corruption, such as unrelated text."""

ABLATIONS = Table(
    "ablation",
    Ablation,
    MethodError,
    (
        RESAMPLE,
        Ablation("zero", (), summary="nothing"),
        Ablation(
            "mean",
            ((1.0, corrupted),),
            ("batch",),
            summary="the mean output on the corrupted prompts, position by position",
        ),
        Ablation(
            "mean-over-positions",
            ((1.0, corrupted),),
            ("batch", "pos"),
            summary="the mean output over all corrupted prompts and positions",
        ),
    ),
)
"""Every named ablation."""

LEARNED = "learned"
"""What ablations with constants are called."""


def learned(constants: Constants) -> Ablation:
    """Return the ablation whose cut edges carry constants (`engine.constants`)."""
    runs = ((1.0, corrupted),)
    return Ablation(LEARNED, runs, ("batch", "pos"), "constants that were trained", constants)
