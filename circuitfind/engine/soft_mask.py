"""The loss of a soft mask, and its slope: what a small change of each edge would do to it."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.full_pass import Mask, Stream, Streams, full_pass, sources
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.readout import Readout
from circuitfind.problem import Problem

_STREAM_FLOATS = 1 << 26
"""How many numbers the streams of all writers and readers may have together; 256 MiB in float32."""


def soft_loss(
    problem: Problem, replacement: Streams, clean_final: Stream, mask: Mask
) -> Float[Tensor, ""]:
    """Return the loss of a problem's prompts with a soft mask; differentiable in the mask.

    Args:
        problem: The problem, or a part of it that holds some of its prompts.
        replacement: What each writer sends along a cut edge.
        clean_final: What the logits read in the clean run.
        mask: 1 where an edge is kept, 0 where it is cut; anything between mixes the two.
    """
    model, graph, prompts = problem.model, problem.graph, problem.prompts
    with torch.no_grad():
        given = sources(model, graph, prompts.clean, prompts.real)
    run = full_pass(model, graph, given, replacement, mask, prompts.real, problem.places)
    return problem.metric.loss(Readout(problem, clean_final).values(run.final))


def prompts_together(problem: Problem) -> int:
    """Return how many prompts a pass with a soft mask takes together at most."""
    graph, length = problem.graph, problem.prompts.clean.shape[1]
    return max(1, _STREAM_FLOATS // (sum(graph.n_outer) * length * graph.shape.d_model))


def slope(engine: IncrementalEngine, mask: Mask) -> Mask:
    """Return the slope of the loss at a mask, in the metric's unit: d loss / d mask.

    Cutting a few of its edges changes the loss by about minus the sum of their slopes. All slopes
    are 0 where the metric has no gradient.

    Args:
        engine: The problem.
        mask: The mask.
    """
    problem = engine.problem
    n_prompts, size = len(problem.prompts), prompts_together(problem)
    total = torch.zeros(mask.shape, dtype=torch.float64)
    for first in range(0, n_prompts, size):
        rows = slice(first, first + size)
        part = replace(problem, prompts=problem.prompts.rows(rows))
        leaf = mask.to(problem.model.device, problem.model.dtype).requires_grad_()
        with torch.no_grad():
            carried = engine.runs(rows).replaced.of_all(*part.prompts.clean.shape)
        with torch.enable_grad():
            loss = soft_loss(part, carried, engine.clean_final[rows], leaf)
        if loss.requires_grad:
            (found,) = torch.autograd.grad(loss, leaf)
            total += found.double().cpu() * len(part.prompts) / n_prompts
    return total
