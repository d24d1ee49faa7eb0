"""Subject-verb agreement: the verb has the number of the subject, not of the noun beside it.

*The keys near the cabinet* -> *are*, *were*, *have*. The corrupted prompt has the subject in the
other number, and the distractor's number is drawn, so half of the prompts are attracted to the
wrong verb. All three verbs of a number are answers.

Linzen, Dupoux and Goldberg, 2016, "Assessing the Ability of LSTMs to Learn Syntax-Sensitive
Dependencies", https://arxiv.org/abs/1611.01368; Finlayson et al., 2021, "Causal Analysis of
Syntactic Agreement Mechanisms in Neural Language Models", https://arxiv.org/abs/2106.06087.
"""

import math
import random

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.writing import Couple, draw_pairs, require_enough, templated_pair

TEMPLATES = (
    "The {subject} near the {distractor}",
    "The {subject} behind the {distractor}",
    "The {subject} next to the {distractor}",
    "The {subject} in front of the {distractor}",
    "The {subject} that the {distractor} saw",
    "The {subject} that the {distractor} liked",
    "Every day the {subject} near the {distractor}",
    "We know that the {subject} with the {distractor}",
)
_PLAIN_NOUNS = (
    "key", "book", "boy", "girl", "cat", "dog", "car", "king", "doctor", "teacher", "lawyer",
    "farmer", "student", "author", "singer", "actor", "driver", "flower", "table", "cup", "door",
    "window", "picture", "friend", "bird", "guard", "judge", "writer", "artist", "pilot",
)  # fmt: skip
NOUNS: tuple[Couple, ...] = (
    *((noun, f"{noun}s") for noun in _PLAIN_NOUNS),
    ("man", "men"),
    ("woman", "women"),
    ("child", "children"),
    ("box", "boxes"),
)
"""Each noun in singular and plural."""

VERBS: tuple[Couple, ...] = (("is", "are"), ("was", "were"), ("has", "have"))

_FEWEST_NOUNS = 4


def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
    """Write n pairs, those with singular and plural subjects in turn.

    Raises:
        TaskError: The tokenizer keeps too few nouns or no verb whole in both numbers.
    """
    nouns, verbs = (
        [couple for couple in couples if len(vocabulary.single_words(couple)) == len(couple)]
        for couples in (NOUNS, VERBS)
    )
    whole = "that are single tokens in both numbers"
    require_enough("agreement", f"nouns {whole}", len(nouns), len(NOUNS), _FEWEST_NOUNS)
    require_enough("agreement", f"verb {whole}", len(verbs), len(VERBS), 1)
    answers = [[vocabulary.answer(verb[number]) for verb in verbs] for number in (0, 1)]

    def draw(rng: random.Random, row: int) -> Pair | None:
        template, number = rng.randrange(len(TEMPLATES)), row % 2
        subject, other = rng.sample(nouns, 2)
        distractor = rng.choice(other)
        return templated_pair(
            vocabulary,
            TEMPLATES[template],
            {"subject": subject[number], "distractor": distractor},
            {"subject": subject[1 - number], "distractor": distractor},
            answers=(answers[number], answers[1 - number]),
            number=template,
            named=("subject", "distractor"),
        )

    capacity = len(TEMPLATES) * math.perm(len(nouns), 2) * 2 * 2
    return draw_pairs("agreement", n, seed, draw, capacity=capacity)


AGREEMENT = Task(
    name="agreement",
    summary="gives the verb the number of its subject: The keys near the cabinet -> are",
    source="Linzen et al. 2016, arXiv 1611.01368; Finlayson et al. 2021, arXiv 2106.06087",
    metric="kl",
    write=write,
)
