"""Direct logit effect of each head, and the heads that steer the copying heads' attention.

Both are measured at the positions where answers are read. "About the answer" is along the slope of
the logit difference (or of the answers' log-likelihood, where prompts have no wrong answers) at
what the logits read in the clean run: the first-order direct effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.comparison.looks import (
    RIGHT,
    at,
    at_index,
    chunks,
    holding,
    read_at,
    recorded,
    visible_pairs,
)
from circuitfind.engine.patterns import pattern_of
from circuitfind.engine.readout import Readout
from circuitfind.engine.replacement import mean_over_prompts, runs_of
from circuitfind.graph import Block, Writer
from circuitfind.models.forward import attend
from circuitfind.patching.recording import Recording
from circuitfind.problem import Problem
from circuitfind.prompts import PromptPairs


@dataclass(frozen=True)
class Written:
    """Direct logit effects of heads, as shares of the model's lead.

    Attributes:
        direct: What each head's output adds to the metric; 0 for writers that are not heads.
        sources: Where a head may read what it writes: positions that hold a right answer, or
            named ones.
        copied: What the part of its output adds that it read there.
    """

    direct: Float[Tensor, " writer"]
    sources: tuple[str, ...]
    copied: Float[Tensor, "source writer"]


def written_answers(problem: Problem, lead: float) -> Written:
    """Measure what every head writes about the answer.

    Args:
        problem: With a metric of the answer.
        lead: How much better the metric is on the clean prompts than on the corrupted ones.
    """
    names = _source_names(problem.prompts)
    sums = torch.zeros(1 + len(names), problem.graph.n_components).double()
    for chunk in chunks(problem):
        run = recorded(chunk)
        slope = _slope(chunk, run)
        for block in problem.graph.with_heads:
            sums[:, list(block.writers)] += _along(chunk, run, block, slope, names)
    shares = -problem.metric.sign * sums / len(problem.prompts) / abs(lead)
    return Written(shares[0], names, shares[1:])


def _source_names(prompts: PromptPairs) -> tuple[str, ...]:
    """Return where heads may read: not the names of positions at which answers are read."""
    read = read_at(prompts)
    named = [
        name
        for name, index in prompts.positions.items()
        if not bool((read & at_index(prompts, index)).any())
    ]
    return (RIGHT, *map(at, named))


def _slope(problem: Problem, run: Recording) -> Float[Tensor, "batch pos d_model"]:
    """Return the gradient of the summed metric at what the logits read."""
    leaf = run.final.detach().requires_grad_()
    with torch.enable_grad():
        total = Readout(problem, run.final).values(leaf).double().sum()
    (slope,) = torch.autograd.grad(total, leaf)
    return slope


def _along(
    problem: Problem,
    run: Recording,
    block: Block,
    slope: Float[Tensor, "batch pos d_model"],
    sources: Sequence[str],
) -> Float[Tensor, "part head"]:
    """Return what heads write along a slope: all of it, and what they read at each source."""
    model, prompts = problem.model, problem.prompts
    name, layer, heads = block.name, block.layer, range(len(block.writers))
    with torch.no_grad():
        z = run.z[name]
        whole = model.output(layer, heads, z)
        parts = [whole]
        for source in sources:
            seen = _holding(prompts, source)
            value = run.value[name] * seen[None, :, :, None]
            read = attend(model, layer, run.query[name], run.key[name], value, prompts.real)
            # Where heads share a norm, a part of what is mixed is no part of what is written.
            parts.append(whole - model.output(layer, heads, z - read))
        return torch.stack(
            [torch.einsum("hbpd,bpd->h", part.double(), slope.double()) for part in parts]
        ).cpu()


def _holding(prompts: PromptPairs, source: str) -> Tensor:
    if source == RIGHT:
        return holding(prompts, prompts.answers)
    return at_index(prompts, prompts.positions[source.removeprefix(at(""))])


@dataclass(frozen=True)
class Turned:
    """The effect of a head on where copying heads attend.

    Attributes:
        off_wrong: Attention that a copying head pays to wrong answers, more of it if the head's
            output is replaced in its query.
        copier: The copying head that is turned most.
    """

    off_wrong: float
    copier: Writer


def turned_attention(problem: Problem, copiers: Sequence[Writer]) -> dict[Writer, Turned]:
    """Measure how every head before some copying heads turns their attention off wrong answers.

    The head's output is replaced, as by the problem's ablation, in what the copying head's query
    reads and nowhere else.
    """
    sums: dict[tuple[Writer, Writer], float] = {}
    count = 0
    mean = mean_over_prompts(list(chunks(problem)))
    for chunk in chunks(problem):
        run = recorded(chunk)
        runs = runs_of(chunk, mean)
        differences = runs.replaced - runs.clean
        looking, wrong = _lookers(chunk)
        count += int(looking.sum())
        for block in chunk.graph.with_heads:
            later = [copier for copier in copiers if copier.stage > block.stage]
            if not later:
                continue
            for head, change in zip(block.writers, differences.of(block), strict=True):
                for copier in later:
                    paid = _turned(chunk, run, copier, change)
                    more = (paid * wrong[:, None, :]).sum(-1)[looking].sum()
                    key = chunk.graph.writers[head], copier
                    sums[key] = sums.get(key, 0.0) + float(more)
    return _strongest(sums, count)


def _lookers(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return which positions read an answer and see a wrong one, and where wrong ones stand."""
    wrong = holding(problem.prompts, problem.prompts.wrong_answers)
    sees = (visible_pairs(problem) & wrong[:, None, :]).any(-1)
    return read_at(problem.prompts) & sees, wrong


def _turned(
    problem: Problem,
    run: Recording,
    copier: Writer,
    change: Float[Tensor, "batch pos d_model"],
) -> Float[Tensor, "batch pos seen"]:
    """Return how a head's attention changes if what its query reads does."""
    model, block, head = problem.model, problem.graph.block_of[copier.name], copier.index or 0
    heads, key, real = range(head, head + 1), run.key[block.name], problem.prompts.real
    with torch.no_grad():
        stream = (run.entering[block.stage] + change)[None]
        query = model.project(block.layer, "q", heads, stream)
        before = run.query[block.name][head : head + 1]
        now, then = (
            pattern_of(model, block.layer, q, key, real, heads)[0].double() for q in (query, before)
        )
        return now - then


def _strongest(sums: dict[tuple[Writer, Writer], float], count: int) -> dict[Writer, Turned]:
    found: dict[Writer, Turned] = {}
    for (head, copier), total in sums.items():
        mean = total / max(1, count)
        if head not in found or mean > found[head].off_wrong:
            found[head] = Turned(mean, copier)
    return found
