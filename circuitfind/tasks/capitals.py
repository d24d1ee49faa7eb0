"""Capitals: recall of a fact that the prompt does not contain.

*Mary is now in the capital of France, the city of* -> *Paris*. The corrupted prompt names another
country that takes as many tokens; the wrong answer is its capital.

Meng et al., 2022, "Locating and Editing Factual Associations in GPT",
https://arxiv.org/abs/2202.05262; Geva et al., 2023, "Dissecting Recall of Factual Associations in
Auto-Regressive Language Models", https://arxiv.org/abs/2304.14767.
"""

import random

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.words import NAMES
from circuitfind.tasks.writing import (
    draw_pairs,
    require_enough,
    templated_pair,
    whole_words,
    width,
)

TEMPLATES = (
    "{name} went to the capital of {country}, the city of",
    "{name} lives in the capital of {country}, which is called",
    "{name} wrote a book about the capital of {country}, the city of",
    "{name} knows that the capital of {country} is",
    "{name} said that the capital of {country} is called",
    "When {name} thinks of {country}, the first city is the capital,",
    "{name} flew to {country} to see its capital,",
    "{name} was born in {country}, in the capital,",
)
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Spain": "Madrid", "Germany": "Berlin",
    "Russia": "Moscow", "China": "Beijing", "England": "London", "Egypt": "Cairo",
    "Greece": "Athens", "Poland": "Warsaw", "Cuba": "Havana", "Iran": "Tehran", "Iraq": "Baghdad",
    "Syria": "Damascus", "Austria": "Vienna", "Ireland": "Dublin", "Portugal": "Lisbon",
    "Sweden": "Stockholm", "Norway": "Oslo", "Finland": "Helsinki", "Turkey": "Ankara",
    "Belgium": "Brussels", "Canada": "Ottawa", "Hungary": "Budapest", "Thailand": "Bangkok",
    "Peru": "Lima", "Chile": "Santiago", "Denmark": "Copenhagen", "Scotland": "Edinburgh",
    "Lebanon": "Beirut", "Afghanistan": "Kabul", "Philippines": "Manila", "Pakistan": "Islamabad",
    "Australia": "Canberra", "Wales": "Cardiff", "Switzerland": "Bern", "Kenya": "Nairobi",
    "Nepal": "Kathmandu", "Romania": "Bucharest",
}  # fmt: skip
"""The capital of each country."""

_FEWEST_COUNTRIES = 4


def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
    """Write n pairs.

    Raises:
        TaskError: The tokenizer keeps too few capitals whole.
    """
    tokens = whole_words(vocabulary, CAPITALS.values())
    widths = {
        country: width(vocabulary, country)
        for country, capital in CAPITALS.items()
        if capital in tokens
    }
    others = {
        country: [other for other in widths if widths[other] == wide and other != country]
        for country, wide in widths.items()
    }
    usable = [country for country in widths if others[country]]
    kind = "countries whose capital is a single token"
    require_enough("capitals", kind, len(usable), len(CAPITALS), _FEWEST_COUNTRIES)

    def draw(rng: random.Random, row: int) -> Pair | None:
        template, name = rng.randrange(len(TEMPLATES)), rng.choice(NAMES)
        country = rng.choice(usable)
        other = rng.choice(others[country])
        return templated_pair(
            vocabulary,
            TEMPLATES[template],
            {"name": name, "country": country},
            {"name": name, "country": other},
            answers=([tokens[CAPITALS[country]]], [tokens[CAPITALS[other]]]),
            number=template,
            named=("name", "country"),
        )

    capacity = len(TEMPLATES) * len(NAMES) * sum(len(others[country]) for country in usable)
    return draw_pairs("capitals", n, seed, draw, capacity=capacity)


CAPITAL_OF = Task(
    name="capitals",
    summary="recalls a country's capital: went to the capital of France, the city of -> Paris",
    source="Meng et al. 2022, arXiv 2202.05262; Geva et al. 2023, arXiv 2304.14767",
    metric="kl",
    write=write,
)
