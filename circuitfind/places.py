"""Places: token positions told apart by name, lined up across prompts by name.

Each position of a prompt belongs to one place: a named position, a span of positions, or a position
by its number. A reader can be told apart by place (`Graph.at_places`); an edge then acts at the
positions of one place only, whatever their numbers in each prompt are (Haklay et al. 2025, arXiv
2502.04577). A place may be empty in some prompts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.alignment import START
from circuitfind.errors import PromptError, require_kind
from circuitfind.graph import Moves, require_place_names

_NOWHERE = -1
"""In place of a place's number while it is not known."""


@dataclass(frozen=True)
class Places:
    """Which place each position of some prompts belongs to.

    Attributes:
        names: The names of the places, from left to right.
        of: The number of the place of each position. Padding, which nothing reads, belongs to the
            place of the last position.

    Raises:
        GraphError: A name cannot be used.
        PromptError: A position belongs to a place that has no name.
    """

    names: tuple[str, ...]
    of: Int[Tensor, "batch pos"]

    def __post_init__(self) -> None:
        require_place_names(self.names)
        require_kind(self.of, Tensor, "the places of positions; give a tensor [batch, pos]")
        if self.of.numel() and not 0 <= int(self.of.min()) <= int(self.of.max()) < len(self.names):
            raise PromptError(
                f"there are {len(self.names)} places and positions of the places "
                f"{int(self.of.min())} to {int(self.of.max())}; number places from 0"
            )

    def merged(
        self, streams: Float[Tensor, "placed batch pos d_model"]
    ) -> Float[Tensor, "reader batch pos d_model"]:
        """Return what inputs receive, each position from the stream of its place.

        Args:
            streams: For each input, a stream for each place.
        """
        each = streams.unflatten(0, (-1, len(self.names)))
        return torch.where(self.masks()[None, :, :, :, None], each, 0).sum(1)

    def masks(self) -> Bool[Tensor, "place batch pos"]:
        """Return at which positions each place is."""
        numbers = torch.arange(len(self.names), device=self.of.device)
        return self.of[None] == numbers[:, None, None]

    def backwards(self) -> list[tuple[str, str]]:
        """Return pairs of places, the first further right, that stand so in some prompt.

        Names are from left to right by the mean over all prompts; in one of them a place may
        begin before one that stands left of it in most.
        """
        width = self.of.shape[1]
        columns = torch.arange(width, device=self.of.device)
        at = self.masks()
        first = torch.where(at, columns, width).amin(2)
        last = torch.where(at, columns, _NOWHERE).amax(2)
        before = (first[:, None] <= last[None, :]).any(2)
        there = before & at.any(2).any(1)[:, None]
        return [
            (self.names[source], self.names[target])
            for source, target in there.tril(-1).nonzero().tolist()
        ]

    def moves(self, *, causal: bool) -> Moves:
        """Return the pairs of places, by number, such that the second may attend to the first.

        Args:
            causal: Whether positions attend to earlier ones only.
        """
        numbers = range(len(self.names))
        backwards = [] if not causal else self.backwards()
        return tuple(
            (source, target)
            for source in numbers
            for target in numbers
            if not causal
            or source <= target
            or (self.names[source], self.names[target]) in backwards
        )

    def rows(self, rows: Sequence[int] | slice) -> "Places":
        """Return those of some of the prompts."""
        return replace(self, of=self.of[rows])

    def first(self, n_positions: int) -> "Places":
        """Return those of the first positions."""
        return replace(self, of=self.of[:, :n_positions])

    def to(self, device: torch.device | str) -> "Places":
        """Return the same on another device."""
        return replace(self, of=self.of.to(device))


