"""What a pass with some edges cut has sent along edges so far, and what readers receive of it."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.models.forward import Stream
from circuitfind.places import Places


class Changes:
    """What was sent along edges so far, and what readers receive of it.

    Sums are remembered until the next block has asked for its own: readers that are sent the same
    share one, and a reader that is sent all that one before it was needs only what came since.

    Args:
        n: How many changes will be sent at most.
        like: A stream of the same shape.
        n_readers: How many readers there are.
        places: The places that edges tell apart.
    """

    def __init__(self, n: int, like: Stream, n_readers: int, places: Places | None = None) -> None:
        self._places, self._n_places = places, 1 if places is None else len(places.names)
        self._sent = like.new_empty(n, *like.shape)
        self._goes = np.zeros((n, n_readers), dtype=bool)
        self._n = 0
        # By which of the changes are summed, of so many.
        self._sums: dict[bytes, Stream] = {}
        self._of, self._earlier, self._earlier_of = 0, dict[bytes, Stream](), 0

    def send(
        self, changes: Float[Tensor, "writer _batch _pos d_model"], along: NDArray[np.bool_]
    ) -> None:
        """Send the changes of some writers to the readers of each."""
        rows = slice(self._n, self._n + len(changes))
        self._sent[rows], self._goes[rows] = changes, along
        self._n = rows.stop

    def received(
        self, readers: Sequence[int], base: Stream
    ) -> Float[Tensor, "reader batch pos d_model"]:
        """Return what each reader receives beside a stream; one tensor if all receive the same.

        Args:
            readers: Readers of the merged graph.
            base: The stream.
        """
        if self._of != self._n:
            self._earlier, self._earlier_of = self._sums, self._of
            self._sums, self._of = {}, self._n
        n = self._n_places
        here = [reader * n + place for reader in readers for place in range(n)]
        columns = {column.tobytes(): column for column in self._goes[: self._n, here].T}
        self._sum({key: each for key, each in columns.items() if key not in self._sums})
        # By what arrives at each place.
        keys = [
            tuple(self._goes[: self._n, reader * n + place].tobytes() for place in range(n))
            for reader in readers
        ]
        sums = {key: self._merged(key) + base for key in dict.fromkeys(keys)}
        if len(sums) == 1:
            return next(iter(sums.values())).expand(len(readers), -1, -1, -1)
        return torch.stack([sums[key] for key in keys])

    def _merged(self, by_place: tuple[bytes, ...]) -> Stream:
        """Return one stream, at each place the sum of its own changes."""
        if len(set(by_place)) == 1 or self._places is None:
            return self._sums[by_place[0]]
        return self._places.merged(torch.stack([self._sums[key] for key in by_place]))[0]

    def _sum(self, columns: Mapping[bytes, NDArray[np.bool_]]) -> None:
        """Sum changes, those of each column."""
        fresh: dict[bytes, NDArray[np.bool_]] = {}
        for key, column in columns.items():
            earlier = self._earlier.get(column[: self._earlier_of].tobytes())
            if earlier is None:
                fresh[key] = column
            else:
                since = np.flatnonzero(column[self._earlier_of :]) + self._earlier_of
                self._sums[key] = earlier + self._sent[since].sum(0)
        if fresh:
            # One product for all readers: a sum writer by writer would read and write far more.
            weights = torch.from_numpy(np.stack(list(fresh.values()))).to(self._sent)
            sums = (weights @ self._sent[: self._n].flatten(1)).view(-1, *self._sent.shape[1:])
            self._sums |= dict(zip(fresh, sums, strict=True))
