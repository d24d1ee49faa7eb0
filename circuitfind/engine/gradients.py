"""The gradient of the loss at what every reader receives, from one pass forward and one back.

With every edge kept, all heads of a block read one stream, so the forward pass needs one stream and
not one per reader. On the way back the blocks are taken one by one: what arrives at a block's
queries, keys and values, or at an MLP's pre-activations, is pulled back through their weights and
the norm. Where these are known (`models/readings.py`), this takes one product and no second run.
Their sum goes on to earlier blocks.

A run that was made before is walked back from the streams that entered its blocks: they are read,
mixed and written once more. With `checkpoint` this holds for every run.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial, reduce
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.engine.received import (
    BlockGradients,
    Received,
    Sum,
    ThroughModel,
    ThroughReadings,
    ThroughUnits,
    Whole,
)
from circuitfind.graph import Block, Graph, Input, single_ports
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Inputs, Rows, Run, Seen, Stream, ports_of, read
from circuitfind.models.units import transcoder_of


class RecordedRun(Run):
    """A run with every edge kept that is remembered, and can be walked back.

    Args:
        model: The model.
        graph: Its graph.
        real: True at positions that are no padding; needed by bidirectional models only.
        entering: The streams of a run that was made before, if that is to be walked back.
        trace: Whether the run will be walked back, so that more of what it computes is kept.
        checkpoint: Whether nothing inside blocks is kept for the way back.
        errors: What transcoders do not reconstruct, by the name of their block, in a run that is
            not the unpatched one. These blocks then add the transcoder's output plus its error; in
            the unpatched run that is what the MLP adds.

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
        errors: Mapping[str, Stream] | None = None,
    ) -> None:
        super().__init__(model, real, self._remember, graph.merged)
        self._errors = dict(errors or {})
        self.entering: dict[int, Stream] = dict(entering or {})
        self.values: dict[str, Float[Tensor, "writer batch pos width"]] = {}
        self._trace, self._checkpoint = trace, checkpoint
        self._traced: dict[str, _Trace] = {}

    def run(self, stream: Stream, first: int = 0) -> Stream:
        """Run from a stage on, given what enters it, and return the final stream."""
        with torch.no_grad():
            return super().run(stream, first)

    @property
    def final(self) -> Stream:
        """What the logits read."""
        return self.entering[self.graph.blocks[-1].stage]

    def given(self, block: Block) -> Tensor:
        """Return what the units of a block are given: the stream; of attention the z of heads."""
        return self.values[block.name] if block.kind == "attention" else self.entering[block.stage]

    def _remember(self, seen: Seen, block: Block, values: Tensor) -> None:
        if seen == "entering":
            self.entering[block.stage] = values
        elif not self._trace and seen in ("z", "mlp"):
            self.values[block.name] = values[None] if seen == "mlp" else values

    def added(self, block: Block, stream: Stream) -> Stream:
        if block.name not in self._errors:
            return super().added(block, stream)
        return transcoder_of(self.model, block).added(stream) + self._errors[block.name]

    def rest(self, inputs: Inputs, block: Block) -> Stream:
        if not self._trace or self._checkpoint:
            return super().rest(inputs, block)
        self._traced[block.name] = self._trace_of(inputs, block)
        return self._traced[block.name].added.detach()

    def _trace_of(self, inputs: Inputs, block: Block) -> "_Trace":
        leaves = {port: rows.detach().requires_grad_() for port, rows in inputs.items()}
        with torch.enable_grad():
            return _Trace(leaves, super().rest(leaves, block))

    def gradients(self, at_final: Stream) -> Iterator[BlockGradients]:
        """Walk back from the logits, given the gradient there; frees what was kept for that."""
        logits = self.graph.blocks[-1]
        yield BlockGradients(logits, at_final, (Whole(logits.readers, at_final),))
        for blocks in reversed(self.graph.stages):
            if (stream := self.entering.get(blocks[0].stage)) is None:
                return
            if blocks[0].kind == "stream":
                # All that its writers write is what its reader receives.
                whole = Whole(blocks[0].readers, at_final)
                yield BlockGradients(blocks[0], at_final, (whole,))
                continue
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
        if block.has_fixed_error:
            return (ThroughUnits(block, transcoder_of(self.model, block), stream, gradient),)
        known = self._traced.pop(block.name) if block.name in self._traced else None
        trace = known or self._trace_again(block, stream)
        # Nothing arrives at queries and keys whose pattern is a constant (`models/rules.py`).
        arrived = torch.autograd.grad(
            trace.added, list(trace.inputs.values()), gradient, materialize_grads=True
        )
        at_inputs = dict(zip(trace.inputs, arrived, strict=True))
        return tuple(
            reduce(
                Sum,
                (
                    self._through_weights(
                        block, each, tuple(readers), stream, trace.inputs[each], at_inputs[each]
                    )
                    for each in single_ports(port)
                ),
            )
            for port, readers in groupby(block.readers, key=lambda r: self.graph.readers[r].port)
        )

    def _trace_again(self, block: Block, stream: Stream) -> "_Trace":
        with torch.no_grad():
            inputs = {port: self.read(block, port, stream) for port in ports_of(block)}
        return self._trace_of(inputs, block)

    def _through_weights(
        self,
        block: Block,
        port: Input,
        readers: Sequence[int],
        stream: Stream,
        rows: Rows,
        arrived: Rows,
    ) -> Received:
        """Return the gradients at what all readers of a port receive, from those at what they read.

        Args:
            block: The block.
            port: The port.
            readers: The readers.
            stream: What all of them receive.
            rows: Their queries, keys or values; or pre-activations.
            arrived: The gradient at these.
        """
        found = [self.model.reading(block.layer, port, row) for row in range(len(arrived))]
        readings = [reading for reading in found if reading is not None]
        if len(readings) < len(found) or any(r.norm is not readings[0].norm for r in readings):
            project = partial(read, self.model, block, port, range(len(arrived)))
            return ThroughModel(readers, project, stream, arrived)
        norm = readings[0].norm
        normed = norm.apart(stream)
        if port is None:
            return Whole(readers, readings[0].pulled(arrived[0], normed))
        constants = torch.stack([reading.constant for reading in readings])[:, None, None]
        along = norm.along(arrived, rows.detach() - constants, normed)
        weights = [reading.weights[0] for reading in readings]
        return ThroughReadings(
            readers, norm, weights, arrived * normed.factor, [(normed.centred, along)]
        )


class _Trace(NamedTuple):
    """What a block has read, and the way from there to what it adds.

    Attributes:
        inputs: What was read, as leaves of autograd.
        added: What the block adds.
    """

    inputs: Mapping[Input, Rows]
    added: Stream
