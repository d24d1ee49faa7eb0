"""Changes on their way from writers to readers, along kept edges.

Changes of units (neurons, latents) are held as changes of their activations, one number at a
position, and multiplied out for all of them that reach a reader together.

A change holds the positions at which its writer matters; a reader takes those at which it matters
itself. Readers that the same writers reach receive one and the same tensor. Readers are those of
the merged graph: what reaches one of them along edges at single places is put together here.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from circuitfind.engine.place_masks import PlaceMasks
from circuitfind.engine.state import Candidates, ChunkState
from circuitfind.engine.virtual_weights import Moved
from circuitfind.engine.written import total

CandidateHeads = Float[Tensor, "candidate batch _span d_head"]


AtSome = NDArray[np.bool_]
"""True for some places."""

Senders = tuple[int, ...]
"""Some writers."""


class Along(NamedTuple):
    """Some writers, and the places at which edges lead from them to one input.

    Attributes:
        senders: The writers.
        places: The places.
        span: At how many positions, counted from the end, the input matters at these places.
    """

    senders: Senders
    places: tuple[int, ...]
    span: int


class MovedUnits(NamedTuple):
    """Changes of the activations of some units of a block.

    Attributes:
        writers: The units.
        activations: The change of each, in the last axis.
    """

    writers: Senders
    activations: Float[Tensor, "candidate batch _span unit"]


@dataclass
class Changes:
    """What changes in a state that candidates start from.

    Attributes:
        state: Says which edges are kept, and at how many positions readers matter.
        masks: At which positions the places are; None where edges do not tell places apart.
        pending: Changes that readers have yet to receive.
        received: Changes that they received.
        senders: For readers that received what writers sent at some places, and that alone, these
            writers and places.
        received_at: The places at which readers received them.
        sent: Changes of what writers write.
        sent_at: The places at which these are.
        moved: Changes of what heads mix.
        units: Changes of units, by writer.
        rows: Returns what units of a block write when their activation is 1.
    """

    state: ChunkState
    masks: PlaceMasks | None = None
    rows: Callable[[Senders], Float[Tensor, "unit d_model"]] | None = None
    pending: dict[int, Candidates] = field(default_factory=dict)
    received: dict[int, Candidates] = field(default_factory=dict)
    received_at: dict[int, AtSome] = field(default_factory=dict)
    senders: dict[int, Along] = field(default_factory=dict)
    sent: dict[int, Candidates] = field(default_factory=dict)
    sent_at: dict[int, AtSome] = field(default_factory=dict)
    moved: dict[int, CandidateHeads] = field(default_factory=dict)
    units: dict[int, MovedUnits] = field(default_factory=dict)

    def receive(self, readers: Sequence[int]) -> list[int]:
        """Bring what these readers receive up to date; return those that received a change."""
        live = [reader for reader in readers if self.state.spans.inputs[reader]]
        self._collect(live)
        reached = [reader for reader in live if reader in self.pending]
        for reader in reached:
            self.received[reader] = self.pending.pop(reader)
        return reached

    def of_heads(self, reader: int) -> Moved:
        """Return what a reader received as a change of what its senders mix, all of them heads."""
        along, change = self.senders[reader], self.received[reader]
        z = torch.cat([self.moved[w][:, :, -along.span :] for w in along.senders], dim=-1)
        return Moved(along.senders, self.at_places(along.places, z, change.shape[-2]), change)

    def _collect(self, readers: Sequence[int]) -> None:
        """Add up, for each reader, the changes that reach it."""
        writers = [*self.sent, *self.units]
        n_places, spans = self.state.graph.n_places, self.state.spans
        every = (self.state.edges & (spans.outer_readers > 0)).reshape(
            -1, len(spans.inputs), n_places
        )
        arriving = every[np.ix_(writers, readers)]
        if self.masks is not None and writers:
            arriving &= np.stack([self.sent_at[writer] for writer in writers])[:, None]
        sums: dict[tuple[tuple[Along, ...], int], Candidates] = {}
        for column in np.flatnonzero(arriving.any(axis=(0, 2))).tolist():
            reader = readers[column]
            along = self._along(reader, writers, arriving[:, column])
            if self.masks is not None:
                self.reaches(reader, np.asarray(arriving[:, column].any(axis=0)))
            span = int(spans.inputs[reader])
            if (along, span) not in sums:
                sums[along, span] = total(
                    self.at_places(each.places, self._sum(each.senders, each.span), span)
                    for each in along
                )
            change = sums[along, span]
            if reader in self.pending:
                self.pending[reader] = self.pending[reader] + change
            else:
                self.pending[reader] = change
                if len(along) == 1:
                    self.senders[reader] = along[0]

    def reaches(self, reader: int, places: AtSome) -> None:
        """Note at which places a change reaches a reader."""
        earlier = self.received_at.get(reader)
        self.received_at[reader] = places if earlier is None else earlier | places

    def _along(
        self, reader: int, writers: Sequence[int], arriving: Bool[np.ndarray, "writer place"]
    ) -> tuple[Along, ...]:
        """Return along which edges changes arrive: places together where the same writers send.

        Args:
            reader: Where they arrive.
            writers: Writers that sent something.
            arriving: Along which edges.
        """
        by_senders: dict[Senders, list[int]] = {}
        for place in np.flatnonzero(arriving.any(axis=0)).tolist():
            senders = tuple(writers[row] for row in np.flatnonzero(arriving[:, place]).tolist())
            by_senders.setdefault(senders, []).append(place)
        spans = self.state.spans.readers_at[reader]
        return tuple(
            Along(senders, tuple(places), int(spans[places].max()))
            for senders, places in by_senders.items()
        )

    def at_places(
        self, places: Sequence[int], change: Float[Tensor, "candidate batch _last width"], span: int
    ) -> Float[Tensor, "candidate batch _span width"]:
        """Return a change at some places, and 0 elsewhere, at a number of last positions."""
        if self.masks is None or len(places) == len(self.masks):
            return change
        last = change.shape[-2]
        change = change * self.masks.weights(places, last)
        return change if last == span else pad(change, (0, 0, span - last, 0))

    def _sum(self, writers: Sequence[int], span: int) -> Candidates:
        whole = [self.sent[writer][:, :, -span:] for writer in writers if writer in self.sent]
        units = [writer for writer in writers if writer in self.units]
        together = alike(units, lambda writer: id(self.units[writer]))
        first, *others = (*whole, *(self._product(some, span) for some in together))
        if not others:
            return first
        total = first + others[0]
        for change in others[1:]:
            total += change
        return total

    def _product(self, units: Sequence[int], span: int) -> Candidates:
        """Return what some units write together for their changes."""
        moved = self.units[units[0]]
        change = moved.activations[:, :, -span:]
        if len(units) < len(moved.writers):
            column = {unit: number for number, unit in enumerate(moved.writers)}
            change = change[..., [column[unit] for unit in units]]
        assert self.rows is not None
        return change @ self.rows(tuple(units))


def alike(indices: Sequence[int], trait: Callable[[int], Hashable]) -> list[list[int]]:
    """Put indices that share a trait together, in their order."""
    groups: dict[Hashable, list[int]] = {}
    for index in indices:
        groups.setdefault(trait(index), []).append(index)
    return list(groups.values())
