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

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import groupby
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import SINGLE_PORTS, Block, Graph, SinglePort, single_ports
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Heads, Run, Seen, Stream, attend
from circuitfind.models.readings import LinearNorm, Reading

Streams = Float[Tensor, "reader batch pos d_model"]
Projected = dict[SinglePort, Heads]


@runtime_checkable
class Received(Protocol):
    """The gradient of the summed loss at what some readers of a block receive."""

    @property
    def readers(self) -> Sequence[int]:
        """Return their indices."""
        ...

    def total(self) -> Stream:
        """Return the sum over readers."""
        ...

    def write(self, prompts: slice, out: Streams) -> None:
        """Write the gradients at all readers, on some of the prompts, into a tensor."""
        ...


class BlockGradients(NamedTuple):
    """The gradients of the summed loss at a block.

    Attributes:
        block: The block.
        written: At what any of its writers writes; of the logits, at what they read.
        received: At what its readers receive.
    """

    block: Block
    written: Stream
    received: tuple[Received, ...]


class _Whole(NamedTuple):
    """The gradient at what one reader receives, kept as it is."""

    readers: Sequence[int]
    stream: Stream

    def total(self) -> Stream:
        return self.stream

    def write(self, prompts: slice, out: Streams) -> None:
        out[0] = self.stream[prompts]


class _ThroughPorts(NamedTuple):
    """The gradients at what all heads of a block receive by one port, or by several as one."""

    readers: Sequence[int]
    ports: Sequence["_ThroughReadings | _ThroughModel"]

    def total(self) -> Stream:
        return reduce(torch.add, (port.total() for port in self.ports))

    def write(self, prompts: slice, out: Streams) -> None:
        self.ports[0].write(prompts, out)
        for port in self.ports[1:]:
            also = torch.empty_like(out)
            port.write(prompts, also)
            out += also


class _ThroughReadings(NamedTuple):
    """The gradients at what all heads of a block receive by one port, as `Reading.pulled` says.

    Attributes:
        norm: What all heads norm the stream with.
        centred: The stream, centred.
        weights: The map of each head.
        arrived: The gradient at each head's query, key or value, times the norm's factor.
        along: How much of the centred stream each head's gradient has for the norm's factor.
    """

    norm: LinearNorm
    centred: Stream
    weights: Sequence[Float[Tensor, "d_model d_head"]]
    arrived: Heads
    along: Float[Tensor, "head batch pos 1"]

    @classmethod
    def of(
        cls, readings: Sequence[Reading], stream: Stream, projected: Heads, arrived: Heads
    ) -> "_ThroughReadings":
        """Keep what arrived at the queries, keys or values of heads."""
        norm = readings[0].norm
        normed = norm.apart(stream)
        constants = torch.stack([reading.constant for reading in readings])[:, None, None]
        weights = [reading.weights[0] for reading in readings]
        along = norm.along(arrived, projected - constants, normed)
        return cls(norm, normed.centred, weights, arrived * normed.factor, along)

    def total(self) -> Stream:
        side_by_side = self.arrived.permute(1, 2, 0, 3).flatten(2)
        product = side_by_side @ torch.cat(list(self.weights), dim=1).T
        return self.norm.pulled_(product, self.centred, self.along.sum(0))

    def write(self, prompts: slice, out: Streams) -> None:
        for arrived, weight, own in zip(self.arrived, self.weights, out, strict=True):
            torch.mm(arrived[prompts].flatten(0, 1), weight.T, out=own.view(-1, own.shape[-1]))
        self.norm.pulled_(out, self.centred[prompts], self.along[:, prompts])


class _ThroughModel(NamedTuple):
    """The same where it is not known how the heads read."""

    model: ResidualModel
    layer: int
    port: SinglePort
    stream: Stream
    arrived: Heads

    def total(self) -> Stream:
        leaf = self.stream.clone()
        return self._pulled(leaf, leaf.requires_grad_().expand(len(self.arrived), *leaf.shape))

    def write(self, prompts: slice, out: Streams) -> None:
        leaf = self.stream[prompts].repeat(len(self.arrived), 1, 1, 1).requires_grad_()
        out.copy_(self._pulled(leaf, leaf, prompts))

    def _pulled(self, leaf: Tensor, streams: Streams, prompts: slice = slice(None)) -> Tensor:
        with torch.enable_grad():
            projected = self.model.project(self.layer, self.port, range(len(streams)), streams)
        return torch.autograd.grad(projected, leaf, self.arrived[:, prompts])[0]


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
                arrived = reading.pulled(arrived, leaf.detach(), reading.norm.apart(stream))
            return (_Whole(block.readers, arrived),)
        projected = self._projected.pop(block.name, None) or self._project_all(block, stream)
        at_projected = self._at_projected(block, projected, gradient)
        through = {
            port: self._through_projection(block, port, stream, projected[port], arrived)
            for port, arrived in at_projected.items()
        }
        return tuple(
            _ThroughPorts(tuple(readers), [through[each] for each in single_ports(port)])
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
        self, block: Block, port: SinglePort, stream: Stream, projected: Heads, arrived: Heads
    ) -> _ThroughReadings | _ThroughModel:
        """Return how gradients at projected values lead back to what each head's port reads."""
        found = [self.model.reading(block.layer, port, head) for head in range(len(arrived))]
        readings = [reading for reading in found if reading is not None]
        if len(readings) < len(found) or any(r.norm is not readings[0].norm for r in readings):
            return _ThroughModel(self.model, block.layer, port, stream, arrived)
        return _ThroughReadings.of(readings, stream, projected, arrived)
