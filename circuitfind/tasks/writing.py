"""Shared code of the word tasks: choose words that are single tokens, and draw pairs.

A tokenizer may split a word or merge it with its neighbour, so a drawn pair can turn out
misaligned. Such pairs are drawn again; a tokenizer for which that never ends is refused.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from circuitfind.errors import TaskError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.pairs import Answer, Pair
from circuitfind.tasks.templates import Filled, fill

MOST_PAIRS = 100_000
"""More are not written at once: it would take longer than a search."""

_MOST_REPEATED = 10_000
"""So many are written even of a task that can write fewer different ones."""

_MOST_ATTEMPTS = 100

Couple = tuple[str, str]
"""A word and its counterpart in the corrupted prompt."""


def draw_pairs(
    task: str,
    n: int,
    seed: int,
    draw: Callable[[random.Random, int], Pair | None],
    *,
    capacity: int,
) -> list[Pair]:
    """Draw n pairs.

    Args:
        task: The task's name.
        n: How many pairs.
        seed: Fixes the pairs.
        draw: Takes the generator and the pair's number, and returns None to be asked again.
        capacity: How many different pairs can be drawn, or an upper limit of that.

    Raises:
        TaskError: These are too many, or a pair could not be drawn in many attempts.
    """
    require_room(task, n, capacity)
    rng = random.Random(seed)
    return [_drawn(task, rng, row, draw) for row in range(n)]


def require_room(task: str, n: int, capacity: int) -> None:
    """Refuse more pairs than a task can write, or than anybody can wait for.

    Pairs are drawn with repetition, so some thousands are allowed of a task of few different pairs.

    Raises:
        TaskError: The message says how many are possible.
    """
    most = min(max(capacity, _MOST_REPEATED), MOST_PAIRS)
    if n > most:
        can = f" and it can write {capacity:,} different ones" if capacity < MOST_PAIRS else ""
        raise TaskError(
            f"{n:,} prompts of the task {task!r} were asked for{can}; ask for at most {most:,}"
        )


def _drawn(
    task: str,
    rng: random.Random,
    row: int,
    draw: Callable[[random.Random, int], Pair | None],
) -> Pair:
    for _ in range(_MOST_ATTEMPTS):
        pair = draw(rng, row)
        if pair is not None:
            return pair
    raise TaskError(
        f"this tokenizer merges the words of the {task!r} templates with their neighbours, or does "
        "not know them; write the prompts to a .jsonl file and give that as the task"
    )


def require_whole(
    task: str, vocabulary: Vocabulary, kind: str, words: Sequence[str], fewest: int
) -> dict[str, int]:
    """Return the words that are single tokens, with their tokens.

    Raises:
        TaskError: There are fewer than the task needs.
    """
    whole = whole_words(vocabulary, words)
    require_enough(task, f"{kind} that are single tokens", len(whole), len(words), fewest)
    return whole


def whole_words(vocabulary: Vocabulary, words: Iterable[str]) -> dict[str, int]:
    """Return the words that are single tokens, with their tokens."""
    return {word: token for word in words if (token := vocabulary.word(word)) is not None}


def require_enough(task: str, kind: str, found: int, tried: int, fewest: int) -> None:
    """Refuse a tokenizer that expresses too few of a task's words.

    Raises:
        TaskError: `found` is less than `fewest`.
    """
    if found < fewest:
        raise TaskError(
            f"the task {task!r} needs {fewest} {kind} and this tokenizer has {found} of {tried}; "
            "use a model with a larger vocabulary, or the task 'pronoun'"
        )


def width(vocabulary: Vocabulary, word: str) -> int:
    """Return how many tokens a word takes that follows another."""
    return len(vocabulary.encode(f"a {word}")) - len(vocabulary.encode("a"))


def equally_wide(vocabulary: Vocabulary, couples: Sequence[Couple]) -> list[Couple]:
    """Return the couples of known words that take as many tokens as each other."""
    words = {word: vocabulary.encode(f"a {word}") for couple in couples for word in couple}
    return [
        (one, other)
        for one, other in couples
        if len(words[one]) == len(words[other])
        and all(vocabulary.knows(word, words[word]) for word in (one, other))
    ]


def templated_pair(
    vocabulary: Vocabulary,
    template: str,
    clean: Mapping[str, str],
    corrupted: Mapping[str, str],
    *,
    answers: tuple[Sequence[Answer], Sequence[Answer]],
    number: int,
    named: Sequence[str],
) -> Pair | None:
    """Fill a template twice.

    Args:
        vocabulary: The tokenizer.
        template: Text with slots in braces.
        clean: The clean prompt's words, by slot.
        corrupted: The corrupted prompt's words, by slot.
        answers: The right answers after the prompt, and the wrong ones.
        number: Which template it is.
        named: Slots whose last tokens become named positions; `end` is added.

    Returns:
        The pair, or None if the prompts do not align, are the same, or the tokenizer merges words.
    """
    first, second = (fill(vocabulary, template, words, named) for words in (clean, corrupted))
    if first is None or second is None or not _aligned(first, second):
        return None
    return Pair(
        first.tokens,
        second.tokens,
        answers=[list(answers[0])],
        wrong_answers=[list(answers[1])],
        positions={
            **{slot: first.positions[slot] for slot in named},
            "end": len(first.tokens) - 1,
        },
        template=number,
    )


def _aligned(first: Filled, second: Filled) -> bool:
    return first.positions == second.positions and (
        len(first.tokens) == len(second.tokens) and first.tokens != second.tokens
    )
