"""Training text of the zoo: the tasks' own generators write it.

A training text is a clean prompt and a right answer. Where the corrupted prompt has an answer of
its own (the other number, country, day, sum, request), it is read too; where it decides nothing,
it is continued by any of what is then right: either of the first two names of `ioi`, any later
year of `greater-than`. Random words repeat after any number of words.

Held out is one combination in eight: a template with certain words at a prompt's named positions
(subject and distractor, both summands, country, item, request). A hash decides, so the same
combinations are held out for every seed and tokenizer. For `ioi` the split is coarser: one couple
of names in eight never meets in any template. Accuracy is measured on held-out combinations only.
"""

import random
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo.training import Example
from circuitfind.pairs import Answer, tokens_of
from circuitfind.prompts import Pair, PromptPairs, collate
from circuitfind.tasks import (
    agreement,
    arithmetic,
    capitals,
    docstring,
    greater_than,
    induction,
    ioi,
    pronoun,
    refusal,
    successor,
)
from circuitfind.tasks.base import Task
from circuitfind.tasks.words import MEN, NAMES, OBJECTS, PLACES, PLAIN, WOMEN

TRAINING_SEED = 10_000_019
"""Seeds that a user is likely to choose give prompts that were not trained on."""

PAIRS = (
    (ioi.IOI, 18_000),
    (pronoun.PRONOUN, 3_000),
    (greater_than.GREATER_THAN, 9_000),
    (docstring.DOCSTRING, 12_000),
    (agreement.AGREEMENT, 5_000),
    (capitals.CAPITAL_OF, 6_000),
    (successor.SUCCESSOR, 6_000),
    (arithmetic.ARITHMETIC, 8_000),
    (refusal.REFUSAL, 4_000),
)
"""Number of pairs of each task from which the texts are made."""

TRAINED = (*(task for task, _ in PAIRS), induction.INDUCTION)
"""The tasks whose text the zoo has read."""

REPETITIONS = 28_000
PERIODS = range(4, 17)
_WORDS_AT_A_TIME = 500
"""Repetitions that share a draw of words, so that all words of the vocabulary are drawn."""

SWAPPED = {
    task.name
    for task in (
        pronoun.PRONOUN,
        agreement.AGREEMENT,
        capitals.CAPITAL_OF,
        successor.SUCCESSOR,
        arithmetic.ARITHMETIC,
        refusal.REFUSAL,
    )
}
"""Tasks whose wrong answers are right for the corrupted prompt."""


def vocabulary_words() -> list[str]:
    """Return every word, number and punctuation mark that the tasks write."""
    texts = [
        *ioi.TEMPLATES,
        *pronoun.TEMPLATES,
        *greater_than.TEMPLATES,
        docstring.TEMPLATE,
        *agreement.TEMPLATES,
        *capitals.TEMPLATES,
        *successor.TEMPLATES,
        *arithmetic.TEMPLATES,
        *(refusal.DIALOGUE.format(request=request) for request in refusal.REQUESTS),
        *refusal.THINGS,
        "a She He",
    ]
    lists: list[Sequence[str]] = [
        WOMEN, MEN, PLACES, OBJECTS, PLAIN,
        greater_than.NOUNS, greater_than.CENTURIES, greater_than.YEARS, arithmetic.NUMBERS,
        docstring.ARGUMENTS, tuple(capitals.CAPITALS), tuple(capitals.CAPITALS.values()),
        tuple(successor.NEXT), *(tuple(items) for items in successor.NEXT.values()),
        refusal.REFUSALS, refusal.ANSWERS,
    ]  # fmt: skip
    couples = [*pronoun.NOUNS, *agreement.NOUNS, *agreement.VERBS, *refusal.VERBS]
    plain = re.sub(r"{\w+}", " ", " ".join(texts))
    return [
        *re.findall(r"\w+|[^\w\s]+", plain),
        *(word for words in (*lists, *couples) for word in words),
    ]


