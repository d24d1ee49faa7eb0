"""A plain text as what a model reads: pieces of it, each as long as the model can read."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuitfind.errors import TaskError, quoted, shortened
from circuitfind.models.base import ResidualModel
from circuitfind.models.vocabulary import Vocabulary

MOST_TOKENS = 100_000
"""How many tokens of a text are read."""

LONGEST = 1_024
"""Largest number of tokens of a piece, also where the model can read more."""

_MOST_CHARACTERS = 8 * MOST_TOKENS
"""What is turned into tokens at all; in most languages a token has fewer characters."""


class Pieces(NamedTuple):
    """Pieces of a text.

    Attributes:
        tokens: The pieces, each with the token that starts sequences if there is one.
        real: True at positions that are no padding.
    """

    tokens: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]


def cut_text(model: ResidualModel, text: str, tell: Callable[[str], None]) -> Pieces:
    """Cut a text into pieces of nearly equal length that a model can read.

    Args:
        model: The model.
        text: The text.
        tell: Called with how much is read, and with what the model has no tokens for.

    Raises:
        TaskError: The model reads no text, or the text is empty.
    """
    vocabulary = model.vocabulary
    if vocabulary is None:
        raise TaskError(f"{quoted(model.name)} reads no text; leave the text out")
    tokens = _tokens(vocabulary, text, tell)
    if not tokens:
        raise TaskError("the text has nothing that the model can read; give another text")
    start = [] if vocabulary.bos is None else [vocabulary.bos]
    room = max(1, min(model.n_positions, LONGEST) - len(start))
    n_pieces = math.ceil(len(tokens) / room)
    length = math.ceil(len(tokens) / n_pieces)
    pieces = [start + tokens[at : at + length] for at in range(0, len(tokens), length)]
    tell(f"activations on {len(tokens):,} tokens of the text, in {len(pieces):,} pieces")
    width = len(pieces[0])
    lengths = torch.tensor([len(piece) for piece in pieces])
    filled = [piece + [0] * (width - len(piece)) for piece in pieces]
    return Pieces(torch.tensor(filled), torch.arange(width) < lengths[:, None])


def _tokens(vocabulary: Vocabulary, text: str, tell: Callable[[str], None]) -> list[int]:
    """Return the first tokens of a text, without the one that starts sequences."""
    tokens, unknown = vocabulary.read(text[:_MOST_CHARACTERS])
    if vocabulary.bos is not None:
        tokens = tokens[1:]
    if len(tokens) > MOST_TOKENS or len(text) > _MOST_CHARACTERS:
        tokens = tokens[:MOST_TOKENS]
        tell(f"the text is long: only its first {len(tokens):,} tokens are read")
    if unknown:
        shown = shortened(", ".join(map(quoted, dict.fromkeys(unknown))))
        tell(f"the model has no token for {len(unknown):,} parts of the text: {shown}")
    return tokens
