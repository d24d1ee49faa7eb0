"""What a cut edge carries instead of the writer's current output, the same for all methods."""

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.full_pass import plain_pass
from circuitfind.problem import Problem


def replacements(problem: Problem) -> Float[Tensor, "writer batch pos d_model"]:
    """Return each writer's replacement under the problem's ablation.

    The output bias of attention belongs to no writer and is never replaced; an MLP's biases are
    part of what it writes.
    """
    model, prompts = problem.model, problem.prompts
    if problem.ablation == "zero":
        shape = (problem.graph.n_components, *prompts.clean.shape, model.shape.d_model)
        return torch.zeros((), dtype=model.dtype, device=model.device).expand(shape)
    corrupted = plain_pass(model, problem.graph, prompts.corrupted, prompts.real).written
    if problem.ablation == "resample":
        return corrupted
    real = prompts.real[None, :, :, None]
    axes = (1,) if problem.ablation == "mean" else (1, 2)
    total = corrupted.masked_fill(~real, 0).sum(axes, keepdim=True)
    return (total / real.sum(axes, keepdim=True)).expand_as(corrupted)
