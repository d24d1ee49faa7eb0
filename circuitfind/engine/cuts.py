"""Candidates that cut edges into one reader, and what it receives in each of them.

The streams of all candidates together would be the largest thing that a search holds. What a head
makes of them is smaller by the number of heads, so they are made, used and forgotten a few at a
time, few enough to stay in the processor's cache.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

Stream = Float[Tensor, "batch _ d_model"]
Candidates = Float[Tensor, "candidate batch _ d_model"]

_TOGETHER = {"cpu": 1 << 19}
"""How many numbers of candidates are in work at once; 2 MiB in float32."""

_TOGETHER_ON_ACCELERATORS = 1 << 25


@dataclass(frozen=True)
class Cuts:
    """Some edges into one reader, cut one after the other or each alone.

    Attributes:
        reader: Index of the reader.
        before: What it receives with none of them cut.
        written: What each edge's writer writes, at the same positions.
        replaced: What each edge carries when it is cut.
        nested: Whether a candidate cuts the edges before it too.
    """

    reader: int
    before: Stream
    written: Sequence[Stream]
    replaced: Sequence[Stream]
    nested: bool

    def groups(self) -> Iterator[Candidates]:
        """Yield what the reader receives, some candidates at a time."""
        size, streams = group_size(self.before), self._streams()
        while group := list(islice(streams, size)):
            yield torch.stack(group)

    def received(self, candidate: int) -> Stream:
        """Return what the reader receives in one candidate, to the last bit as in its group."""
        return next(islice(self._streams(), candidate, None))

    def _streams(self) -> Iterator[Stream]:
        stream = self.before
        for written, replaced in zip(self.written, self.replaced, strict=True):
            cut = torch.sub(replaced, written).add_(stream)
            if self.nested:
                stream = cut
            yield cut


def group_size(stream: Float[Tensor, "*_"]) -> int:
    """Return how many candidates to work on at once, given what one of them has."""
    together = _TOGETHER.get(stream.device.type, _TOGETHER_ON_ACCELERATORS)
    return max(1, together // stream.numel())
