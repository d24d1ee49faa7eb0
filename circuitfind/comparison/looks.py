"""Attention of all heads to named positions, averaged over a problem's clean prompts.

From each kind of position (the named ones and those at which answers are read; all, where prompts
name none) the attention is summed that a head pays to

    previous       the position before
    same token     earlier positions with the same token
    after same     the positions after those
    itself, start  the position itself, and the first one
    right, wrong   positions that hold a right or a wrong answer, where answers are read
    at NAME        a named position

A number is the share of attention above what a head would pay that attends to all positions alike:
1 is all of it, 0 as much as by chance; below 0 it is less than by chance.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.engine.patterns import pattern_of
from circuitfind.engine.written import batches
from circuitfind.graph import Block
from circuitfind.patching.recording import Recording, record
from circuitfind.problem import Problem
from circuitfind.prompts import NO_TOKEN, PromptPairs

READ, ALL = "(answer)", "(all)"
"""Where answers are read, and all positions together; in brackets, so that no position of a task
bears these names."""

TOKEN_TARGETS = ("previous", "same token", "after same", "itself", "start")
RIGHT, WRONG = "right", "wrong"

_FLOATS = 1 << 23
"""Largest number of elements that the patterns of a block, or all streams, may hold at a time."""

Where = Bool[Tensor, "batch pos"]
Pairs = Bool[Tensor, "batch pos seen"]


@dataclass(frozen=True)
class Looks:
    """Attention of the heads of a model.

    Attributes:
        places: From which positions they look.
        targets: At what they may look.
        excess: Attention above chance, as a share of what is not chance; NaN where no prompt has
            the target, and for writers that are not heads.
    """

    places: tuple[str, ...]
    targets: tuple[str, ...]
    excess: Float[Tensor, "place target writer"]

    def of(self, place: str, target: str) -> Float[Tensor, " writer"]:
        """Return the number of every head for one place and target."""
        return self.excess[self.places.index(place), self.targets.index(target)]


def chunks(problem: Problem) -> list[Problem]:
    """Return the problem about a few prompts at a time, so that memory stays small."""
    graph, length = problem.graph, problem.prompts.clean.shape[1]
    n_heads = max(len(graph.heads_in(layer)) for layer in graph.attention)
    stream = length * problem.model.shape.d_model
    per_prompt = max(n_heads * length**2, len(graph.attention) * stream)
    return batches(problem, max(1, _FLOATS // per_prompt))


def recorded(problem: Problem) -> Recording:
    """Run the clean prompts."""
    return record(problem.model, problem.prompts.clean, problem.prompts.real)


def looks(problem: Problem) -> Looks:
    """Measure what all heads look at."""
    names = place_names(problem.prompts), target_names(problem.prompts)
    sizes = len(names[0]), len(names[1]), problem.graph.n_components
    totals = torch.zeros(3, *sizes, dtype=torch.float64)
    for chunk in chunks(problem):
        for block, pattern in patterns(chunk, recorded(chunk)):
            totals[..., list(block.writers)] += _sums(chunk, pattern).cpu()
    paid, by_chance, count = totals
    paid, by_chance = paid / count, by_chance / count
    return Looks(*names, (paid - by_chance) / (1 - by_chance))


def patterns(
    problem: Problem, run: Recording
) -> Iterator[tuple[Block, Float[Tensor, "head batch pos seen"]]]:
    """Yield the heads of each layer and their attention patterns in a run."""
    model, real = problem.model, problem.prompts.real
    with torch.no_grad():
        for block in problem.graph.with_heads:
            query, key = run.query[block.name], run.key[block.name]
            yield block, pattern_of(model, block.layer, query, key, real)


def place_names(prompts: PromptPairs) -> tuple[str, ...]:
    """Return from which positions heads look."""
    return (*prompts.positions, READ) if prompts.positions else (ALL, READ)


def target_names(prompts: PromptPairs) -> tuple[str, ...]:
    """Return at what heads may look."""
    return (*TOKEN_TARGETS, RIGHT, WRONG, *map(at, prompts.positions))


def at(name: str) -> str:
    """Return what the target at a named position is called."""
    return f"at {name}"


def _sums(
    problem: Problem, pattern: Float[Tensor, "head batch pos seen"]
) -> Float[Tensor, "3 place target head"]:
    """Return attention paid, that by chance, and how many positions can look, summed."""
    prompts = problem.prompts
    visible = visible_pairs(problem)
    by_place = torch.stack(list(place_masks(prompts).values())).double()
    rows = []
    for target in _targets(prompts).values():
        seen = target & visible
        share = seen.sum(-1) / visible.sum(-1).clamp(min=1)
        # A target that is all there is to see says nothing.
        counts = by_place * (seen.any(-1) & (share < 1))
        paid = torch.einsum("hbds,bds->hbd", pattern.double(), seen.double())
        rows.append(
            torch.stack(
                [
                    torch.einsum("kbd,hbd->kh", counts, paid),
                    torch.einsum("kbd,bd->k", counts, share.double())[:, None].expand(
                        -1, len(pattern)
                    ),
                    counts.sum((1, 2))[:, None].expand(-1, len(pattern)),
                ]
            )
        )
    return torch.stack(rows, dim=2)


def visible_pairs(problem: Problem) -> Pairs:
    """Return which positions each position can look at."""
    real = problem.prompts.real
    pairs = real[:, :, None] & real[:, None, :]
    return pairs.tril() if problem.model.causal else pairs


def place_masks(prompts: PromptPairs) -> Mapping[str, Where]:
    """Return where the positions of each kind are."""
    named = {name: at_index(prompts, index) for name, index in prompts.positions.items()}
    return {**(named or {ALL: prompts.real}), READ: read_at(prompts)}


def _targets(prompts: PromptPairs) -> Mapping[str, Pairs]:
    n, device = prompts.clean.shape[1], prompts.clean.device
    columns = torch.arange(n, device=device)
    distance = (columns[:, None] - columns[None, :]).expand(len(prompts), n, n)
    same = (prompts.clean[:, :, None] == prompts.clean[:, None, :]) & (distance > 0)
    # Seen from d, position s stands behind an earlier copy of what stands at d.
    after = torch.zeros_like(same)
    after[:, :, 1:] = same[:, :, :-1]
    whole = torch.ones_like(same)
    named = {
        at(name): whole & at_index(prompts, index)[:, None, :]
        for name, index in prompts.positions.items()
    }
    return {
        "previous": distance == 1,
        "same token": same,
        "after same": after & (distance > 0),
        "itself": distance == 0,
        "start": whole & (columns == 0),
        RIGHT: whole & holding(prompts, prompts.answers)[:, None, :],
        WRONG: whole & holding(prompts, prompts.wrong_answers)[:, None, :],
        **named,
    }


def at_index(prompts: PromptPairs, index: Int[Tensor, " batch"]) -> Where:
    """Return a mask of one position a prompt."""
    columns = torch.arange(prompts.clean.shape[1], device=prompts.clean.device)
    return columns[None, :] == index[:, None]


def read_at(prompts: PromptPairs) -> Where:
    """Return the positions at which answers are read."""
    found = torch.zeros_like(prompts.real)
    rows = torch.arange(len(prompts), device=found.device)[:, None].expand_as(prompts.steps)
    found[rows[prompts.step_is_real], prompts.steps[prompts.step_is_real]] = True
    return found


def holding(prompts: PromptPairs, answers: Int[Tensor, "batch step choice"]) -> Where:
    """Return the positions that hold one of a prompt's answers, of any step."""
    tokens = answers.flatten(1)
    held = (prompts.clean[:, :, None] == tokens[:, None, :]) & (tokens != NO_TOKEN)[:, None, :]
    return held.any(-1) & prompts.real
