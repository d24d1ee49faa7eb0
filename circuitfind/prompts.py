"""Pairs of prompts: clean and corrupted tokens, the right answers, and where to look for them.

The two prompts of a pair have the same length and differ in what the behaviour depends on, so a
component's output on the corrupted prompt says what it would write if it knew nothing of it. Pairs
of different lengths are padded on the right; with causal attention no real position ever sees the
padding, and models with bidirectional attention are given `real`.

A metric looks at logits only at the `steps` of a prompt, usually its last position. Where answers
take several tokens, they are appended to their prompts but for the last token, and the steps are
where those tokens are predicted (`pairs.forced`). Positions have names (`IO`, `S1`, `end`), which
tables, heatmaps and comparisons across models use.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.alignment import Alignment, Sides, aligned, spans_of
from circuitfind.errors import PromptError, require_kind, shortened
from circuitfind.pairs import Answer, Side, complaint_about, forced, tokens_of
from circuitfind.pairs import Pair as Pair
from circuitfind.places import Places

NO_TOKEN = -1
"""Fills up rows of steps and answers that are shorter than the longest."""

_FINE = 2**20
"""Parts of a share that a fingerprint tells apart."""

_MOST_NUMBERS = 2**28
"""In one tensor: with more, it is padding that fills the memory."""


@dataclass(frozen=True)
class PromptPairs:
    """Pairs of prompts with their right and wrong answers.

    Attributes:
        clean: Tokens of the clean prompts, padded on the right.
        corrupted: Tokens of the corrupted prompts, of the same lengths where there is no alignment.
        lengths: How many tokens of each row are real.
        steps: Positions at which metrics read the logits; `NO_TOKEN` where a prompt has fewer.
        answers: Tokens that are right at each step; `NO_TOKEN` fills up.
        wrong_answers: Tokens that the corrupted prompt would make right; may be empty.
        positions: Named positions, one index per prompt.
        spans: Where each named span begins in each prompt; -1 in prompts that lack it.
        template: Which template each prompt was written from.
        sources: Where each pair comes from, such as the line of a file; None if nobody said.
        alignment: Where the positions of clean prompts are in corrupted ones that have other
            lengths or spans elsewhere; None where each is at the same position.
        places: Which place each position belongs to, where edges tell places apart.
        sides: Whether the steps of each row are the tokens of its right answer, of its wrong answer
            or all that both need (`Side`), because some answer takes several tokens; None where
            each step is a question of its own.
    """

    clean: Int[Tensor, "batch pos"]
    corrupted: Int[Tensor, "batch pos"]
    lengths: Int[Tensor, " batch"]
    steps: Int[Tensor, "batch step"]
    answers: Int[Tensor, "batch step right"]
    wrong_answers: Int[Tensor, "batch step wrong"]
    positions: Mapping[str, Int[Tensor, " batch"]] = field(default_factory=dict)
    spans: Mapping[str, Int[Tensor, " batch"]] = field(default_factory=dict)
    template: Int[Tensor, " batch"] | None = None
    sources: tuple[str, ...] | None = None
    alignment: Alignment | None = None
    places: Places | None = None
    sides: Int[Tensor, " batch"] | None = None

    def __repr__(self) -> str:
        least, most = int(self.lengths.min()), int(self.lengths.max())
        tokens = f"{most}" if least == most else f"{least} to {most}"
        names = shortened(", ".join(self.positions))[:80]
        named = f"; named positions {names}" if names else ""
        return f"<PromptPairs: {self.n_prompts} pairs of {tokens} tokens{named}>"

    def __len__(self) -> int:
        return self.clean.shape[0]

    def source(self, row: int) -> str:
        """Return what messages call a pair: where it comes from, or its number, from 0."""
        return (self.sources[row] if self.sources else "") or f"prompt {row // self.n_runs}"

    @property
    def n_runs(self) -> int:
        """How many rows, one after the other, belong to one prompt."""
        return 1 if self.sides is None or not bool(self.sides.any()) else 2

    @property
    def n_prompts(self) -> int:
        """How many prompts there are."""
        return len(self) // self.n_runs

    def rows_of(self, prompts: Iterable[int]) -> list[int]:
        """Return the rows of some prompts."""
        return [row for n in prompts for row in range(n * self.n_runs, (n + 1) * self.n_runs)]

    def per_prompt(self, values: Float[Tensor, "*any batch"]) -> Float[Tensor, "*any prompt"]:
        """Return values of rows as values of prompts: their mean where a prompt has two rows."""
        if self.n_runs == 1:
            return values
        return values.view(*values.shape[:-1], -1, self.n_runs).mean(-1)

    @property
    def n_distinct(self) -> int:
        """Number of different pairs; repeated pairs add no information about a behaviour."""
        return len(self.distinct)

    @property
    def distinct(self) -> list[int]:
        """The prompts that repeat no earlier one, by number."""
        parts = (getattr(self, name).flatten(1) for name in _TENSORS if name != "lengths")
        rows = torch.cat([part for part in parts], dim=1).view(self.n_prompts, -1).tolist()
        first = {tuple(row): number for number, row in reversed(list(enumerate(rows)))}
        return sorted(first.values())

    def missing_from(self, others: "PromptPairs") -> list[int]:
        """Return the prompts that others do not have, by number: clean and corrupted ones alike."""
        there = set(others._texts)
        return [number for number, text in enumerate(self._texts) if text not in there]

    @property
    def _texts(self) -> list[tuple[tuple[int, ...], ...]]:
        """The clean and corrupted tokens of each prompt, without padding."""
        ends = self.lengths, self.lengths if self.alignment is None else self.alignment.lengths
        sides = [
            [tuple(row[:end]) for row, end in zip(tokens.tolist(), n.tolist(), strict=True)]
            for tokens, n in zip((self.clean, self.corrupted), ends, strict=True)
        ]
        rows = list(zip(*sides, strict=True))
        return [
            tuple(side for row in self.rows_of([number]) for side in rows[row])
            for number in range(self.n_prompts)
        ]

    @cached_property
    def real(self) -> Bool[Tensor, "batch pos"]:
        """True at real positions, False at padding."""
        columns = torch.arange(self.clean.shape[1], device=self.clean.device)
        return columns[None, :] < self.lengths[:, None]

    @property
    def padded(self) -> bool:
        return not bool(self.real.all())

    @cached_property
    def step_is_real(self) -> Bool[Tensor, "batch step"]:
        return self.steps != NO_TOKEN

    @cached_property
    def answered(self) -> Bool[Tensor, "side batch step"]:
        """Whether a step has right answers, and whether it has wrong ones."""
        sides = (self.answers, self.wrong_answers)
        return torch.stack([(tokens != NO_TOKEN).any(-1) for tokens in sides])

    @cached_property
    def compared(self) -> bool:
        """Whether right and wrong answers can be compared by their logits, step by step."""
        right, wrong = self.answered
        return self.sides is None or bool((right == wrong).all())

    @cached_property
    def step_weights(self) -> Float[Tensor, "batch step"]:
        """How often each step counts in a sum over the tokens of answers.

        Twice, where a prompt has two rows and only one of them shows it.
        """
        weights = self.step_is_real.float()
        if self.sides is None:
            return weights
        right, wrong = self.answered
        twice: Tensor = (right != wrong) & (self.sides != Side.ONLY)[:, None]
        return weights * (1 + twice)

    @property
    def fingerprint(self) -> str:
        """A hash of every token, step and answer; equal prompts have equal fingerprints."""
        digest = hashlib.sha256()
        tensors = [getattr(self, name) for name in _TENSORS]
        tensors += [] if self.sides is None else [self.sides]
        tensors += [] if self.places is None else [self.places.of]
        if self.alignment is not None:
            shares = (self.alignment.weights * _FINE).round().long()
            tensors += [self.alignment.lengths, shares]
        for tensor in tensors:
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.cpu().numpy().astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    def require_one_length(self, what: str) -> None:
        """Refuse pairs whose prompts are lined up by spans, for what compares runs by position.

        Raises:
            PromptError: The message names the first pair.
        """
        if self.alignment is None:
            return
        differ = (self.alignment.lengths != self.lengths).nonzero()
        row = int(differ[0]) if len(differ) else 0
        raise PromptError(
            f"{what} puts two runs side by side position by position, and the prompts of "
            f"{self.source(row)} have their positions elsewhere ({int(self.lengths[row])} and "
            f"{int(self.alignment.lengths[row])} tokens, lined up by spans); take pairs of equal "
            "length"
        )

    def at_steps(self, values: Tensor) -> Tensor:
        """Select the metric's steps from a tensor with axes batch, pos and any others.

        It may hold the last positions only. Steps that a prompt lacks select the first position.
        """
        index = (self.steps - (self.clean.shape[1] - values.shape[1])).clamp(min=0)
        rows = torch.arange(len(self), device=values.device)[:, None]
        return values[rows, index]

    def select(self, rows: Sequence[int] | slice) -> "PromptPairs":
        """Return some of the pairs, with the padding they no longer need cut off."""
        some = self.rows(rows)
        width = int(some.lengths.max())
        if some.alignment is not None:
            width = max(width, int(some.alignment.lengths.max()))
        return replace(
            some,
            clean=some.clean[:, :width],
            corrupted=some.corrupted[:, :width],
            alignment=some.alignment and some.alignment.first(width),
            places=some.places and some.places.first(width),
        )

    def rows(self, rows: Sequence[int] | slice) -> "PromptPairs":
        """Return some of the pairs, as long as before."""
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in _TENSORS},
            positions={name: index[rows] for name, index in self.positions.items()},
            spans={name: index[rows] for name, index in self.spans.items()},
            template=None if self.template is None else self.template[rows],
            sides=None if self.sides is None else self.sides[rows],
            sources=self.sources and _selected(self.sources, rows),
            alignment=self.alignment and self.alignment.rows(rows),
            places=self.places and self.places.rows(rows),
        )

    def to(self, device: torch.device | str) -> "PromptPairs":
        """Return the same pairs on another device."""
        return replace(
            self,
            **{name: getattr(self, name).to(device) for name in _TENSORS},
            positions={name: index.to(device) for name, index in self.positions.items()},
            spans={name: index.to(device) for name, index in self.spans.items()},
            template=None if self.template is None else self.template.to(device),
            sides=None if self.sides is None else self.sides.to(device),
            alignment=self.alignment and self.alignment.to(device),
            places=self.places and self.places.to(device),
        )


def _selected(sources: tuple[str, ...], rows: Sequence[int] | slice) -> tuple[str, ...]:
    return sources[rows] if isinstance(rows, slice) else tuple(sources[row] for row in rows)


_TENSORS = ("clean", "corrupted", "lengths", "steps", "answers", "wrong_answers")


def collate(pairs: Sequence[Pair]) -> PromptPairs:
    """Turn single pairs into tensors; an answer that is given twice counts once.

    Raises:
        PromptError: There are no pairs, there is something wrong with one (`complaint_about`), only
            some of them name a position, or one is so long that padding fills the memory.
    """
    require_kind(pairs, Sequence, "pairs of prompts; give a list of `Pair`s")
    if not pairs:
        raise PromptError("there are no prompts; give at least one pair")
    for row, pair in enumerate(pairs):
        require_kind(pair, Pair, "a pair of prompts; give a `Pair` for each")
        if complaint := complaint_about(pair):
            raise PromptError(f"{pair.source or f'pair {row}'}{complaint}")
    sides: list[Side] | None = None
    if any(pair.has_long_answer for pair in pairs):
        _require_one_question(pairs)
        pairs, sides = map(list, zip(*forced(pairs), strict=True))
    names = _shared_names(pairs)
    lengths = torch.tensor([len(pair.clean) for pair in pairs])
    width = max(max(len(pair.clean), len(pair.corrupted)) for pair in pairs)
    # Padding repeats token 0: any token will do, since no real position reads it.
    return PromptPairs(
        clean=_padded([pair.clean for pair in pairs], fill=0, width=width),
        corrupted=_padded([pair.corrupted for pair in pairs], fill=0, width=width),
        lengths=lengths,
        steps=_padded([pair.read_at for pair in pairs], fill=NO_TOKEN),
        answers=_padded_choices([pair.answers for pair in pairs], pairs),
        wrong_answers=_padded_choices([pair.wrong_answers for pair in pairs], pairs),
        positions={
            name: torch.tensor([pair.positions[name] for pair in pairs]) for name in sorted(names)
        },
        spans={
            name: torch.tensor([pair.spans.get(name, -1) for pair in pairs])
            for name in dict.fromkeys(name for pair in pairs for name in pair.spans)
        },
        alignment=_alignment(pairs, width),
        template=torch.tensor([pair.template for pair in pairs]),
        sources=tuple(p.source for p in pairs) if any(pair.source for pair in pairs) else None,
        sides=None if sides is None else torch.tensor(sides),
    )


def _require_one_question(pairs: Sequence[Pair]) -> None:
    for row, pair in enumerate(pairs):
        if list(pair.read_at) != [len(pair.clean) - 1]:
            raise PromptError(
                f"{pair.source or f'pair {row}'} has steps of its own, and other pairs have "
                "answers of several tokens, which begin at the last position; leave out the steps, "
                "or give answers of one token in all pairs"
            )


def _shared_names(pairs: Sequence[Pair]) -> set[str]:
    every = set().union(*(pair.positions for pair in pairs))
    for row, pair in enumerate(pairs):
        missing = every - set(pair.positions)
        if missing:
            raise PromptError(
                f"{pair.source or f'pair {row}'} does not name the position "
                f"{sorted(missing)[0]!r} that others do; "
                "name the same positions in every pair"
            )
    return every


def _alignment(pairs: Sequence[Pair], width: int) -> Alignment | None:
    if not any(pair.corrupted_spans for pair in pairs):
        return None
    sides = [
        Sides(
            spans_of(pair.spans, len(pair.clean)),
            spans_of(pair.corrupted_spans or pair.spans, len(pair.corrupted)),
        )
        for pair in pairs
    ]
    return aligned(sides, [len(pair.corrupted) for pair in pairs], width)


def _padded(
    rows: Sequence[Sequence[int]], fill: int, width: int | None = None
) -> Int[Tensor, "batch width"]:
    width = max(len(row) for row in rows) if width is None else width
    _require_room(len(rows), width)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=torch.long)


def _padded_choices(
    given: Sequence[Sequence[Sequence[Answer]]], pairs: Sequence[Pair]
) -> Int[Tensor, "batch step choice"]:
    n_steps = max(len(pair.read_at) for pair in pairs)
    # Tokens are answers whatever text they come from: given twice, they would count twice.
    choices = [
        [list(dict.fromkeys(token for each in step for token in tokens_of(each))) for step in row]
        for row in given
    ]
    width = max((len(tokens) for row in choices for tokens in row), default=0)
    _require_room(len(choices), n_steps * width)
    filled = torch.full((len(choices), n_steps, width), NO_TOKEN, dtype=torch.long)
    for row, by_step in enumerate(choices):
        for step, tokens in enumerate(by_step):
            filled[row, step, : len(tokens)] = torch.tensor(list(tokens), dtype=torch.long)
    return filled


def _require_room(rows: int, width: int) -> None:
    if rows * width > _MOST_NUMBERS:
        raise PromptError(
            f"{rows:,} pairs as wide as the widest of them are {rows * width:,} numbers, and at "
            f"most {_MOST_NUMBERS:,} are kept; use fewer pairs, or leave out the longest"
        )


def named_positions(prompts: PromptPairs, names: Iterable[str]) -> Int[Tensor, "name batch"]:
    """Return the positions with these names.

    Raises:
        PromptError: A name is unknown; the message lists the known ones.
    """
    for name in (names := list(names)):
        if name not in prompts.positions:
            known = ", ".join(prompts.positions) or "none"
            raise PromptError(f"no position is named {name!r}; these prompts name {known}")
    return torch.stack([prompts.positions[name] for name in names])
