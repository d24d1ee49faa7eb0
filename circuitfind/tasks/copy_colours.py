"""Copy-colours: a question with four choices, whose answer stands in the text before it.

*Nora's kettle is teal. Question: ... A. pink B. teal C. grey D. black Answer:* -> *B*. The
corrupted prompt gives the choices other letters, so the same choice has another one, which is the
wrong answer. `copy-colours:place` keeps the letters and exchanges the places of two choices.

The task is that of the copy-colours multiple-choice questions of Wiegreffe et al., 2024, "Answer,
Assemble, Ace: Understanding How Transformers Answer Multiple Choice Questions",
https://arxiv.org/abs/2407.15018, and of MIB, 2025, https://arxiv.org/abs/2504.13151, in words of
our own.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import perm

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.words import WOMEN
from circuitfind.tasks.writing import draw_pairs, require_enough, templated_pair, width

CHOICES = "\n{A}. {a}\n{B}. {b}\n{C}. {c}\n{D}. {d}\nAnswer:"
TEMPLATES = (
    "{name}'s {thing} is {colour}. Which colour is the {thing}?" + CHOICES,
    "Question: {name} has a {colour} {thing}. What is the colour of the {thing}?" + CHOICES,
    "The {thing} that {name} bought is {colour}. Question: what colour is it?" + CHOICES,
)
THINGS = (
    "kettle", "chair", "bicycle", "coat", "boat", "lamp", "door", "scarf", "truck", "umbrella",
    "basket", "blanket", "hat", "bottle", "box", "cup",
)  # fmt: skip
COLOURS = (
    "red", "blue", "green", "yellow", "black", "white", "brown", "grey", "pink", "purple", "orange",
    "gold", "silver", "teal",
)  # fmt: skip
SLOTS = "ABCD"
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")

_FEWEST_LETTERS = 8
_FEWEST_COLOURS = 5

Words = Mapping[str, str]
Corruption = Callable[[random.Random, Words, str, Sequence[str]], tuple[Words, str]]
"""Takes the clean words, the slot of the right choice and all letters; returns the corrupted words
and the letter that is right there."""


def other_letters(
    rng: random.Random, clean: Words, slot: str, letters: Sequence[str]
) -> tuple[Words, str]:
    """Give the choices other letters."""
    others = rng.sample([letter for letter in letters if letter not in SLOTS], len(SLOTS))
    words = {**clean, **dict(zip(SLOTS, others, strict=True))}
    return words, words[slot]


def other_place(
    rng: random.Random, clean: Words, slot: str, letters: Sequence[str]
) -> tuple[Words, str]:
    """Let the right choice and another one change places."""
    other = rng.choice([each for each in SLOTS if each != slot])
    here, there = slot.lower(), other.lower()
    return {**clean, here: clean[there], there: clean[here]}, clean[other]


def write(
    vocabulary: Vocabulary, n: int, seed: int, corrupt: Corruption = other_letters
) -> list[Pair]:
    """Write n pairs.

    Raises:
        TaskError: The tokenizer writes too few letters as single tokens.
    """
    letters = vocabulary.single_words(LETTERS)
    letters = letters if set(SLOTS) <= set(letters) else []
    kind = "letters that are single tokens (A to D among them)"
    require_enough("copy-colours", kind, len(letters), len(LETTERS), _FEWEST_LETTERS)

    # Colours change places in a corrupted prompt, so all take as many tokens.
    by_width = [[c for c in COLOURS if width(vocabulary, c) == wide] for wide in range(1, 10)]
    colours_known = max(by_width, key=len)
    kind = "colours that take equally many tokens"
    require_enough("copy-colours", kind, len(colours_known), len(COLOURS), _FEWEST_COLOURS)

    def draw(rng: random.Random, row: int) -> Pair | None:
        number, slot = rng.randrange(len(TEMPLATES)), rng.choice(SLOTS)
        colours = rng.sample(colours_known, len(SLOTS))
        words = {"name": rng.choice(WOMEN), "thing": rng.choice(THINGS)}
        words |= dict(zip(SLOTS.lower(), colours, strict=True)) | {each: each for each in SLOTS}
        words["colour"] = words[slot.lower()]
        # From a generator of its own, so that clean prompts are the same for all corruptions.
        corrupted, wrong = corrupt(random.Random(rng.random()), words, slot, letters)
        return templated_pair(
            vocabulary,
            TEMPLATES[number],
            words,
            corrupted,
            answers=([vocabulary.answer(slot)], [vocabulary.answer(wrong)]),
            number=number,
            named=("colour", *SLOTS, *SLOTS.lower()),
        )

    n_orders = perm(len(colours_known), len(SLOTS))
    capacity = len(TEMPLATES) * len(SLOTS) * n_orders * len(WOMEN) * len(THINGS)
    return draw_pairs("copy-colours", n, seed, draw, capacity=capacity)


COPY_COLOURS = Task(
    name="copy-colours",
    summary="names the letter of a colour among four choices: The kettle is teal. ... Answer: -> B",
    source="Wiegreffe et al. 2024, arXiv 2407.15018; MIB 2025, arXiv 2504.13151",
    metric="kl",
    write=write,
    corruptions={"place": partial(write, corrupt=other_place)},
)
