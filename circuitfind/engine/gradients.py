"""The gradient of the loss at what every reader receives, from one pass forward and one back.

With every edge kept, all heads of a block read one stream, so the forward pass needs one stream and
not one per reader. On the way back the blocks are taken one by one: an MLP gives the gradient at
its input; attention is run again from its queries, keys and values, and what arrives there is
pulled back through each port's projection and norm. Where it is known how a component reads
(`models/readings.py`), this takes one product and no second run. Their sum goes on to earlier
blocks. What each head's port receives is kept as what arrives at its query, key or value, and what
a head writes as its z (`d_head` elements a position each, not `d_model`); the gradients of single
readers are formed from that, some prompts at a time.

A run that was made before is walked back from the streams that entered its blocks, all else being
computed again. With `checkpoint` this holds for the MLPs of every run.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import groupby
from operator import add

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import SINGLE_PORTS, Block, Graph, SinglePort, single_ports
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Heads, Run, Seen, Stream, attend
from circuitfind.models.readings import LinearNorm

Streams = Float[Tensor, "reader batch pos d_model"]
Projected = dict[SinglePort, Heads]


class Received(ABC):
    """The gradient of the summed loss at what some readers of a block receive.

    Args:
        readers: Their indices.
    """

    def __init__(self, readers: Sequence[int]) -> None:
        self.readers = tuple(readers)

    @abstractmethod
    def total(self) -> Stream:
        """Return the sum over readers."""

    @abstractmethod
    def write(self, prompts: slice, out: Streams) -> None:
        """Write the gradients at all readers, on some of the prompts, into a tensor."""

    def __add__(self, other: "Received") -> "Received":
        """Return the sum with the gradients at the same readers in another run."""
        return _Sum(self, other)


@dataclass(frozen=True)
class BlockGradients:
    """The gradients of the summed loss at a block.

    Attributes:
        block: The block.
        written: At what any of its writers writes; of the logits, at what they read.
        received: At what its readers receive.
    """

    block: Block
    written: Stream
    received: tuple[Received, ...]

    def __add__(self, other: "BlockGradients") -> "BlockGradients":
        """Return the sum with the gradients at the same block in another run."""
        received = map(add, self.received, other.received)
        return BlockGradients(self.block, self.written + other.written, tuple(received))


class _Sum(Received):
    """The sum of gradients at the same readers."""

    def __init__(self, *parts: Received) -> None:
        super().__init__(parts[0].readers)
        self._parts = parts

    def total(self) -> Stream:
        return reduce(add, (part.total() for part in self._parts))

    def write(self, prompts: slice, out: Streams) -> None:
        self._parts[0].write(prompts, out)
        for part in self._parts[1:]:
            also = torch.empty_like(out)
            part.write(prompts, also)
            out += also


class _Whole(Received):
    """The gradient at what one reader receives, kept as it is."""

    def __init__(self, readers: Sequence[int], stream: Stream) -> None:
        super().__init__(readers)
        self._stream = stream

    def total(self) -> Stream:
        return self._stream

    def write(self, prompts: slice, out: Streams) -> None:
        out[0] = self._stream[prompts]

    def __add__(self, other: Received) -> Received:
        assert isinstance(other, _Whole)
        return _Whole(self.readers, self._stream + other._stream)


class _ThroughReadings(Received):
    """The gradients at what all heads of a block receive by one port, where these read alike.

    They are kept as what arrived at the queries, keys or values (see `Reading.pulled`).

    Args:
        readers: The readers.
        norm: What all heads norm the stream with.
        weights: The map of each head.
        arrived: The gradient at each head's query, key or value, times the norm's factor.
        along: A centred stream, and how much of it each head's gradient has for the norm's factor;
            several, if runs were summed.
    """

    def __init__(
        self,
        readers: Sequence[int],
        norm: LinearNorm,
        weights: Sequence[Float[Tensor, "d_model d_head"]],
        arrived: Heads,
        along: Sequence[tuple[Stream, Float[Tensor, "head batch pos 1"]]],
    ) -> None:
        super().__init__(readers)
        self._norm, self._weights, self._arrived, self._along = norm, weights, arrived, along

    def total(self) -> Stream:
        product = torch.zeros_like(self._along[0][0])
        for arrived, weight in zip(self._arrived, self._weights, strict=True):
            product.view(-1, len(weight)).addmm_(arrived.flatten(0, 1), weight.T)
        along = [(centred, shares.sum(0)) for centred, shares in self._along]
        return self._norm.pulled_(product, along)

    def write(self, prompts: slice, out: Streams) -> None:
        for arrived, weight, own in zip(self._arrived, self._weights, out, strict=True):
            torch.mm(arrived[prompts].flatten(0, 1), weight.T, out=own.view(-1, len(weight)))
        along = [(centred[prompts], shares[:, prompts]) for centred, shares in self._along]
        self._norm.pulled_(out, along)

    def __add__(self, other: Received) -> Received:
        assert isinstance(other, _ThroughReadings)
        arrived, along = self._arrived + other._arrived, [*self._along, *other._along]
        return _ThroughReadings(self.readers, self._norm, self._weights, arrived, along)


class _ThroughModel(Received):
    """The same where it is not known how the heads read."""

    def __init__(
        self,
        readers: Sequence[int],
        project: Callable[[Streams], Heads],
        stream: Stream,
        arrived: Heads,
    ) -> None:
        super().__init__(readers)
        self._project, self._stream, self._arrived = project, stream, arrived

    def total(self) -> Stream:
        leaf = self._stream.clone().requires_grad_()
        return self._pulled(leaf, leaf.expand(len(self._arrived), *leaf.shape), self._arrived)

    def write(self, prompts: slice, out: Streams) -> None:
        leaf = self._stream[prompts].repeat(len(self._arrived), 1, 1, 1).requires_grad_()
        out.copy_(self._pulled(leaf, leaf, self._arrived[:, prompts]))

    def _pulled(self, leaf: Tensor, streams: Streams, arrived: Heads) -> Tensor:
        with torch.enable_grad():
            projected = self._project(streams)
        return torch.autograd.grad(projected, leaf, arrived)[0]


class RecordedRun(Run):
    """A run with every edge kept that is remembered, and can be walked back.

    Args:
        model: The model.
        graph: Its graph.
        real: True at positions that are no padding; needed by bidirectional models only.
        entering: The streams of a run that was made before, if that is to be walked back.
        trace: Whether the run will be walked back, so that more of what it computes is kept.
        checkpoint: Whether nothing inside MLPs is kept for the way back.

    Attributes:
        entering: What entered the blocks of each stage, and the logits, by stage.
        values: By the name of a block: z of its heads, or what its MLP writes; not if it is to be
            walked back at once.
    """

    def __init__(
        self,
        model: ResidualModel,
        graph: Graph,
        real: Bool[Tensor, "batch pos"] | None = None,
        entering: Mapping[int, Stream] | None = None,
        *,
        trace: bool = False,
        checkpoint: bool = False,
    ) -> None:
        super().__init__(model, real, self._remember, graph)
        self.entering: dict[int, Stream] = dict(entering or {})
        self.values: dict[str, Float[Tensor, "writer batch pos width"]] = {}
        self._trace, self._checkpoint = trace, checkpoint
        self._projected: dict[str, Projected] = {}
        # Of each MLP, where it was run from and what it wrote, with the way from one to the other.
        self._written: dict[str, tuple[Tensor, Stream]] = {}

    def run(self, stream: Stream, first: int = 0) -> Stream:
        """Run from a stage on, given what enters it, and return the final stream."""
        with torch.no_grad():
            return super().run(stream, first)

    @property
    def final(self) -> Stream:
        """What the logits read."""
        return self.entering[self.graph.blocks[-1].stage]

    def _remember(self, seen: Seen, block: Block, values: Tensor) -> None:
        if seen == "entering":
            self.entering[block.stage] = values
        elif self._trace:
            if seen in ("q", "k", "v"):
                self._projected.setdefault(block.name, {})[seen] = values
        elif seen == "z":
            self.values[block.name] = values
        elif seen == "mlp":
            self.values[block.name] = values[None]

    def mlp(self, block: Block, stream: Stream) -> Stream:
        if not self._trace or self._checkpoint:
            return super().mlp(block, stream)
        self._written[block.name] = self._traced(block, stream)
        return self._written[block.name][1].detach()

    def _traced(self, block: Block, stream: Stream) -> tuple[Tensor, Stream]:
        """Run an MLP from its pre-activations, or from its input where these are not known."""
        reading = self.model.reading(block.layer, None)
        leaf = (stream.detach() if reading is None else reading.inner(stream)).requires_grad_()
        with torch.enable_grad():
            if reading is None:
                return leaf, self.model.mlp(block.layer, leaf)
            return leaf, reading.after(leaf)

    def gradients(self, at_final: Stream) -> Iterator[BlockGradients]:
        """Walk back from the logits, given the gradient there; frees what was kept for that."""
        logits = self.graph.blocks[-1]
        yield BlockGradients(logits, at_final, (_Whole(logits.readers, at_final),))
        for blocks in reversed(self.graph.stages):
            if (stream := self.entering.get(blocks[0].stage)) is None:
                return
            before = at_final.clone()
            for block in reversed(blocks):
                received = self._pulled(block, stream, at_final)
                for some in received:
                    before += some.total()
                yield BlockGradients(block, at_final, received)
            at_final = before
        yield BlockGradients(self.graph.blocks[0], at_final, ())

    def _pulled(self, block: Block, stream: Stream, gradient: Stream) -> tuple[Received, ...]:
        """Pull the gradient at what a block writes back to what its readers receive."""
        if block.kind == "mlp":
            kept = self._written.pop(block.name) if block.name in self._written else None
            leaf, written = kept or self._traced(block, stream)
            (arrived,) = torch.autograd.grad(written, leaf, gradient)
            reading = self.model.reading(block.layer, None)
            if reading is not None:
                arrived = reading.pulled(arrived, reading.norm.apart(stream))
            return (_Whole(block.readers, arrived),)
        projected = self._projected.pop(block.name, None) or self._project_all(block, stream)
        at_projected = self._at_projected(block, projected, gradient)
        return tuple(
            reduce(
                _Sum,
                (
                    self._through_projection(
                        block, each, tuple(readers), stream, projected[each], at_projected[each]
                    )
                    for each in single_ports(port)
                ),
            )
            for port, readers in groupby(block.readers, key=lambda r: self.graph.readers[r].port)
        )

    def _project_all(self, block: Block, stream: Stream) -> Projected:
        with torch.no_grad():
            return {port: self.projected(block, port, stream) for port in SINGLE_PORTS}

    def _at_projected(self, block: Block, projected: Projected, gradient: Stream) -> Projected:
        """Return the gradient at the queries, keys and values of a block."""
        leaves = [projected[port].detach().requires_grad_() for port in SINGLE_PORTS]
        with torch.enable_grad():
            query, key, value = leaves
            z = attend(self.model, block.layer, query, key, value, self.real)
            written = self.model.attention_output(block.layer, z)
        return dict(zip(SINGLE_PORTS, torch.autograd.grad(written, leaves, gradient), strict=True))

    def _through_projection(
        self,
        block: Block,
        port: SinglePort,
        readers: Sequence[int],
        stream: Stream,
        projected: Heads,
        arrived: Heads,
    ) -> Received:
        """Return the gradients at what a port of all heads receives, given those at what it gives.

        Args:
            block: The heads' block.
            port: Their port.
            readers: Their readers.
            stream: What all of them receive.
            projected: Their queries, keys or values.
            arrived: The gradient at these.
        """
        found = [self.model.reading(block.layer, port, head) for head in range(len(arrived))]
        readings = [reading for reading in found if reading is not None]
        if len(readings) < len(found) or any(r.norm is not readings[0].norm for r in readings):
            project = partial(self.model.project, block.layer, port, range(len(arrived)))
            return _ThroughModel(readers, project, stream, arrived)
        norm = readings[0].norm
        normed = norm.apart(stream)
        constants = torch.stack([reading.constant for reading in readings])[:, None, None]
        along = norm.along(arrived, projected - constants, normed)
        weights = [reading.weights[0] for reading in readings]
        return _ThroughReadings(
            readers, norm, weights, arrived * normed.factor, [(normed.centred, along)]
        )
