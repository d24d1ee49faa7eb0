"""The prompts that the page shows, and where each head looks on them.

What is stored is bounded: as many heads and prompts as fit, the circuit's heads before the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import NO_TOKEN, PromptPairs
from circuitfind.reports.page.numbers import packed, packed_size

KINDS = ("clean", "corrupted", "circuit")
"""On the clean prompts; on the corrupted ones; on the clean ones with only the circuit's edges."""

MOST_LETTERS = 2_500_000
"""Largest number of bytes that patterns may take in the file."""


@dataclass(frozen=True)
class Choice:
    """Selection of the patterns that are stored.

    Attributes:
        heads: Names of the heads.
        n_prompts: How many of the offered prompts.
    """

    heads: tuple[str, ...]
    n_prompts: int


def choose(
    lengths: Sequence[int], heads: Sequence[str], in_circuit: Sequence[str], *, causal: bool
) -> Choice:
    """Choose all heads and prompts if they fit, else fewer prompts, else the circuit's heads."""
    sizes = [len(KINDS) * packed_size(length, causal=causal) for length in lengths]
    for offered, fewest in ((heads, min(2, len(lengths))), (in_circuit, 1)):
        for n in range(len(lengths), fewest - 1, -1):
            if len(offered) * sum(sizes[:n]) <= MOST_LETTERS:
                return Choice(tuple(offered), n)
    return Choice((), len(lengths))


def shown_prompts(prompts: PromptPairs, vocabulary: Vocabulary | None) -> list[dict[str, Any]]:
    """Return prompts as tokens of text, with their answers and the names of positions."""

    def texts(tokens: Sequence[int]) -> list[str]:
        return [
            str(token) if vocabulary is None else vocabulary.decode([token])
            for token in tokens
            if token != NO_TOKEN
        ]

    shown = []
    for row in range(len(prompts)):
        length = int(prompts.lengths[row])
        tokens = prompts.clean[row, :length].tolist()
        shown.append(
            {
                "text": " ".join(texts(tokens))
                if vocabulary is None
                else vocabulary.decode(tokens),
                "clean": texts(tokens),
                "corrupted": texts(prompts.corrupted[row, :length].tolist()),
                "answers": texts(prompts.answers[row].flatten().tolist()),
                "wrongAnswers": texts(prompts.wrong_answers[row].flatten().tolist()),
                "steps": [step for step in prompts.steps[row].tolist() if step != NO_TOKEN],
                "positions": {name: int(at[row]) for name, at in prompts.positions.items()},
            }
        )
    return shown


def stored_patterns(
    patterns: Mapping[str, Float[Tensor, "batch query key"]],
    lengths: Sequence[int],
    *,
    causal: bool,
) -> dict[str, list[str]]:
    """Return each head's patterns as text, one for each prompt, without padding."""
    return {
        head: [
            packed(pattern[row, :length, :length], causal=causal)
            for row, length in enumerate(lengths)
        ]
        for head, pattern in patterns.items()
    }
