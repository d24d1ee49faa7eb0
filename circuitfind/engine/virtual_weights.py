"""Virtual weights: the output weights of some heads times the input weights of a reader.

What a head writes is as wide as the stream, but made from its z, `d_head` elements a position. If
only some heads changed, the pre-activation of a reader that is linear but for its norm's scale
(`models/readings.py`) changes by `dz @ (W_O W_in)`: `d_head` columns a head instead of `d_model`
(Elhage et al. 2021). The product with the stream before the change goes from state to state while
edges into one reader are tested, so that whole streams are multiplied once for all of them.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.candidates import group_size
from circuitfind.engine.state import Candidates, PortReading, Stream
from circuitfind.graph import Graph
from circuitfind.models.base import ResidualModel
from circuitfind.models.readings import Reading

_SHARE = 1 / 4
"""The share of the memory for virtual weights that those of one use may take."""

_WORTH = 1 << 23
"""Multiplications that must be saved: fewer take no longer than the steps beside them."""


class Moved(NamedTuple):
    """A change of the z of some heads.

    Attributes:
        writers: The heads' indices.
        z: The changes, side by side.
        change: What they write for it together.
    """

    writers: tuple[int, ...]
    z: Float[Tensor, "candidate batch _span mixed"]
    change: Candidates


class Through(NamedTuple):
    """Readers that all receive one change, which comes from the z of some heads.

    Attributes:
        ports: The readers with how they read, once for each port, all equally wide.
        streams: What these readers receive without the change, at the positions that matter.
        products: The linear maps of that.
        moved: The change.
    """

    ports: tuple[PortReading, ...]
    streams: tuple[Stream, ...]
    products: tuple[Float[Tensor, "batch _span _width"], ...]
    moved: Moved

    @property
    def readings(self) -> tuple[Reading, ...]:
        """How the ports read."""
        return tuple(reading for _, reading in self.ports)


class VirtualWeights:
    """Virtual weights, remembered as long as there is room.

    Args:
        model: Gives the weights.
        graph: What the indices of writers refer to.
        most: How many elements are remembered.
    """

    def __init__(self, model: ResidualModel, graph: Graph, most: int) -> None:
        self._model, self._graph = model, graph
        self._known = Recent(most)

    def pays(self, writers: Sequence[int]) -> bool:
        """Whether all writers are heads with, together, at most d_model / 2 elements of z."""
        shape = self._graph.shape
        return (
            bool(writers)
            and not shape.heads_share_norm
            and 2 * len(writers) * shape.d_head <= shape.d_model
            and all(self._graph.writers[writer].kind == "head" for writer in writers)
        )

    def saves(
        self, writers: Sequence[int], readings: Sequence[Reading], change: Candidates
    ) -> bool:
        """Whether a change that heads make is worth reading through virtual weights.

        These must be few enough to be remembered with others: multiplied anew for every use they
        would take longer than they save.
        """
        mixed = len(writers) * self._graph.shape.d_head
        width = sum(reading.width for reading in readings)
        *rows, d_model = change.shape
        return (
            mixed * width <= _SHARE * self._known.most
            and prod(rows) * (d_model - mixed) * width >= _WORTH
        )

    def read(
        self, through: Through
    ) -> Iterator[list[Float[Tensor, "candidate batch _span _width"]]]:
        """Yield the q, k, v (or pre-activations) of each port, a group of candidates at a time."""
        readings, moved = through.readings, through.moved
        weights = self._product(readings, moved.writers)
        before = torch.cat(through.products, dim=-1)
        # Readers of one stage have one norm.
        norm = readings[0].norm
        centred = {id(stream): norm.centre(stream) for stream in through.streams}
        size = group_size(moved.change[0])
        for z, change in zip(moved.z.split(size), moved.change.split(size), strict=True):
            products = z @ weights
            products += before
            change = norm.centre(change)
            factors = {each: norm.factor(stream + change) for each, stream in centred.items()}
            parts = products.chunk(len(readings), dim=-1)
            yield [
                reading.read(part, factors[id(stream)])
                for reading, stream, part in zip(readings, through.streams, parts, strict=True)
            ]

    def carried(self, throughs: Sequence[Through], candidate: int) -> dict[PortReading, Tensor]:
        """Return the linear maps of what readers receive with the change of one candidate."""
        carried: dict[PortReading, Tensor] = {}
        for through in throughs:
            weights = self._product(through.readings, through.moved.writers)
            changes = (through.moved.z[candidate] @ weights).chunk(len(through.ports), dim=-1)
            sums = (before + new for before, new in zip(through.products, changes, strict=True))
            carried |= dict(zip(through.ports, sums, strict=True))
        return carried

    def _product(
        self, readings: tuple[Reading, ...], writers: tuple[int, ...]
    ) -> Float[Tensor, "mixed _width"]:
        """Return the map from the z of heads to the pre-activations of readers, side by side."""
        key = readings, writers
        if (known := self._known.get(key)) is None:
            outputs = torch.cat([self._output(writer) for writer in writers])
            outputs = readings[0].norm.centre(outputs)
            known = torch.cat([reading.linear(outputs) for reading in readings], dim=-1)
            self._known.put(key, known)
        return known

    def _output(self, writer: int) -> Float[Tensor, "d_head d_model"]:
        """Return a head's output weights: what it writes for each unit vector of z."""
        head = self._graph.writers[writer]
        assert head.layer is not None and head.index is not None
        shape, model = self._graph.shape, self._model
        each = torch.eye(shape.d_head, dtype=model.dtype, device=model.device)
        return model.output(head.layer, [head.index], each[None, None])[0, 0]


class Recent:
    """Tensors by key, as many of those used last as there is room for.

    Attributes:
        most: How many elements are remembered.
    """

    def __init__(self, most: int) -> None:
        self.most, self._held = most, 0
        self._known: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable) -> Tensor | None:
        """Return what is remembered, or None."""
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    def put(self, key: Hashable, tensor: Tensor) -> None:
        """Remember a tensor, and forget those that were not used for longest.

        One that takes more room than there is makes others give way for nothing, and is not kept.
        """
        if key in self._known:
            self._held -= self._known.pop(key).numel()
        if tensor.numel() > self.most:
            return
        self._known[key] = tensor
        self._held += tensor.numel()
        while self._held > self.most:
            self._held -= self._known.popitem(last=False)[1].numel()
