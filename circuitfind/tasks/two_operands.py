"""Addition and subtraction of two numbers of two digits each.

*The sum of 23 and 41 is* -> *64*. The corrupted prompt has other numbers with another result, which
is the wrong answer. Operands and results are from 10 to 99. Where a tokenizer writes digits apart,
an answer takes several tokens; where it keeps the space before a number apart, the prompt ends in
that space.

The tasks are those of Stolfo, Belinkov and Sachan, 2023, https://arxiv.org/abs/2305.15054, and of
MIB, 2025, https://arxiv.org/abs/2504.13151, in words of our own.
"""

import random
from functools import partial
from operator import add, sub

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.pairs import Answer, Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.writing import draw_pairs, require_enough, templated_pair

TEMPLATES = {
    "addition": (
        "The sum of {a} and {b} is",
        "{a} plus {b} equals",
        "{a} + {b} =",
        "Adding {a} and {b} gives",
        "Question: What is {a} plus {b}? Answer:",
        "With {a} apples and then {b} more, the number of apples is",
    ),
    "subtraction": (
        "The difference between {a} and {b} is",
        "{a} minus {b} equals",
        "{a} - {b} =",
        "Taking {b} from {a} leaves",
        "Question: What is {a} minus {b}? Answer:",
        "With {a} apples, of which {b} are eaten, the number of apples left is",
    ),
}
NUMBERS = range(10, 100)
_RESULT = {"addition": add, "subtraction": sub}


def write(vocabulary: Vocabulary, n: int, seed: int, operation: str = "addition") -> list[Pair]:
    """Write n pairs.

    Raises:
        TaskError: The tokenizer cannot write all numbers, or not all in as many tokens.
    """
    ending, tokens = _numbers(vocabulary)
    kind = "numbers of two digits that take equally many tokens"
    require_enough(operation, kind, len(tokens), len(NUMBERS), len(NUMBERS))
    templates, result = TEMPLATES[operation], _RESULT[operation]
    sums = [(a, b) for a in NUMBERS for b in NUMBERS if result(a, b) in tokens]

    def draw(rng: random.Random, row: int) -> Pair | None:
        number, (a, b), (c, d) = rng.randrange(len(templates)), rng.choice(sums), rng.choice(sums)
        right, wrong = tokens[result(a, b)], tokens[result(c, d)]
        if right == wrong:
            return None
        return templated_pair(
            vocabulary,
            templates[number] + ending,
            {"a": str(a), "b": str(b)},
            {"a": str(c), "b": str(d)},
            answers=([right], [wrong]),
            number=number,
            named=("a", "b"),
        )

    capacity = len(templates) * len(sums) * (len(sums) - len(NUMBERS))
    return draw_pairs(operation, n, seed, draw, capacity=capacity)


def _numbers(vocabulary: Vocabulary) -> tuple[str, dict[int, Answer]]:
    """Return what ends a prompt, and the answer that each number is behind it."""
    spaced = {vocabulary.following("equals", f" {number}")[0] for number in NUMBERS}
    # A space of its own before every number belongs to the prompt.
    ending = " " if len(spaced) == 1 and not vocabulary.decode([*spaced]).strip() else ""
    stem, space = f"equals{ending}", "" if ending else " "
    found = {number: vocabulary.following(stem, f"{space}{number}") for number in NUMBERS}
    wide = len(found[NUMBERS[0]])
    return ending, {
        number: tokens[0] if wide == 1 else tokens
        for number, tokens in found.items()
        if len(tokens) == wide and vocabulary.knows(str(number), tokens)
    }


def _task(operation: str, example: str) -> Task:
    return Task(
        name=operation,
        summary=f"computes with two numbers of two digits: {example}",
        source="Stolfo et al. 2023, arXiv 2305.15054; MIB 2025, arXiv 2504.13151",
        metric="kl",
        write=partial(write, operation=operation),
    )


ADDITION = _task("addition", "The sum of 23 and 41 is -> 64")
SUBTRACTION = _task("subtraction", "The difference between 64 and 23 is -> 41")
