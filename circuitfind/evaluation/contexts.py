"""The tokens and contexts at which one unit is active, given its activation at every position.

Activations can have both signs, so positions are ranked by size. Positions at which the unit counts
as inactive have the size 0.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.models.vocabulary import Vocabulary

_BEFORE, _AFTER = 8, 4
"""How many tokens before and after a position are its context."""


class Texts(NamedTuple):
    """What the model reads.

    Attributes:
        tokens: The prompts, or the pieces of a text.
        real: True at positions that are no padding.
        vocabulary: What turns tokens into text; None for models that read none.
    """

    tokens: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]
    vocabulary: Vocabulary | None


@dataclass(frozen=True)
class ActiveToken:
    """A token at which a unit is active.

    Attributes:
        token: The token at the position itself.
        text: Its text, with spaces visible.
        activation: The unit's activation where it is active at this token, on average.
        share: Share of the unit's activation that falls on this token, by size.
    """

    token: int
    text: str
    activation: float
    share: float

    def __str__(self) -> str:
        return f"{self.text} {self.share:.0%}"


@dataclass(frozen=True)
class Context:
    """A position at which a unit is active, and the text around it.

    Attributes:
        row: The row of the prompt, or the piece of the text.
        position: The position in it.
        activation: The unit's activation there.
        before: The text before the token at the position, a few tokens long.
        token: The text of the token.
        after: The text after it.
    """

    row: int
    position: int
    activation: float
    before: str
    token: str
    after: str

    def __str__(self) -> str:
        space = " " if self.token[:1].isspace() else ""
        text = f"{self.before}{space}[{self.token.strip() or self.token}]{self.after}"
        return f"{' '.join(text.split())} ({self.activation:.2f})"


def active_tokens(
    sizes: Float[Tensor, "batch pos"],
    values: Float[Tensor, "batch pos"],
    texts: Texts,
    n_shown: int,
) -> tuple[ActiveToken, ...]:
    """Return the tokens on which most activation falls; where sizes are 0 the unit is inactive."""
    active = sizes > 0
    kinds, places, counts = texts.tokens[active].unique(return_inverse=True, return_counts=True)
    by_size, signed = (
        torch.zeros(len(kinds), dtype=torch.float64).index_add_(0, places, each[active].double())
        for each in (sizes, values)
    )
    shares, means = by_size / by_size.sum(), signed / counts
    order = by_size.argsort(descending=True, stable=True)[:n_shown].tolist()
    return tuple(
        ActiveToken(
            int(kinds[i]),
            _text(texts.vocabulary, int(kinds[i])),
            float(means[i]),
            float(shares[i]),
        )
        for i in order
    )


def contexts_of(
    sizes: Float[Tensor, "batch pos"],
    values: Float[Tensor, "batch pos"],
    texts: Texts,
    n_shown: int,
) -> tuple[Context, ...]:
    """Return the positions at which a unit is strongest, without repetitions."""
    width = sizes.shape[1]
    found: dict[tuple[int, ...], Context] = {}
    for place in sizes.flatten().argsort(descending=True, stable=True).tolist():
        row, position = divmod(place, width)
        if len(found) == n_shown or not sizes[row, position]:
            break
        text = tuple(texts.tokens[row, max(0, position - _BEFORE) : position + 1].tolist())
        near = (c for c in found.values() if c.row == row and abs(c.position - position) <= _BEFORE)
        if text not in found and next(near, None) is None:
            value = float(values[row, position])
            found[text] = Context(row, position, value, *_around(texts, row, position))
    return tuple(found.values())


def _around(texts: Texts, row: int, position: int) -> tuple[str, str, str]:
    """Return the text before a token, that of the token, and the text after it."""
    first, length = max(0, position - _BEFORE), int(texts.real[row].sum())
    tokens = texts.tokens[row, first : min(length, position + 1 + _AFTER)].tolist()
    if texts.vocabulary is None:
        at = position - first
        before, after = (" ".join(map(str, part)) for part in (tokens[:at], tokens[at + 1 :]))
        return f"{before} ", str(tokens[at]), f" {after}"
    return texts.vocabulary.divided(tokens, position - first)


def _text(vocabulary: Vocabulary | None, token: int) -> str:
    return str(token) if vocabulary is None else vocabulary.shown(token)
