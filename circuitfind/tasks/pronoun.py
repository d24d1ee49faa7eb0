"""Gendered pronouns: a girl is a she, a boy is a he.

*Once upon a time, there was a little girl named Lily.* -> *She*. The corrupted prompt has a noun
and a name of the other gender that take as many tokens, so the task works with tokenizers that
split names.

Mathwin et al., 2023, "Identifying a Preliminary Circuit for Predicting Gendered Pronouns in GPT-2
Small"; studied with ACDC by Conmy et al., 2023, https://arxiv.org/abs/2304.14997, appendix K.
"""

import random

from circuitfind.errors import TaskError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.known.pronoun import KNOWN_CIRCUIT
from circuitfind.tasks.templates import Filled, fill
from circuitfind.tasks.words import MEN, WOMEN
from circuitfind.tasks.writing import require_room

TEMPLATES = (
    "One day, a {noun} named {name} went to the park.",
    "One day, a little {noun} named {name} went outside to play.",
    "Once upon a time, a {noun} named {name} lived in a big house.",
    "Once upon a time, there was a {noun} named {name}.",
    "One day, a {noun} called {name} found a big box.",
    "A little {noun} named {name} was playing in the garden.",
    "One sunny day, a {noun} named {name} was playing outside.",
)
NOUNS = (("girl", "boy"), ("sister", "brother"), ("woman", "man"))

Couple = tuple[str, str]
"""A woman's word and a man's word."""


def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
    """Write n pairs, those that end in *She* and in *He* in turn.

    Raises:
        TaskError: The tokenizer splits the pronouns, takes no couple of nouns or names with the
            same number of tokens, or merges the words of a template.
    """
    she, he = vocabulary.answer("She"), vocabulary.answer("He")
    nouns = _couples(vocabulary, "nouns", NOUNS)
    names = _couples(vocabulary, "names", [(woman, man) for woman in WOMEN for man in MEN])
    require_room("pronoun", n, len(TEMPLATES) * len(nouns) * len(names) * 2)
    rng = random.Random(seed)
    pairs = []
    for row in range(n):
        template, noun, name = rng.randrange(len(TEMPLATES)), rng.choice(nouns), rng.choice(names)
        girl, boy = (
            _fill(vocabulary, TEMPLATES[template], *words) for words in zip(noun, name, strict=True)
        )
        clean, right, corrupted, wrong = (
            (girl, she, boy, he) if row % 2 == 0 else (boy, he, girl, she)
        )
        pairs.append(
            Pair(
                clean.tokens,
                corrupted.tokens,
                answers=[[right]],
                wrong_answers=[[wrong]],
                positions={**clean.positions, "end": len(clean.tokens) - 1},
                template=template,
            )
        )
    return pairs


def _fill(vocabulary: Vocabulary, template: str, noun: str, name: str) -> Filled:
    filled = fill(vocabulary, template, {"noun": noun, "name": name})
    if filled is None:
        raise TaskError(
            f"this tokenizer merges words of the 'pronoun' template {template!r} with their "
            "neighbours, or does not know one; write the prompts to a .jsonl file and give that as "
            "the task"
        )
    return filled


def _couples(
    vocabulary: Vocabulary, kind: str, candidates: tuple[Couple, ...] | list[Couple]
) -> list[Couple]:
    stem = len(vocabulary.encode("a"))
    tokens = {word: vocabulary.encode(f"a {word}") for couple in candidates for word in couple}
    width = {word: len(found) - stem for word, found in tokens.items()}
    known = {word: vocabulary.knows(word, found) for word, found in tokens.items()}
    couples = [
        (woman, man)
        for woman, man in candidates
        if width[woman] == width[man] and known[woman] and known[man]
    ]
    if not couples:
        raise TaskError(
            f"the task 'pronoun' needs {kind} of both genders with equally many tokens and this "
            "tokenizer has none; write the prompts to a .jsonl file and give that as the task"
        )
    return couples


PRONOUN = Task(
    name="pronoun",
    summary="continues a girl's story with She and a boy's with He",
    source="Mathwin et al. 2023; Conmy et al. 2023, arXiv 2304.14997, appendix K",
    metric="kl",
    write=write,
    known_circuit=KNOWN_CIRCUIT,
)
