"""Corrupted prompts of other lengths than their clean ones, lined up span by span.

Where the two prompts of a pair have spans of the same names, what a cut edge carries at a position
of the clean prompt is taken from the span of that name in the corrupted prompt: from the same
position of it where the spans are equally long, and else the mean over the span.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

START = "start"
"""What the positions before the first span are called."""


class Span(NamedTuple):
    """Positions from `first` on, before `end`."""

    first: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.first


def spans_of(starts: Mapping[str, int], length: int) -> dict[str, Span]:
    """Return the spans of a prompt, in their order: each ends where the next one begins.

    Args:
        starts: Where each begins.
        length: How many tokens the prompt has.
    """
    order = sorted(starts.items(), key=lambda item: item[1])
    if not order or order[0][1] > 0:
        order = [(START, 0), *order]
    ends = [first for _, first in order[1:]] + [length]
    return {name: Span(first, end) for (name, first), end in zip(order, ends, strict=True)}


def complaint_about_spans(
    clean: Mapping[str, int], corrupted: Mapping[str, int], lengths: tuple[int, int]
) -> str | None:
    """Return why the prompts of a pair cannot be lined up by their spans, or None.

    Args:
        clean: Where each span of the clean prompt begins.
        corrupted: The same of the corrupted prompt.
        lengths: How many tokens both have.
    """
    sides = ("clean", clean, lengths[0]), ("corrupted", corrupted, lengths[1])
    for side, starts, length in sides:
        if len(set(starts.values())) < len(starts):
            name = next(n for n, at in starts.items() if list(starts.values()).count(at) > 1)
            return (
                f": the span {name!r} of its {side} prompt begins where another one does; give "
                "each span a first token of its own"
            )
        if outside := [name for name, first in starts.items() if not 0 <= first < length]:
            return (
                f": the span {outside[0]!r} begins outside its {side} prompt of {length} tokens; "
                "positions count from 0"
            )
    mine, theirs = (spans_of(starts, length) for _, starts, length in sides)
    for name in mine:
        if name not in theirs:
            what = "has tokens before its first span" if name == START else f"has the span {name!r}"
            return (
                f": its clean prompt {what} and its corrupted one has not, so nothing can take the "
                "place of these positions; name the same spans in both prompts"
            )
    return None


@dataclass(frozen=True)
class Alignment:
    """Where the positions of clean prompts are in their corrupted prompts.

    Attributes:
        lengths: How many tokens each corrupted prompt has.
        weights: For each clean position the share of each corrupted position in what takes its
            place: 1 for one of them, or the same share for all of a span.
        means: How many spans of each pair are averaged, because they differ in length.
    """

    lengths: Int[Tensor, " batch"]
    weights: Float[Tensor, "batch pos corrupted_pos"]
    means: Int[Tensor, " batch"]

    def at_clean_positions(
        self, values: Float[Tensor, "writer batch corrupted_pos width"]
    ) -> Float[Tensor, "writer batch pos width"]:
        """Return values of corrupted prompts at the positions of the clean ones."""
        return torch.einsum("bpc,wbcd->wbpd", self.weights.to(values.dtype), values)

    def notes(self) -> list[str]:
        """Return what a user should know of it, if any span is averaged."""
        n_pairs, n = len(self.means), int((self.means > 0).sum())
        if not n:
            return []
        return [
            f"in {n} of {n_pairs} pairs a span has another length in the corrupted prompt: there "
            "cut edges carry the mean over the span"
        ]

    def rows(self, rows: Sequence[int] | slice) -> "Alignment":
        """Return that of some of the pairs."""
        return Alignment(self.lengths[rows], self.weights[rows], self.means[rows])

    def first(self, n_positions: int) -> "Alignment":
        """Return that of the first positions."""
        return replace(self, weights=self.weights[:, :n_positions, :n_positions])

    def to(self, device: torch.device | str) -> "Alignment":
        """Return the same on another device."""
        parts = (part.to(device) for part in (self.lengths, self.weights, self.means))
        return Alignment(*parts)


class Sides(NamedTuple):
    """The spans of the two prompts of a pair."""

    clean: Mapping[str, Span]
    corrupted: Mapping[str, Span]


def aligned(pairs: Sequence[Sides], lengths: Sequence[int], width: int) -> Alignment:
    """Return how pairs are lined up.

    Args:
        pairs: The spans of each pair.
        lengths: How many tokens each corrupted prompt has.
        width: How many positions all prompts have, with padding.
    """
    weights = torch.eye(width, dtype=torch.float64).repeat(len(pairs), 1, 1)
    means = torch.zeros(len(pairs), dtype=torch.long)
    for row, (clean, corrupted) in enumerate(pairs):
        for name, own in clean.items():
            there = corrupted[name]
            part = torch.zeros(own.length, width, dtype=weights.dtype)
            if own.length == there.length:
                part[range(own.length), range(*there)] = 1
            else:
                part[:, slice(*there)] = 1 / there.length
                means[row] += 1
            weights[row, slice(*own)] = part
    return Alignment(torch.tensor(lengths), weights, means)
