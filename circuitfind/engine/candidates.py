"""Candidates that cut edges into one reader, and what it receives in each of them.

They are made, normed and projected a few at a time, few enough to stay in the processor's cache.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.sizes import sizes_of
from circuitfind.engine.state import Candidates, Stream
from circuitfind.errors import MethodError

_CANDIDATE_FLOATS = 1 << 24
"""How many numbers a stream of all candidates together may have; 64 MiB in float32."""

_MOST_CANDIDATES = 64

FIRST_WIDTH, _LEAST_WIDTH = 8, 4
"""How many edges are tested ahead to begin with, and at least after an edge that is kept.

These, the growth by a half and the shrinking to a half evaluate few candidates in vain for few
batches; they were chosen on the decisions of the benchmark.
"""


@dataclass
class Test:
    """One edge, or a group of edges, that was cut to see what that does to the loss.

    Attributes:
        edge: The edge's name, or a description of the group.
        before: The loss with it.
        after: The loss without it.
        kept: Whether it is put back; otherwise the tests that follow are made without it.
        error: How far the effect can be off at most, where both losses are middles of bounds; 0
            where they are exact.
    """

    edge: str
    before: float
    after: float
    kept: bool = False
    error: float = 0.0

    @property
    def effect(self) -> float:
        """Rise of the loss when it is cut, in the metric's unit.

        Raises:
            MethodError: The loss is infinite or NaN without it.
        """
        if not math.isfinite(self.after):
            raise MethodError(
                f"the loss became {self.after} when {self.edge} was cut; choose a metric that "
                "stays finite on these prompts, or a wider number type"
            )
        return self.after - self.before


class Cuts:
    """Some edges into one reader, cut one after the other or each alone.

    Args:
        reader: Index of the reader.
        before: What it receives with none of them cut.
        gaps: The change that each cut makes to that.
        exact: Returns what the reader receives in a candidate, given its number and what rounding
            left of that; None where rounding does no harm.
        nested: Whether a candidate cuts the edges before it too.
    """

    def __init__(
        self,
        reader: int,
        before: Stream,
        gaps: Iterator[Stream],
        exact: Callable[[int, Stream], Stream] | None = None,
        *,
        nested: bool,
    ) -> None:
        self.reader = reader
        self._nested, self._exact = nested, exact
        self._before, self._gaps = before, gaps
        self._groups: list[Candidates] = []

    def groups(self) -> Iterator[Candidates]:
        """Yield what the reader receives, some candidates at a time."""
        yield from self._groups
        while gaps := list(islice(self._gaps, self._size)):
            self._groups.append(self._cut(gaps))
            yield self._groups[-1]

    def received(self, candidate: int) -> Stream:
        """Return what the reader receives in one candidate."""
        group, row = divmod(candidate, self._size)
        return next(islice(self.groups(), group, None))[row].clone()

    @property
    def _size(self) -> int:
        return group_size(self._before)

    def _cut(self, gaps: Sequence[Stream]) -> Candidates:
        cut = self._before.new_empty(len(gaps), *self._before.shape)
        first = sum(len(group) for group in self._groups)
        for number, (stream, gap) in enumerate(zip(cut, gaps, strict=True), first):
            torch.add(self._before, gap, out=stream)
            if self._exact is not None:
                stream.copy_(self._exact(number, stream))
            if self._nested:
                self._before = stream
        return cut


def group_size(stream: Float[Tensor, "*_"]) -> int:
    """Return how many candidates to work on at once, given what one of them has."""
    together = sizes_of(stream.device).candidates
    return max(1, together // stream.numel())


def candidates_at_once(numbers: int) -> int:
    """Return how many candidates to evaluate together, given what a stream of one of them has."""
    return max(1, min(_MOST_CANDIDATES, _CANDIDATE_FLOATS // numbers))


def next_width(width: int, *, any_kept: bool) -> int:
    """Return how many edges to test ahead, given how many there were and how that ended."""
    return max(_LEAST_WIDTH, width // 2) if any_kept else width + width // 2


def evaluations(kept: Sequence[bool], most: int) -> int:
    """Return how many cuts are evaluated to test edges of which these are kept, `most` at a time.

    They are more than the edges: what was evaluated after an edge that is kept is evaluated again.
    """
    done, width, evaluated = 0, FIRST_WIDTH, 0
    while done < len(kept):
        batch = kept[done : done + min(width, most)]
        evaluated += len(batch)
        done += batch.index(True) + 1 if any(batch) else len(batch)
        width = next_width(min(width, most), any_kept=any(batch))
    return evaluated
