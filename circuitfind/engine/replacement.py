"""What a cut edge carries instead of the writer's current output, the same for all methods."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.full_pass import plain_pass
from circuitfind.problem import Problem

Written = Float[Tensor, "writer batch pos d_model"]


def replacements(problem: Problem, mean: Tensor | None = None) -> Written:
    """Return each writer's replacement under the problem's ablation.

    The output bias of attention belongs to no writer and is never replaced; an MLP's biases are
    part of what it writes.

    Args:
        problem: The problem.
        mean: What `mean_written` gives for all prompts, where the problem holds only some of them
            and the ablation takes means.
    """
    model, prompts = problem.model, problem.prompts
    shape = (problem.graph.n_components, *prompts.clean.shape, model.shape.d_model)
    if problem.ablation == "zero":
        return torch.zeros((), dtype=model.dtype, device=model.device).expand(shape)
    if problem.ablation == "resample":
        return _written(problem)
    return (mean_written([problem]) if mean is None else mean).expand(shape)


def mean_written(problems: Iterable[Problem]) -> Written:
    """Return the mean of what each writer writes on all corrupted prompts, for mean ablation.

    Args:
        problems: The problem, or parts of it that hold some of the prompts each.

    Returns:
        The mean, with axes of length 1 for what it is taken over: prompts, and under
        `mean-over-positions` positions too.
    """
    total, count = torch.zeros(()), torch.zeros(())
    for problem in problems:
        axes = (1,) if problem.ablation == "mean" else (1, 2)
        real = problem.prompts.real[None, :, :, None]
        total = _written(problem).masked_fill(~real, 0).sum(axes, keepdim=True) + total
        count = real.sum(axes, keepdim=True) + count
    return total / count


def _written(problem: Problem) -> Written:
    prompts = problem.prompts
    return plain_pass(problem.model, problem.graph, prompts.corrupted, prompts.real).written
