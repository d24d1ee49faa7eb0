"""Arithmetic: small sums.

*Mary has 3 apples and gets 4 more. Now Mary has* -> *7*. The corrupted prompt has other numbers
with another sum, which is the wrong answer. Numbers are 1 to 19, as far as they and their sums are
single tokens. Where a tokenizer writes digits apart, the prompt ends in the space before the sum,
the answer is the first digit of the sum, and the other sum begins with another digit.

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
    token, ending = _first_tokens(vocabulary)
    kind = "numbers that are single tokens, or digits apart"
    require_enough("arithmetic", kind, len(token), len(NUMBERS), _FEWEST_NUMBERS)
    sums = [
        (a, b) for a in token for b in token if max(a, b) <= LARGEST and a + b in token
    ]  # fmt: skip

    def is_pair(a: int, b: int, c: int, d: int) -> bool:
        aligned = not ending or (len(str(a)), len(str(b))) == (len(str(c)), len(str(d)))
        return aligned and token[a + b] != token[c + d]

    def draw(rng: random.Random, row: int) -> Pair | None:
        template, name = rng.randrange(len(TEMPLATES)), rng.choice(NAMES)
        (a, b), (c, d) = rng.choice(sums), rng.choice(sums)
        if not is_pair(a, b, c, d):
            return None
        return templated_pair(
            vocabulary,
            TEMPLATES[template] + ending,
            {"name": name, "a": str(a), "b": str(b)},
            {"name": name, "a": str(c), "b": str(d)},
            answers=([token[a + b]], [token[c + d]]),
            number=template,
            named=("a", "b"),
        )

    different = sum(is_pair(*one, *other) for one in sums for other in sums)
    capacity = len(TEMPLATES) * len(NAMES) * different
    return draw_pairs("arithmetic", n, seed, draw, capacity=capacity)


def _first_tokens(vocabulary: Vocabulary) -> tuple[dict[int, int], str]:
    """Return the token that each number begins with after a prompt, and what ends the prompt."""
    whole = vocabulary.single_words(NUMBERS)
    if len(whole) >= _FEWEST_NUMBERS:
        return {int(number): vocabulary.answer(number) for number in whole}, ""
    stem, found = vocabulary.encode("a "), dict[int, int]()
    for number in NUMBERS:
        tokens = vocabulary.encode(f"a {number}")
        if tokens[: len(stem)] == stem and len(tokens) == len(stem) + len(number):
            found[int(number)] = tokens[len(stem)]
    return found, " "


ARITHMETIC = Task(
    name="arithmetic",
    summary="adds two small numbers: 3 + 4 = -> 7",
    source="Stolfo et al. 2023, arXiv 2305.15054",
    metric="kl",
    write=write,
)
