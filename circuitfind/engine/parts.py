"""A problem about a few prompts at a time, where all prompts' writers are too much at once."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from circuitfind.problem import Problem

_WRITER_FLOATS = 1 << 22
"""How many numbers all writers may write where each prompt can be taken for itself; 16 MiB in
float32."""


def in_parts(problem: Problem) -> list[Problem]:
    """Return problems about some prompts each, or the problem itself if it is small enough.

    Under mean ablation, what a cut edge carries follows from all prompts, so they stay together.
    """
    prompts, graph = problem.prompts, problem.graph
    per_prompt = graph.n_components * prompts.clean.shape[1] * graph.shape.d_model
    size = max(1, _WRITER_FLOATS // per_prompt)
    if size >= len(prompts) or problem.ablation.startswith("mean"):
        return [problem]
    chosen = [slice(first, first + size) for first in range(0, len(prompts), size)]
    return [replace(problem, prompts=prompts.select(rows)) for rows in chosen]


def joined(
    problem: Problem, finals: Iterable[Float[Tensor, "some _ d_model"]]
) -> Float[Tensor, "batch pos d_model"]:
    """Join the streams of some prompts each; those of short prompts lack padding."""
    width = problem.prompts.clean.shape[1]
    return torch.cat([pad(final, (0, 0, 0, width - final.shape[1])) for final in finals])
