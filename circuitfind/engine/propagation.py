"""Changes on their way from writers to readers, along kept edges.

A change holds the positions at which its writer matters; a reader takes those at which it matters
itself. Readers that the same writers reach receive one and the same tensor.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.state import Candidates, ChunkState
from circuitfind.engine.virtual_weights import Moved

CandidateHeads = Float[Tensor, "candidate batch _span d_head"]


@dataclass
class Changes:
    """What changes in a state that candidates start from.

    Attributes:
        state: Says which edges are kept, and at how many positions readers matter.
        pending: Changes that readers have yet to receive.
        received: Changes that they received.
        senders: For readers that received what writers sent, and that alone, these writers.
        sent: Changes of what writers write.
        moved: Changes of what heads mix.
    """

    state: ChunkState
    pending: dict[int, Candidates] = field(default_factory=dict)
    received: dict[int, Candidates] = field(default_factory=dict)
    senders: dict[int, tuple[int, ...]] = field(default_factory=dict)
    sent: dict[int, Candidates] = field(default_factory=dict)
    moved: dict[int, CandidateHeads] = field(default_factory=dict)

    def receive(self, readers: Sequence[int]) -> list[int]:
        """Bring what these readers receive up to date; return those that received a change."""
        live = [reader for reader in readers if self.state.spans.readers[reader]]
        self._collect(live)
        reached = [reader for reader in live if reader in self.pending]
        for reader in reached:
            self.received[reader] = self.pending.pop(reader)
        return reached

    def of_heads(self, reader: int) -> Moved:
        """Return what a reader received as a change of what its senders mix, all of them heads."""
        senders, change = self.senders[reader], self.received[reader]
        z = [self.moved[writer][:, :, -change.shape[-2] :] for writer in senders]
        return Moved(senders, torch.cat(z, dim=-1), change)

    def _collect(self, readers: Sequence[int]) -> None:
        """Add up, for each reader, the changes that reach it."""
        writers = list(self.sent)
        arriving = self.state.kept[np.ix_(writers, readers)]
        sums: dict[tuple[tuple[int, ...], int], Candidates] = {}
        for column in np.flatnonzero(arriving.any(axis=0)).tolist():
            reader = readers[column]
            senders = tuple(writers[row] for row in np.flatnonzero(arriving[:, column]))
            span = int(self.state.spans.readers[reader])
            if (senders, span) not in sums:
                sums[senders, span] = self._sum(senders, span)
            change = sums[senders, span]
            if reader in self.pending:
                self.pending[reader] = self.pending[reader] + change
            else:
                self.pending[reader], self.senders[reader] = change, senders

    def _sum(self, writers: Sequence[int], span: int) -> Candidates:
        first, *others = (self.sent[writer][:, :, -span:] for writer in writers)
        if not others:
            return first
        total = first + others[0]
        for change in others[1:]:
            total += change
        return total


def alike(indices: Sequence[int], trait: Callable[[int], Hashable]) -> list[list[int]]:
    """Put indices that share a trait together, in their order."""
    groups: dict[Hashable, list[int]] = {}
    for index in indices:
        groups.setdefault(trait(index), []).append(index)
    return list(groups.values())