def places_of_spans(
    starts: Mapping[str, Int[Tensor, " batch"]],
    lengths: Int[Tensor, " batch"],
    width: int,
    source: Callable[[int], str],
) -> Places:
    """Return places that are spans: each begins at a position and ends where the next one begins.

    Args:
        starts: Where each span begins in each prompt; where it has none, -1. Positions before the
            first span belong to a place `start`.
        lengths: How many positions of each prompt are no padding.
        width: How many positions the longest prompt has.
        source: Returns what messages call a prompt.

    Raises:
        PromptError: Two spans of a prompt begin at one position, one begins outside it, or one is
            called `start` and does not begin at 0.
    """
    columns = torch.arange(width)
    names = list(starts)
    table = torch.stack([starts[name] for name in names], dim=1)
    for row, (firsts, length) in enumerate(zip(table.tolist(), lengths.tolist(), strict=True)):
        there = [first for first in firsts if first >= 0]
        if len(set(there)) < len(there) or any(first >= length for first in there):
            raise PromptError(
                f"the spans of {source(row)} begin at {', '.join(map(str, there))}; each must "
                f"begin at a position of its own, from 0 to {length - 1}"
            )
    # The span of a position is the one that begins last at it or before it.
    begun = (table[:, :, None] >= 0) & (table[:, :, None] <= columns)
    latest = torch.where(begun, table[:, :, None], _NOWHERE).max(dim=1)
    of = torch.where(latest.values >= 0, latest.indices, len(names))
    if bool((of == len(names)).any()):
        if START in names:
            raise PromptError(
                "the positions before the first span are called 'start', and a span that begins "
                "later has that name too; give it another one"
            )
        names.append(START)
    return _from_left_to_right(names, of, lengths)


def _from_left_to_right(
    names: Sequence[str], of: Int[Tensor, "batch pos"], lengths: Int[Tensor, " batch"]
) -> Places:
    """Return places in the order of their mean position; those that are nowhere are left out."""
    columns = torch.arange(of.shape[1]).expand_as(of)
    # Padding goes with the last position.
    of = of.gather(1, torch.minimum(columns, lengths[:, None] - 1))
    there = [number for number in range(len(names)) if bool((of == number).any())]
    middles = {number: float(columns[of == number].float().mean()) for number in there}
    order = sorted(there, key=lambda number: middles[number])
    found = torch.full_like(of, _NOWHERE)
    for new, number in enumerate(order):
        found[of == number] = new
    return Places(tuple(names[number] for number in order), found)


def every_position(lengths: Int[Tensor, " batch"], width: int) -> Places:
    """Return a place for each position: `0`, `1` and so on.

    Raises:
        PromptError: The prompts have different lengths.
    """
    if len(lengths.unique()) > 1:
        raise PromptError(
            f"prompts of {int(lengths.min())} to {int(lengths.max())} tokens have no positions in "
            "common; choose places by name, or prompts of one length"
        )
    return Places(tuple(map(str, range(width))), torch.arange(width).repeat(len(lengths), 1))


def named_places(
    positions: Mapping[str, Int[Tensor, " batch"]], lengths: Int[Tensor, " batch"], width: int
) -> Places:
    """Return a place for each named position, and one for what lies before each of them.

    `..S2` is the positions between S2 and the named position before it, or the beginning;
    `end..` what comes after the last. Names of one position count once, by the first of them.

    Raises:
        PromptError: There are no named positions.
    """
    if not positions:
        raise PromptError(
            "these prompts name no positions; choose places by position, or name positions"
        )
    names = list(positions)
    of = torch.full((len(lengths), width), _NOWHERE)
    every = [*names, *(f"..{name}" for name in names), *(f"{name}.." for name in names)]
    for row, length in enumerate(lengths.tolist()):
        at = {int(positions[name][row]): number for number, name in reversed([*enumerate(names)])}
        ordered = sorted(at)
        for position in range(length):
            if position in at:
                of[row, position] = at[position]
            elif following := [each for each in ordered if each > position]:
                of[row, position] = len(names) + at[following[0]]
            else:
                of[row, position] = 2 * len(names) + at[ordered[-1]]
    return _from_left_to_right(every, of, lengths)
