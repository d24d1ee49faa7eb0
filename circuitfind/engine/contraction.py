"""Scores of edges: the gradient at what their readers receive, times a change of their writers.

    score(w -> r) = sum over prompts and positions of (change of w) . (d loss / d x_r)

Prompts are taken some at a time. Of these the changes of all writers are formed once, and the
gradients of some dozen readers at a time, so nothing of size edges x prompts is ever held.

With places, the sum over positions is made for each place by itself: positions are put in the order
of their places first, so all places together are the same products as one sum.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitfind.engine.received import BlockGradients, Received
from circuitfind.engine.sizes import sizes_of
from circuitfind.engine.written import Written, writing_blocks
from circuitfind.graph import Block
from circuitfind.places import Places

_READERS_TOGETHER = 32
"""How many readers are gathered before they meet the writers, to make products worth their time."""


class _Meeting(NamedTuple):
    """Some readers, and the writers that can come before them."""

    writers: Sequence[int]
    received: Sequence[Received]

    @property
    def readers(self) -> list[int]:
        return [reader for some in self.received for reader in some.readers]


def contracted(
    changes: Written,
    gradients: Sequence[BlockGradients],
    blocks: Sequence[Block] | None = None,
    places: Places | None = None,
) -> Float[Tensor, "writer reader"]:
    """Return the scores of all edges from the writers of some blocks, or of all, over all prompts.

    Args:
        changes: The changes of all writers, on each prompt and position.
        gradients: The gradients, from the logits back.
        blocks: The blocks of the writers, in the order in which they run; by default all.
        places: The places that edges tell apart: positions of each are summed by themselves.
    """
    graph = changes.graph
    scores = torch.zeros(graph.edge_mask.shape, dtype=torch.float64)
    blocks = writing_blocks(graph) if blocks is None else blocks
    like, meetings = gradients[0].written, list(_meetings(gradients, blocks))
    n_written = sum(len(block.writers) for block in blocks)
    n_received = max((len(meeting.readers) for meeting in meetings), default=0)
    most = sizes_of(like.device).products // ((n_written + n_received) * like[0].numel())
    size = min(len(like), max(1, most))
    # Made once: fresh memory takes longer to get than the products take.
    written, received = (like.new_empty(n, size, *like.shape[1:]) for n in (n_written, n_received))
    for prompts in (slice(start, start + size) for start in range(0, len(like), size)):
        n_prompts = len(like[prompts])
        some, formed = changes.rows(prompts), _first(written, n_written, n_prompts)
        parts = _Parts(None if places is None else places.rows(prompts))
        rows = formed.split([len(block.writers) for block in blocks])
        for block, out in zip(blocks, rows, strict=True):
            out.copy_(parts.sorted(some.of(block).expand_as(out)))
        for meeting in meetings:
            readers = meeting.readers
            found = _first(received, len(readers), n_prompts)
            for each, out in zip(
                meeting.received,
                found.split([len(each.readers) for each in meeting.received]),
                strict=True,
            ):
                each.write(prompts, out)
            found = parts.sorted(found)
            for place, part in enumerate(parts.of):
                product = _flat(formed, part)[: len(meeting.writers)] @ _flat(found, part).T
                ends = [reader * graph.n_places + place for reader in readers]
                scores[np.ix_(meeting.writers, ends)] += product.double().cpu()
    return scores.masked_fill(~graph.edge_mask, 0)


class _Parts:
    """The positions of some prompts, split by place.

    Args:
        places: The places; None for one part with all positions.

    Attributes:
        of: For each place, which of the sorted positions are its own.
    """

    def __init__(self, places: Places | None) -> None:
        self._order: Int[Tensor, " position"] | None = None
        self.of = [slice(None)]
        if places is not None:
            of = places.of.flatten()
            self._order = of.argsort(stable=True)
            ends = of.bincount(minlength=len(places.names)).cumsum(0).tolist()
            self.of = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]

    def sorted(
        self, streams: Float[Tensor, "stream batch pos d_model"]
    ) -> Float[Tensor, "stream batch pos d_model"]:
        """Return streams with the positions of all prompts in the order of their places."""
        if self._order is None:
            return streams
        return streams.flatten(1, 2)[:, self._order].view(streams.shape)


def _flat(
    streams: Float[Tensor, "stream batch pos d_model"], positions: slice
) -> Float[Tensor, "stream elements"]:
    return streams.flatten(1, 2)[:, positions].flatten(1)


def _first(
    buffer: Float[Tensor, "room most pos d_model"], n: int, n_prompts: int
) -> Float[Tensor, "n n_prompts pos d_model"]:
    """Return room for some streams on some prompts, at the beginning of a buffer."""
    shape = n, n_prompts, *buffer.shape[2:]
    return buffer.flatten()[: n * n_prompts * buffer[0, 0].numel()].view(shape)


def _meetings(gradients: Iterable[BlockGradients], blocks: Sequence[Block]) -> Iterator[_Meeting]:
    """Gather readers, from the logits back."""
    held: list[Received] = []
    stage = 0
    for found in gradients:
        for received in found.received:
            stage = stage if held else found.block.stage
            held.append(received)
            if sum(len(some.readers) for some in held) >= _READERS_TOGETHER:
                yield _met(held, stage, blocks)
                held = []
    if held:
        yield _met(held, stage, blocks)


def _met(held: Sequence[Received], stage: int, blocks: Sequence[Block]) -> _Meeting:
    before = [writer for block in blocks if block.stage < stage for writer in block.writers]
    return _Meeting(before, held)
