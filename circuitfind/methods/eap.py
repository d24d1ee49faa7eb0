"""Edge attribution patching: the slope of the loss along every edge, on the clean run alone.

    score(w -> r) = sum over prompts, positions and d_model of (c_w - a_w) d loss / d x_r

averaged over prompts: the first-order estimate of what cutting the edge does to the loss, from two
passes forward and one back. The gradient is that at the reader's input before its norm. Positive:
cutting the edge raises the loss. Paper: Syed et al. 2023, arXiv 2310.10348.

`rules` take another slope where that of a point misleads (`circuitfind.models.rules`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.limits import require_fields
from circuitfind.methods.attribution import Limits, Place, attribute
from circuitfind.methods.resamples import Resampled
from circuitfind.methods.scored import Scored
from circuitfind.methods.slopes import require_slope
from circuitfind.models.rules import Rules
from circuitfind.progress import Checkpoint, State

CLEAN = Place(share=1.0, weight=1.0)


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Settings of a method that takes the prompts a batch at a time.

    Attributes:
        batch: Prompts at a time, by default as many as keep memory small. Changes no score.
        checkpoint: Compute the insides of MLPs again on the way back rather than keep them: less
            memory, more time, the same scores. On the clean run, which the engine has made before,
            they always are.
    """

    batch: int | None = None
    checkpoint: bool = False

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def limits(self) -> Limits:
        return Limits(self.batch, self.checkpoint)


@dataclass(frozen=True, kw_only=True)
class EapOptions(BatchOptions):
    """Settings of edge attribution patching.

    Attributes:
        rules: By which gradients are passed on: `gim`, `relp`, `attnlrp`, or some of `norms`,
            `softmax`, `qkv`, `gate`, `secant` and `pattern`, separated by commas. By default
            gradients are the model's own.
        resamples: Draw the prompts this many times with replacement, and score each edge by the
            mean over the draws, or a millionth of it where that is not stable
            (`methods.resamples`). Prompts are then taken one by one.
    """

    rules: str | None = None
    resamples: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        Rules.of(self.rules)

    @property
    def limits(self) -> Limits:
        found = super().limits
        return found if self.resamples is None else replace(found, batch=1)


class Attribution(Scored):
    """What edge attribution has in common, wherever slopes are taken."""

    knows_moves = True

    def require_moves(self, options: Mapping[str, Any]) -> None:
        """Refuse rules for the gradients inside attention."""
        super().require_moves(options)
        if options.get("rules"):
            raise MethodError(
                "moves inside attention are scored by the model's own gradients; leave out "
                "crossing, or leave out rules"
            )


class Eap(Attribution):
    """Edge attribution patching as an entry of the table of methods."""

    name = "eap"
    summary = "estimate every edge's effect from one gradient on the clean run"
    paper = "Syed et al. 2023, arXiv 2310.10348"
    options = EapOptions

    def scoring(
        self, engine: IncrementalEngine, options: EapOptions, state: State | None = None
    ) -> Iterator[Checkpoint]:
        """Yield after each batch of prompts."""
        require_slope(engine.problem.metric, self.name, at_clean_only=True)
        yield from along(engine, [CLEAN], options, state)


def along(
    engine: IncrementalEngine, places: list[Place], options: EapOptions, state: State | None
) -> Iterator[Checkpoint]:
    """Score all edges from slopes at some places, yielding after each few gradients.

    Raises:
        MethodError: A score is infinite or NaN; the message names the edge.
    """
    earlier = None if state is None else (int(state["done"]), state["scores"])
    if earlier is not None and state is not None:
        # The last checkpoint may be the whole.
        n_all = int(state["total"])
        yield Checkpoint(earlier[0], n_all, "gradients", state)
    sums = None
    if options.resamples is not None:
        sums = Resampled.of(engine.problem, options.resamples, state)
    for done, n_all, scores in attribute(
        engine, places, options.limits, earlier, Rules.of(options.rules)
    ):
        now = {"scores": scores, "done": torch.tensor(done), "total": torch.tensor(n_all)}
        if sums is not None:
            # A prompt at a time, so that what was added belongs to one.
            sums = sums.add(scores, (done - 1) // len(places))
            now["resampled"] = sums.sums
            if done == n_all:
                now["scores"] = sums.stable
        yield Checkpoint(done, n_all, "gradients", now)
