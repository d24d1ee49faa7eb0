"""Training text of ioi-small: indirect objects, pronouns and repeated words.

The text comes from the tasks' own generators; the random words repeat after any number of words.
The corrupted prompts of `ioi` are read too, continued by either of the first two names, so the
model learns that three different names decide nothing.

One in eight couples of names is held out: no training text has both names. The card's figures for
`ioi` are measured on prompts whose indirect object and subject are such a couple, those of the
other tasks on seeds that were not trained on.
"""

import random
import re
from collections.abc import Iterator
from itertools import combinations

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo.training import Example
from circuitfind.pairs import tokens_of
from circuitfind.prompts import Pair, PromptPairs, collate
from circuitfind.tasks import induction, ioi, pronoun
from circuitfind.tasks.base import Task
from circuitfind.tasks.corpus import TRAINING_SEED, continued, never_meet
from circuitfind.tasks.words import NAMES, OBJECTS, PLACES, PLAIN

TRAINED = (ioi.IOI, pronoun.PRONOUN, induction.INDUCTION)
"""The tasks whose text the model has read."""

N_EXAMPLES = 100_000
SHARES = {"ioi": 0.6, "pronoun": 0.1, "induction": 0.3}
PERIODS = range(4, 17)


def vocabulary_words() -> list[str]:
    """Return every word and punctuation mark that the tasks write."""
    texts = [*ioi.TEMPLATES, *pronoun.TEMPLATES, "a She He"]
    words = re.findall(r"\w+|[^\w\s]+", re.sub(r"{\w+}", " ", " ".join(texts)))
    nouns = [noun for couple in pronoun.NOUNS for noun in couple]
    return [*words, *nouns, *NAMES, *PLACES, *OBJECTS, *PLAIN]


def training_examples(vocabulary: Vocabulary, n: int = N_EXAMPLES) -> list[Example]:
    """Write what the model is trained on, from n pairs of prompts."""
    rng = random.Random(TRAINING_SEED)
    n_of = {name: round(share * n) for name, share in SHARES.items()}
    words = induction.ordinary_words(vocabulary, rng)
    return [
        *_ioi_examples(vocabulary, rng, n_of["ioi"]),
        *map(_answered, pronoun.write(vocabulary, n_of["pronoun"], TRAINING_SEED)),
        *(
            _answered(induction.repetition(vocabulary, rng, words, rng.choice(PERIODS)))
            for _ in range(n_of["induction"])
        ),
    ]


def held_out_prompts(task: Task, vocabulary: Vocabulary, n: int, seed: int) -> PromptPairs:
    """Write up to n pairs that were not trained on, for `ioi` of couples that never met."""
    return (
        held_out_ioi(vocabulary, n, seed)
        if task.name == ioi.IOI.name
        else task.write_prompts(vocabulary, n, seed)
    )


def held_out_ioi(vocabulary: Vocabulary, n: int, seed: int) -> PromptPairs:
    """Write up to n pairs whose indirect object and subject never met in training."""
    pairs = ioi.write(vocabulary, 10 * n, seed)
    names = _name_of_token(vocabulary)
    held_out = [
        pair
        for pair in pairs
        if never_meet(
            *(names[tokens_of(side[0][0])[0]] for side in (pair.answers, pair.wrong_answers))
        )
    ]
    return collate(held_out[:n])


def _ioi_examples(vocabulary: Vocabulary, rng: random.Random, n: int) -> Iterator[Example]:
    names = _name_of_token(vocabulary)
    for pair in ioi.write(vocabulary, n, TRAINING_SEED):
        first, second = (pair.corrupted[pair.positions[slot]] for slot in ("IO", "S1"))
        undecided = Example([*pair.corrupted, rng.choice([first, second])], [len(pair.corrupted)])
        for example in (_answered(pair), undecided):
            met = {names[token] for token in example.tokens if token in names}
            if not any(never_meet(one, other) for one, other in combinations(met, 2)):
                yield example


def _name_of_token(vocabulary: Vocabulary) -> dict[int, str]:
    return {vocabulary.answer(name): name for name in NAMES}


def _answered(pair: Pair) -> Example:
    return continued(pair, pair.answers[-1][0])
