"""Successors: the next day, month or number.

*Mary said that the day after Monday is* -> *Tuesday*. The corrupted prompt names another member of
the same sequence. Days and months go round; numbers are 1 to 98.

Gould et al., 2023, "Successor Heads: Recurring, Interpretable Attention Heads In The Wild",
https://arxiv.org/abs/2312.09230.
"""

import math
import random
from collections.abc import Mapping

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.words import NAMES
from circuitfind.tasks.writing import draw_pairs, require_enough, templated_pair, whole_words

TEMPLATES = (
    "{name} said that the {kind} after {item} is",
    "{name} asked which {kind} is next after {item}. It is",
    "After the {kind} {item}, {name} waits for",
    "If {name} says {item}, then the next {kind} is",
    "{name} counts each {kind}: first {item}, then",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
NEXT: Mapping[str, Mapping[str, str]] = {
    "day": dict(zip(DAYS, (*DAYS[1:], DAYS[0]), strict=True)),
    "month": dict(zip(MONTHS, (*MONTHS[1:], MONTHS[0]), strict=True)),
    "number": {str(number): str(number + 1) for number in range(1, 99)},
}
"""The successor of each item, by the kind of its sequence."""

_FEWEST_ITEMS = 4


def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
    """Write n pairs about days, months and numbers in turn, as far as the tokenizer has them.

    Raises:
        TaskError: The tokenizer splits the successors of all three sequences.
    """
    sequences = {kind: _usable(vocabulary, items) for kind, items in NEXT.items()}
    kinds = [kind for kind, items in sequences.items() if len(items) >= _FEWEST_ITEMS]
    kind = "sequence (days, months, numbers) whose members are single tokens"
    require_enough("successor", kind, len(kinds), len(NEXT), 1)

    def draw(rng: random.Random, row: int) -> Pair | None:
        kind = kinds[row % len(kinds)]
        template, name = rng.randrange(len(TEMPLATES)), rng.choice(NAMES)
        item, other = rng.sample(list(sequences[kind]), 2)
        return templated_pair(
            vocabulary,
            TEMPLATES[template],
            {"name": name, "kind": kind, "item": item},
            {"name": name, "kind": kind, "item": other},
            answers=([sequences[kind][item]], [sequences[kind][other]]),
            number=template,
            named=("kind", "item"),
        )

    items = [len(sequences[kind]) for kind in kinds]
    capacity = len(TEMPLATES) * len(NAMES) * sum(math.perm(each, 2) for each in items)
    return draw_pairs("successor", n, seed, draw, capacity=capacity)


def _usable(vocabulary: Vocabulary, items: Mapping[str, str]) -> dict[str, int]:
    """Return the items that are single tokens and have a successor that is, with its token."""
    tokens = whole_words(vocabulary, [*items, *items.values()])
    return {
        item: tokens[after] for item, after in items.items() if item in tokens and after in tokens
    }


SUCCESSOR = Task(
    name="successor",
    summary="names what comes next: the day after Monday is -> Tuesday; months and numbers too",
    source="Gould et al. 2023, arXiv 2312.09230",
    metric="kl",
    write=write,
)
