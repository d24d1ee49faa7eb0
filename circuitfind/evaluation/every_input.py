"""All inputs of a model that has finitely many: the sequences of its symbols.

What a circuit computes depends on the input and on what its cut edges carry. Where that is taken
from another prompt (`resample`), every ordered pair of inputs is a case of its own. Where it is a
constant, or a mean over all inputs of a length, each input is one case. Where there are too many
cases, some are drawn at random, each with the same chance.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuitfind.models.symbols import SymbolVocabulary
from circuitfind.problem import Problem
from circuitfind.prompts import NO_TOKEN, PromptPairs

_TOGETHER = 4096
"""Cases that are computed at once, where they do not share a mean."""

Kind = Literal["all", "drawn", "given"]


def n_cases(problem: Problem) -> tuple[int, int] | None:
    """Return how many inputs there are, and how many cases; None where that cannot be said.

    Inputs have the lengths of the problem's prompts and are read at the same positions. Where these
    are others in each prompt, or edges tell places apart that only the task's prompts have, nothing
    says how other inputs are read.
    """
    vocabulary, prompts = problem.model.vocabulary, problem.prompts
    if not isinstance(vocabulary, SymbolVocabulary) or problem.graph.places:
        return None
    lengths = prompts.lengths.unique().tolist()
    if any(len(prompts.steps[prompts.lengths == each].unique(dim=0)) > 1 for each in lengths):
        return None
    counts = list(_n_by_length(problem).values())
    cases = [count**2 for count in counts] if in_pairs(problem) else counts
    return sum(counts), sum(cases)


def kind_of_cases(problem: Problem, most: int) -> Kind:
    """Return whether at most so many cases are all cases, can be drawn, or are the prompts."""
    counts = n_cases(problem)
    if counts is None:
        return "given"
    if counts[1] <= most:
        return "all"
    return "given" if share_a_mean(problem) else "drawn"


def in_pairs(problem: Problem) -> bool:
    """Return whether what cut edges carry depends on a corrupted prompt, case by case."""
    return bool(problem.ablation.runs) and "batch" not in problem.ablation.mean_over


def share_a_mean(problem: Problem) -> bool:
    """Return whether cut edges carry a mean over all cases that are measured together."""
    return bool(problem.ablation.runs) and not in_pairs(problem)


def every_case(problem: Problem) -> Iterator[PromptPairs]:
    """Yield all cases of a problem that has `n_cases`, in a fixed random order, some at a time."""
    device = problem.prompts.clean.device
    for length, n in _n_by_length(problem).items():
        total = n**2 if in_pairs(problem) else n
        order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
        together = total if share_a_mean(problem) else _TOGETHER
        for cases in order.to(device).split(together):
            other = cases // n if in_pairs(problem) else cases
            yield _pairs(
                problem, length, *(_digits(problem, length, x) for x in (cases % n, other))
            )


def drawn_cases(problem: Problem, n: int) -> Iterator[PromptPairs]:
    """Yield n random cases of a problem that has `n_cases`, some at a time."""
    random, device = torch.Generator().manual_seed(0), problem.prompts.clean.device
    sizes = {
        length: count**2 if in_pairs(problem) else count
        for length, count in _n_by_length(problem).items()
    }
    shares = [size / sum(sizes.values()) for size in sizes.values()]
    counts = np.random.default_rng(0).multinomial(n, shares).tolist()
    for length, of_length in zip(sizes, counts, strict=True):
        for first in range(0, of_length, _TOGETHER):
            shape = (2, min(_TOGETHER, of_length - first), _n_free(problem, length))
            digits = torch.randint(len(_symbols(problem)), shape, generator=random).to(device)
            yield _pairs(problem, length, digits[0], digits[1 if in_pairs(problem) else 0])


def _vocabulary(problem: Problem) -> SymbolVocabulary:
    vocabulary = problem.model.vocabulary
    assert isinstance(vocabulary, SymbolVocabulary)
    return vocabulary


def _symbols(problem: Problem) -> list[int]:
    return sorted(_vocabulary(problem).symbols.values())


def _n_free(problem: Problem, length: int) -> int:
    """Return how many positions of an input may hold any symbol."""
    return length - (0 if _vocabulary(problem).bos is None else 1)


def _n_by_length(problem: Problem) -> dict[int, int]:
    """Return how many inputs there are of each length."""
    lengths = problem.prompts.lengths.unique().tolist()
    return {length: len(_symbols(problem)) ** _n_free(problem, length) for length in lengths}


def _digits(
    problem: Problem, length: int, numbers: Int[Tensor, " batch"]
) -> Int[Tensor, "batch place"]:
    """Return the digits of numbers of inputs, each of which stands for a symbol."""
    places, base = _n_free(problem, length), len(_symbols(problem))
    powers = [numbers // base**place % base for place in reversed(range(places))]
    return torch.stack(powers, dim=1) if powers else numbers.new_zeros(len(numbers), 0)


def _pairs(
    problem: Problem,
    length: int,
    clean: Int[Tensor, "batch place"],
    corrupted: Int[Tensor, "batch place"],
) -> PromptPairs:
    """Return the pairs of inputs whose symbols have these digits."""
    steps = problem.prompts.steps[problem.prompts.lengths == length]
    read = steps[0][steps[0] != NO_TOKEN]
    bos, n = _vocabulary(problem).bos, len(clean)
    start = clean.new_full((n, length - clean.shape[1]), 0 if bos is None else bos)
    known = clean.new_tensor(_symbols(problem))
    none = clean.new_full((n, len(read), 1), NO_TOKEN)
    return PromptPairs(
        torch.cat([start, known[clean]], dim=1),
        torch.cat([start, known[corrupted]], dim=1),
        clean.new_full((n,), length),
        read.expand(n, -1).clone(),
        answers=none,
        wrong_answers=none,
    )
