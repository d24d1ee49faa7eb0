"""Arithmetic: small sums.

*Mary has 3 apples and gets 4 more. Now Mary has* -> *7*. The corrupted prompt has other numbers
with another sum, which is the wrong answer. Numbers are 1 to 19, as far as they and their sums are
single tokens; tokenizers that write digits apart are refused.

Stolfo, Belinkov and Sachan, 2023, "A Mechanistic Interpretation of Arithmetic Reasoning in Language
Models using Causal Mediation Analysis", https://arxiv.org/abs/2305.15054.
"""

import random

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.words import NAMES
from circuitfind.tasks.writing import draw_pairs, require_enough, templated_pair

TEMPLATES = (
    "{a} + {b} =",
    "{name} knows that {a} + {b} =",
    "{name} says that {a} plus {b} is",
    "{name} has {a} books and buys {b} more. The number of books is now",
    "The sum of {a} and {b} is",
)
LARGEST = 19
NUMBERS = tuple(str(number) for number in range(1, 2 * LARGEST + 1))

_FEWEST_NUMBERS = 6


def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
    """Write n pairs.

    Raises:
        TaskError: The tokenizer writes too few numbers as single tokens.
    """
    whole = vocabulary.single_words(NUMBERS)
    kind = "numbers that are single tokens"
    require_enough("arithmetic", kind, len(whole), len(NUMBERS), _FEWEST_NUMBERS)
    token = {int(number): vocabulary.answer(number) for number in whole}
    sums = [
        (a, b) for a in token for b in token if max(a, b) <= LARGEST and a + b in token
    ]  # fmt: skip

    def draw(rng: random.Random, row: int) -> Pair | None:
        template, name = rng.randrange(len(TEMPLATES)), rng.choice(NAMES)
        (a, b), (c, d) = rng.choice(sums), rng.choice(sums)
        if a + b == c + d:
            return None
        return templated_pair(
            vocabulary,
            TEMPLATES[template],
            {"name": name, "a": str(a), "b": str(b)},
            {"name": name, "a": str(c), "b": str(d)},
            answers=([token[a + b]], [token[c + d]]),
            number=template,
            named=("a", "b"),
        )

    different = sum(a + b != c + d for a, b in sums for c, d in sums)
    capacity = len(TEMPLATES) * len(NAMES) * different
    return draw_pairs("arithmetic", n, seed, draw, capacity=capacity)


ARITHMETIC = Task(
    name="arithmetic",
    summary="adds two small numbers: 3 + 4 = -> 7",
    source="Stolfo et al. 2023, arXiv 2305.15054",
    metric="kl",
    write=write,
)
