"""Directions of the residual stream: what sets two sets of prompts apart.

Arditi et al. (2024, https://arxiv.org/abs/2406.11717) take the mean stream of harmful prompts less
that of harmless ones, at one of the last positions after one of the blocks. Here the clean and the
corrupted prompts are the two sets, so that every task has such a direction, and the position is
where metrics read.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.errors import MetricError
from circuitfind.graph import Block
from circuitfind.measures import along
from circuitfind.metrics import Metric
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Run, Seen
from circuitfind.prompts import PromptPairs

_SMALLEST = 1e-6
"""Of the streams' size: a shorter difference of means is rounding, and points anywhere."""

_ROWS = 64
"""How many prompts run at once."""


def with_direction(metric: Metric, model: ResidualModel, prompts: PromptPairs) -> Metric:
    """Return a metric with the direction that it has yet to be given, if there is one.

    Args:
        metric: Any metric; one that lacks nothing is returned as it is.
        model: The model whose streams set the direction.
        prompts: The prompts that set it. A circuit is searched and judged on held-out prompts by
            one and the same direction, so give those of the search.

    Raises:
        MetricError: The model has no such block, or the two sets have the same mean.
    """
    if metric.direction is None:
        return metric
    direction = mean_difference(model, prompts, metric.direction.block)
    return replace(metric, measure=along(direction), direction=None)


def mean_difference(
    model: ResidualModel, prompts: PromptPairs, block: int | None = None
) -> Float[Tensor, " d_model"]:
    """Return the mean stream of the clean prompts less that of the corrupted ones.

    Args:
        model: The model.
        prompts: The two sets.
        block: After which block, counted from 0; the last unless given.

    Returns:
        The mean over prompts, each averaged over the steps at which metrics read. It points from
        corrupted to clean and keeps its length.

    Raises:
        MetricError: The model has no such block, or the two sets have the same mean.
    """
    n_layers = model.shape.n_layers
    block = n_layers - 1 if block is None else block
    if not 0 <= block < n_layers:
        raise MetricError(
            f"no direction after block {block}: {model.name!r} has the blocks 0 to {n_layers - 1}; "
            "choose one of them"
        )
    prompts.require_one_length("a direction")
    prompts = prompts.to(model.device)
    total, size = torch.zeros((), device=model.device), 0.0
    for first in range(0, len(prompts), _ROWS):
        some = prompts.select(slice(first, first + _ROWS))
        clean, corrupted = (_stream(model, some, block, corrupted=c) for c in (False, True))
        total = total + (clean - corrupted).sum(0)
        size += float(clean.norm(dim=-1).sum())
    if not float(total.norm()) > _SMALLEST * size:
        raise MetricError(
            f"after block {block} clean and corrupted prompts have the same mean stream, so no "
            "direction sets them apart; choose another block, metric or corruption"
        )
    return total / len(prompts)


def _stream(
    model: ResidualModel, prompts: PromptPairs, block: int, *, corrupted: bool
) -> Float[Tensor, "batch d_model"]:
    """Return the stream after a block, averaged over each prompt's steps."""
    tokens = prompts.corrupted if corrupted else prompts.clean
    entering: list[Tensor] = []

    def note(seen: Seen, entered: Block, values: Tensor) -> None:
        if seen == "entering" and entered.kind != "mlp":
            entering.append(values)

    with torch.no_grad():
        Run(model, prompts.real, note).run(model.embed(tokens).joint)
        stepped = prompts.at_steps(entering[block + 1])
    real = prompts.step_is_real[..., None]
    return stepped.masked_fill(~real, 0).sum(1) / real.sum(1)