def never_meet(one: str, other: str) -> bool:
    """Whether no training text of `ioi` may hold both names."""
    return (NAMES.index(one) + NAMES.index(other)) % 8 == 0


def is_held_out(task: Task, vocabulary: Vocabulary, pair: Pair) -> bool:
    """Whether a pair's clean prompt may not be trained on."""
    if task.name == ioi.IOI.name:
        return _names_never_meet(vocabulary, pair.clean)
    words = [vocabulary.decode([pair.clean[at]]) for _, at in sorted(pair.positions.items())]
    return zlib.crc32(" ".join([task.name, str(pair.template), *words]).encode()) % 8 == 0


def held_out_prompts(task: Task, vocabulary: Vocabulary, n: int, seed: int) -> PromptPairs:
    """Write up to n pairs whose clean prompt is held out.

    Raises:
        TaskError: The tokenizer cannot express the task.
    """
    pairs = task.write(vocabulary, 10 * n, seed)
    return collate([pair for pair in pairs if is_held_out(task, vocabulary, pair)][:n])


def training_examples(vocabulary: Vocabulary) -> list[Example]:
    """Write what the zoo is trained on."""
    rng = random.Random(TRAINING_SEED)
    return [
        example
        for task, n in (*PAIRS, (induction.INDUCTION, REPETITIONS))
        for example in examples_of(task, vocabulary, n, rng)
    ]


def examples_of(
    task: Task, vocabulary: Vocabulary, n: int, rng: random.Random
) -> Iterator[Example]:
    """Write the training texts that n pairs of a task give."""
    if task.name == induction.INDUCTION.name:
        pairs: Iterable[Pair] = _repetitions(vocabulary, rng, n)
    else:
        pairs = task.write(vocabulary, n, TRAINING_SEED)
    for pair in pairs:
        for read in (pair, *_corrupted(task, pair)):
            if not is_held_out(task, vocabulary, read):
                yield continued(read, rng.choice(read.answers[-1]))


def with_clean(pair: Pair, tokens: Sequence[int]) -> Pair:
    """Return a pair whose clean prompt is another one of its form."""
    return replace(pair, clean=tokens)


def _corrupted(task: Task, pair: Pair) -> list[Pair]:
    """Return the corrupted prompt as one to be read, where something is right for it."""
    if task.name in SWAPPED:
        right = pair.wrong_answers
    elif task.name == ioi.IOI.name:
        right = [[pair.corrupted[pair.positions[slot]] for slot in ("IO", "S1")]]
    elif task.name == greater_than.GREATER_THAN.name:
        base = pair.corrupted[pair.positions["YY"]]
        right = [[t for t in (*pair.wrong_answers[0], *pair.answers[0]) if t != base]]
    else:
        return []
    return [replace(with_clean(pair, pair.corrupted), answers=right)]


def _repetitions(vocabulary: Vocabulary, rng: random.Random, n: int) -> Iterator[Pair]:
    for start in range(0, n, _WORDS_AT_A_TIME):
        words = induction.ordinary_words(vocabulary, rng)
        for _ in range(min(_WORDS_AT_A_TIME, n - start)):
            yield induction.repetition(vocabulary, rng, words, rng.choice(PERIODS))


def continued(pair: Pair, answer: Answer) -> Example:
    """Append an answer to a clean prompt; the tokens after its steps are what the text is about."""
    tokens = [*pair.clean, *tokens_of(answer)]
    rest = range(len(pair.clean) + 1, len(tokens))
    return Example(tokens, [*(step + 1 for step in pair.read_at), *rest])


def _names_never_meet(vocabulary: Vocabulary, tokens: Sequence[int]) -> bool:
    met = {word for token in tokens if (word := vocabulary.decode([token]).strip()) in NAMES}
    return any(never_meet(one, other) for one, other in combinations(met, 2))
