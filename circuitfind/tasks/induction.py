"""Induction: what followed a token the first time follows it again.

Random words t1 ... tk, then t1 ... t(k-1) again -> tk. The corrupted prompt has k other words in
the first half, so nothing repeats; the wrong answer is the word that stands there where the right
one stands in the clean prompt, which a head that attends by position alone would copy.

Olsson et al., 2022, "In-context Learning and Induction Heads", https://arxiv.org/abs/2209.11895;
searched with ACDC by Conmy et al., 2023, https://arxiv.org/abs/2304.14997.
"""

import math
import random
from collections.abc import Sequence

from circuitfind.errors import TaskError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.writing import require_room

PERIOD = 10
"""Words before the repetition."""

STEPS = 4
"""Metrics read this many of the last positions."""

_MOST_WORDS = 300


def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
    """Write n pairs of random words.

    Raises:
        TaskError: The tokenizer has too few whole words.
    """
    rng = random.Random(seed)
    words = ordinary_words(vocabulary, rng)
    require_room("induction", n, math.perm(len(words), 2 * PERIOD))
    return [repetition(vocabulary, rng, words, PERIOD) for _ in range(n)]


def ordinary_words(vocabulary: Vocabulary, rng: random.Random) -> list[int]:
    """Draw tokens that are whole lower-case words of three letters or more.

    Raises:
        TaskError: The tokenizer has fewer than a pair of prompts needs.
    """
    tokens = list(range(len(vocabulary.tokenizer)))
    rng.shuffle(tokens)
    words: list[int] = []
    for token in tokens:
        text = vocabulary.decode([token]).strip()
        plain = len(text) >= 3 and text.isascii() and text.isalpha() and text.islower()
        if plain and vocabulary.word(text) == token:
            words.append(token)
            if len(words) == _MOST_WORDS:
                break
    if len(words) < 2 * PERIOD:
        raise TaskError(
            f"the task 'induction' needs {2 * PERIOD} words that are single tokens and this "
            f"tokenizer has {len(words)}; use a model with a larger vocabulary"
        )
    return words


def repetition(
    vocabulary: Vocabulary, rng: random.Random, words: Sequence[int], period: int
) -> Pair:
    """Write one pair whose clean prompt repeats itself after `period` words."""
    drawn = rng.sample(words, 2 * period)
    first, other = drawn[:period], drawn[period:]
    start = [] if vocabulary.bos is None else [vocabulary.bos]
    end = len(start) + 2 * period - 2
    read = range(period - min(STEPS, period - 1), period)
    return Pair(
        [*start, *first, *first[:-1]],
        [*start, *other, *first[:-1]],
        answers=[[first[i]] for i in read],
        wrong_answers=[[other[i]] for i in read],
        steps=[len(start) + period + i - 1 for i in read],
        positions={
            "first": end - period,
            "first+1": end - period + 1,
            "repeat": len(start) + period,
            "end": end,
        },
    )


INDUCTION = Task(
    name="induction",
    summary="continues a repeated sequence of random words",
    source="Olsson et al. 2022, arXiv 2209.11895; Conmy et al. 2023, arXiv 2304.14997",
    metric="kl",
    write=write,
)
