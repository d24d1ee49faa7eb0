"""Greater-than: a war that began in '32 ends later in its century.

*The war lasted from the year 1732 to the year 17* -> any of *33* to *99*. The corrupted prompt
begins in '01, so that any later year is right.

The answer is the token that follows the century. Where a tokenizer writes a year of the century as
one token, that is the year. Where it writes digits apart, it is the first digit of the year: *4* to
*9* are right after '32, *0* to *2* are wrong, and *3* decides nothing and is neither. Where it
writes three digits as one token, 1732 is *173* and *2*: the prompt then ends before the century,
*174* to *179* are right, *170* to *172* wrong, and no position is named `XX`. Centuries and
years that a tokenizer splits otherwise are left out, and so are years that leave no token that is
right, or none that is wrong.

Hanna, Liu and Variengien, 2023, "How does GPT-2 compute greater-than?: Interpreting mathematical
abilities in a pre-trained language model", https://arxiv.org/abs/2305.00586.
"""

import random
from collections.abc import Mapping

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.known.greater_than import KNOWN_CIRCUIT
from circuitfind.tasks.writing import draw_pairs, require_enough, templated_pair

TEMPLATES = (
    "The {noun} lasted from the year {XX}{YY} to the year {century}",
    "The {noun} began in the year {XX}{YY} and ended in the year {century}",
    "The {noun} went on from the year {XX}{YY} until the year {century}",
)
NOUNS = (
    "war", "siege", "voyage", "journey", "project", "campaign", "conflict", "trial", "study",
    "strike", "dispute", "famine", "plague", "festival", "expedition", "reign", "peace", "drought",
    "search", "crisis", "tour", "mission", "debate", "revolt",
)  # fmt: skip
CENTURIES = tuple(str(century) for century in range(11, 20))
YEARS = tuple(f"{year:02d}" for year in range(100))
BASE = "01"
"""The corrupted prompt's year."""

_FEWEST_YEARS = 60

Century = Mapping[str, int]
"""The token that each year of a century begins with, in the order of the years."""


def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
    """Write n pairs.

    Raises:
        TaskError: The tokenizer writes too few years as century and year.
    """
    usable = _usable(vocabulary, "the year {century}")
    apart = bool(usable)
    usable = usable or _usable(vocabulary, "the year ")
    kind = "century whose years are one token, two digits, or begin with three"
    require_enough("greater-than", kind, len(usable), len(CENTURIES), 1)
    between = {
        century: [y for y in years if y not in (BASE, min(years)) and all(_answers(y, years))]
        for century, years in usable.items()
    }

    def draw(rng: random.Random, row: int) -> Pair | None:
        number, noun = rng.randrange(len(TEMPLATES)), rng.choice(NOUNS)
        century = rng.choice(list(usable))
        year = rng.choice(between[century])
        words = {"noun": noun, "XX": century, "YY": year, "century": century if apart else ""}
        return templated_pair(
            vocabulary,
            TEMPLATES[number],
            words,
            {**words, "YY": BASE},
            answers=_answers(year, usable[century]),
            number=number,
            named=("noun", "XX", "YY") if apart else ("noun", "YY"),
        )

    capacity = len(TEMPLATES) * len(NOUNS) * sum(map(len, between.values()))
    return draw_pairs("greater-than", n, seed, draw, capacity=capacity)


def _answers(year: str, years: Century) -> tuple[list[int], list[int]]:
    """Return the tokens with which only later years begin, and those of no later year."""
    later = dict.fromkeys(token for other, token in years.items() if other > year)
    others = dict.fromkeys(token for other, token in years.items() if other <= year)
    return (
        [token for token in later if token not in others],
        [token for token in others if token not in later],
    )


def _usable(vocabulary: Vocabulary, before: str) -> dict[str, Century]:
    """Return the centuries of which enough years go on from a text that can name the century."""
    found = {name: _years(vocabulary, name, before.format(century=name)) for name in CENTURIES}
    return {name: years for name, years in found.items() if _is_usable(years)}


def _years(vocabulary: Vocabulary, century: str, before: str) -> Century:
    """Return the years that are written as many tokens after a text as '01 is."""
    stem = vocabulary.encode(before)
    tokens = {year: vocabulary.encode(f"the year {century}{year}") for year in YEARS}
    return {
        year: found[len(stem)]
        for year, found in tokens.items()
        if found[: len(stem)] == stem
        and len(found) == len(tokens[BASE]) > len(stem)
        and vocabulary.tokenizer.unk_token_id not in found
    }


def _is_usable(years: Century) -> bool:
    return len(years) >= _FEWEST_YEARS and BASE in years and max(years) > BASE


GREATER_THAN = Task(
    name="greater-than",
    summary="ends later than it began: lasted from the year 1732 to the year 17 -> 33 to 99",
    source="Hanna et al. 2023, arXiv 2305.00586",
    metric="probability-difference",
    write=write,
    known_circuit=KNOWN_CIRCUIT,
)
