"""Indirect object identification: after two names and one again, the other is the one given to.

*When Mary and John went to the store, John gave a drink to* -> *Mary*. The corrupted prompt has
three other names, all different (ABC), so it says neither who is repeated nor who is not.

Wang et al., 2022, "Interpretability in the Wild: a Circuit for Indirect Object Identification in
GPT-2 small", https://arxiv.org/abs/2211.00593.
"""

import random
from collections.abc import Sequence

from circuitfind.errors import TaskError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.known.ioi import KNOWN_CIRCUIT
from circuitfind.tasks.templates import fill
from circuitfind.tasks.words import NAMES, OBJECTS, PLACES

ABBA = (
    "When {IO} and {S1} went to the {place}, {S2} gave a {object} to",
    "Then, {IO} and {S1} went to the {place}. {S2} gave a {object} to",
    "Then, {IO} and {S1} had a lot of fun at the {place}. {S2} gave a {object} to",
    "After {IO} and {S1} met at the {place}, {S2} decided to give a {object} to",
    "Then, {IO} and {S1} were working at the {place}. {S2} decided to give a {object} to",
    "While {IO} and {S1} were at the {place}, {S2} passed a {object} to",
    "The {place} where {IO} and {S1} went had a {object}. {S2} gave it to",
    "One day, {IO} and {S1} found a {object} at the {place}. {S2} handed it to",
)
"""Templates in which the indirect object is named first."""

TEMPLATES = tuple(
    ordered
    for template in ABBA
    for ordered in (
        template,
        template.replace("{IO}", "{S}").replace("{S1}", "{IO}").replace("{S}", "{S1}"),
    )
)
"""Each template in both orders: ABBA at even places, BABA at odd ones."""

NAMED = ("IO", "S1", "S2")

FEWEST_NAMES = 6
"""Two for the clean prompt, three for the corrupted one, and one so that seeds can differ."""

_MOST_ATTEMPTS = 100


def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
    """Write n pairs, ABBA and BABA in turn.

    Raises:
        TaskError: The tokenizer keeps too few names, places or objects whole.
    """
    names, places, objects = (
        _whole(vocabulary, kind, words, fewest)
        for kind, words, fewest in (
            ("names", NAMES, FEWEST_NAMES),
            ("places", PLACES, 1),
            ("objects", OBJECTS, 1),
        )
    )
    rng = random.Random(seed)
    return [_draw(vocabulary, rng, row % 2, names, places, objects) for row in range(n)]


def _draw(
    vocabulary: Vocabulary,
    rng: random.Random,
    order: int,
    names: Sequence[str],
    places: Sequence[str],
    objects: Sequence[str],
) -> Pair:
    for _ in range(_MOST_ATTEMPTS):
        template = 2 * rng.randrange(len(ABBA)) + order
        text = TEMPLATES[template].replace("{place}", rng.choice(places))
        text = text.replace("{object}", rng.choice(objects))
        pair = _pair(vocabulary, template, text, rng.sample(names, 5))
        if pair is not None:
            return pair
    raise TaskError(
        "this tokenizer merges the words of the 'ioi' templates with their neighbours; "
        "write the prompts to a .jsonl file and give that as the task"
    )


def _whole(vocabulary: Vocabulary, kind: str, words: tuple[str, ...], fewest: int) -> list[str]:
    whole = vocabulary.single_words(words)
    if len(whole) < fewest:
        raise TaskError(
            f"the task 'ioi' needs {fewest} {kind} that are single tokens and this tokenizer has "
            f"{len(whole)} of {len(words)}; use a model with a larger vocabulary, "
            "or the task 'pronoun'"
        )
    return whole


def _pair(vocabulary: Vocabulary, template: int, text: str, names: Sequence[str]) -> Pair | None:
    indirect_object, subject, *others = names
    clean, corrupted = (
        fill(vocabulary, text, dict(zip(NAMED, three, strict=True)))
        for three in ((indirect_object, subject, subject), others)
    )
    if clean is None or corrupted is None or clean.positions != corrupted.positions:
        return None
    right, wrong = vocabulary.answer(indirect_object), vocabulary.answer(subject)
    positions = {slot: clean.positions[slot] for slot in NAMED}
    if [clean.tokens[index] for index in positions.values()] != [right, wrong, wrong]:
        return None
    return Pair(
        clean.tokens,
        corrupted.tokens,
        answers=[[right]],
        wrong_answers=[[wrong]],
        positions={**positions, "S1+1": positions["S1"] + 1, "end": len(clean.tokens) - 1},
        template=template,
    )


IOI = Task(
    name="ioi",
    summary="names the one who was mentioned once: Mary and John ... John gave a drink to -> Mary",
    source="Wang et al. 2022, arXiv 2211.00593",
    metric="kl",
    write=write,
    known_circuit=KNOWN_CIRCUIT,
)
