"""Indirect object identification: after two names and one again, the other is the one given to.

*When Mary and John went to the store, John gave a drink to* -> *Mary*. The corrupted prompt has
three other names, all different (ABC), so it says neither who is repeated nor who is not. The
corruption `flip` names the indirect object where the subject was named again (S2 -> IO), so the
other answer is right; `third` names a third person there.

Wang et al., 2022, "Interpretability in the Wild: a Circuit for Indirect Object Identification in
GPT-2 small", https://arxiv.org/abs/2211.00593.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.known.ioi import KNOWN_CIRCUIT
from circuitfind.tasks.words import NAMES, OBJECTS, PLACES
from circuitfind.tasks.writing import draw_pairs, require_whole, templated_pair

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

Corruption = Callable[[Sequence[str]], Sequence[str]]
"""From five names, the first two the clean prompt's, to the corrupted prompt's three."""


def _writer(corrupted: Corruption, n_names: int) -> Callable[[Vocabulary, int, int], list[Pair]]:
    """Return the writer of pairs whose corruption uses a number of the five names."""

    def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
        """Write n pairs, ABBA and BABA in turn.

        Raises:
            TaskError: The tokenizer keeps too few names, places or objects whole.
        """
        names, places, objects = (
            require_whole("ioi", vocabulary, kind, words, fewest)
            for kind, words, fewest in (
                ("names", NAMES, FEWEST_NAMES),
                ("places", PLACES, 1),
                ("objects", OBJECTS, 1),
            )
        )

        def draw(rng: random.Random, row: int) -> Pair | None:
            template = 2 * rng.randrange(len(ABBA)) + row % 2
            text = TEMPLATES[template].replace("{place}", rng.choice(list(places)))
            text = text.replace("{object}", rng.choice(list(objects)))
            five = rng.sample(list(names), 5)
            return _pair(vocabulary, template, text, five, corrupted(five), names)

        capacity = len(TEMPLATES) * len(places) * len(objects) * math.perm(len(names), n_names)
        return draw_pairs("ioi", n, seed, draw, capacity=capacity)

    return write


def _pair(
    vocabulary: Vocabulary,
    template: int,
    text: str,
    names: Sequence[str],
    others: Sequence[str],
    tokens: Mapping[str, int],
) -> Pair | None:
    indirect_object, subject = names[:2]
    right, wrong = tokens[indirect_object], tokens[subject]
    pair = templated_pair(
        vocabulary,
        text,
        dict(zip(NAMED, (indirect_object, subject, subject), strict=True)),
        dict(zip(NAMED, others, strict=True)),
        answers=([right], [wrong]),
        number=template,
        named=NAMED,
    )
    if pair is None or [pair.clean[pair.positions[slot]] for slot in NAMED] != [
        right,
        wrong,
        wrong,
    ]:
        return None
    return replace(pair, positions={**pair.positions, "S1+1": pair.positions["S1"] + 1})


def _three_others(names: Sequence[str]) -> Sequence[str]:
    return names[2:]


def _subject_flipped(names: Sequence[str]) -> Sequence[str]:
    return names[0], names[1], names[0]


def _third_repeated(names: Sequence[str]) -> Sequence[str]:
    return names[0], names[1], names[2]


write = _writer(_three_others, 5)

IOI = Task(
    name="ioi",
    summary="names the one who was mentioned once: Mary and John ... John gave a drink to -> Mary",
    source="Wang et al. 2022, arXiv 2211.00593",
    metric="kl",
    write=write,
    corruptions={"flip": _writer(_subject_flipped, 2), "third": _writer(_third_repeated, 3)},
    known_circuit=KNOWN_CIRCUIT,
)
