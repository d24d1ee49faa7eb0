"""All inputs of a model that has finitely many: the sequences of its symbols.

What a circuit computes depends on the input and on what its cut edges carry. Where that is taken
from another prompt (`resample`), every ordered pair of inputs is a case of its own. Where it is a
constant, or a mean over all inputs of a length, each input is one case.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from circuitfind.models.symbols import SymbolVocabulary
from circuitfind.problem import Problem
from circuitfind.prompts import NO_TOKEN, PromptPairs

_TOGETHER = 4096
"""Cases that are computed at once, where they do not share a mean."""


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
    counts = [_n_inputs(vocabulary, length) for length in lengths]
    cases = [count**2 for count in counts] if in_pairs(problem) else counts
    return sum(counts), sum(cases)


def can_check_all(problem: Problem, most: int) -> bool:
    """Return whether it is known how many cases there are, and there are at most so many."""
    counts = n_cases(problem)
    return counts is not None and counts[1] <= most


def in_pairs(problem: Problem) -> bool:
    """Return whether what cut edges carry depends on a corrupted prompt, case by case."""
    return bool(problem.ablation.runs) and "batch" not in problem.ablation.mean_over


def every_case(problem: Problem) -> Iterator[PromptPairs]:
    """Yield all cases of a problem that has `n_cases`, in a fixed random order, some at a time."""
    prompts, vocabulary = problem.prompts, problem.model.vocabulary
    assert isinstance(vocabulary, SymbolVocabulary)
    for length in prompts.lengths.unique().tolist():
        steps = prompts.steps[prompts.lengths == length]
        read = steps[0][steps[0] != NO_TOKEN]
        n = _n_inputs(vocabulary, length)
        total = n**2 if in_pairs(problem) else n
        order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
        together = _TOGETHER if in_pairs(problem) or not problem.ablation.runs else total
        for cases in order.to(prompts.clean.device).split(together):
            clean = _inputs(vocabulary, length, cases % n)
            other = _inputs(vocabulary, length, cases // n) if in_pairs(problem) else clean
            yield _pairs(clean, other, read)


def _n_inputs(vocabulary: SymbolVocabulary, length: int) -> int:
    n_start = 0 if vocabulary.bos is None else 1
    count: int = len(vocabulary.symbols) ** (length - n_start)
    return count


def _inputs(
    vocabulary: SymbolVocabulary, length: int, numbers: Int[Tensor, " batch"]
) -> Int[Tensor, "batch pos"]:
    """Return the inputs of some numbers: their digits, each of which is a symbol."""
    start = [] if vocabulary.bos is None else [vocabulary.bos]
    symbols = sorted(vocabulary.symbols.values())
    powers = [len(symbols) ** place for place in range(length - len(start))]
    digits = [numbers // power % len(symbols) for power in reversed(powers)]
    known = numbers.new_tensor(symbols)
    columns = [*(torch.full_like(numbers, each) for each in start), *(known[d] for d in digits)]
    return torch.stack(columns, dim=1)


def _pairs(
    clean: Int[Tensor, "batch pos"], corrupted: Int[Tensor, "batch pos"], read: Tensor
) -> PromptPairs:
    n, length = clean.shape
    none = clean.new_full((n, len(read), 1), NO_TOKEN)
    return PromptPairs(
        clean,
        corrupted,
        clean.new_full((n,), length),
        read.expand(n, -1).clone(),
        answers=none,
        wrong_answers=none,
    )
