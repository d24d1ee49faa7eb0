"""The gradient of the loss at what every reader receives, from one pass forward and one back.

With every edge kept, all heads of a block read one stream, so the forward pass needs one stream and
not one per reader. On the way back the blocks are taken one by one: an MLP gives the gradient at
its input; attention is run again from its queries, keys and values, and what arrives there is
pulled back through each port's projection and norm, which gives every head port a gradient of its
own. Where it is known how a component reads (`models/readings.py`), this takes one product and no
second run. Their sum goes on to earlier blocks. So a gradient per reader exists only while it is
handed out, and what a head writes is kept as its z (`d_head` elements a position, not `d_model`).

A run that was made before is walked back from the streams that entered its blocks, all else being
computed again. With `checkpoint` this holds for the MLPs of every run.
"""

from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import SINGLE_PORTS, Block, Graph, SinglePort, single_ports
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Heads, Run, Seen, Stream, added_by_heads, attend
from circuitfind.models.readings import Normed

Streams = Float[Tensor, "reader batch pos d_model"]
Head = Float[Tensor, "batch pos d_head"]
Projected = dict[SinglePort, Heads]


class ReaderGradients(NamedTuple):
    """The gradients at what some readers of one stage receive.

    Attributes:
        readers: Their indices.
        stage: Their stage.
        gradient: Of the summed loss at what each reader receives.
    """

    readers: tuple[int, ...]
    stage: int
    gradient: Streams


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

    def gradients(self, at_final: Stream) -> Iterator[ReaderGradients]:
        """Walk back from the logits, given the gradient there; frees what was kept for that."""
        logits = self.graph.blocks[-1]
        yield ReaderGradients(logits.readers, logits.stage, at_final[None])
        for blocks in reversed(self.graph.stages):
            if (stream := self.entering.get(blocks[0].stage)) is None:
                return
            before = at_final.clone()
            for block in reversed(blocks):
                for found in self._pulled(block, stream, at_final):
                    for gradient in found.gradient:
                        before += gradient
                    yield found
            at_final = before

    def _pulled(self, block: Block, stream: Stream, gradient: Stream) -> Iterator[ReaderGradients]:
        """Pull the gradient at what a block writes back to what its readers receive."""
        if block.kind == "mlp":
            kept = self._written.pop(block.name) if block.name in self._written else None
            leaf, written = kept or self._traced(block, stream)
            (arrived,) = torch.autograd.grad(written, leaf, gradient)
            reading = self.model.reading(block.layer, None)
            if reading is not None:
                arrived = reading.pulled(arrived, leaf.detach(), reading.norm.apart(stream))
            yield ReaderGradients(block.readers, block.stage, arrived[None])
            return
        projected = self._projected.pop(block.name, None) or self._project_all(block, stream)
        at_projected = self._at_projected(block, projected, gradient)
        for port, readers in groupby(block.readers, key=lambda r: self.graph.readers[r].port):
            pulled = [
                self._through_projection(block, each, stream, projected[each], at_projected[each])
                for each in single_ports(port)
            ]
            # One at a time, so that little has to go through the memory again.
            for reader, *streams in zip(readers, *pulled, strict=True):
                yield ReaderGradients((reader,), block.stage, reduce(torch.add, streams)[None])

    def _project_all(self, block: Block, stream: Stream) -> Projected:
        with torch.no_grad():
            return {port: self.projected(block, port, stream) for port in SINGLE_PORTS}

    def _at_projected(self, block: Block, projected: Projected, gradient: Stream) -> Projected:
        """Return the gradient at the queries, keys and values of a block."""
        leaves = [projected[port].detach().requires_grad_() for port in SINGLE_PORTS]
        with torch.enable_grad():
            query, key, value = leaves
            z = attend(self.model, block.layer, query, key, value, self.real)
            written = added_by_heads(self.model, block.layer, z)
        return dict(zip(SINGLE_PORTS, torch.autograd.grad(written, leaves, gradient), strict=True))

    def _through_projection(
        self, block: Block, port: SinglePort, stream: Stream, projected: Heads, arrived: Heads
    ) -> Iterator[Stream]:
        """Pull gradients at projected values back to the stream that each head's port reads."""
        normed: dict[int, Normed] = {}
        for head, (values, gradient) in enumerate(zip(projected, arrived, strict=True)):
            reading = self.model.reading(block.layer, port, head)
            if reading is None:
                yield self._through_model(block, port, head, stream, gradient)
                continue
            if id(reading.norm) not in normed:
                normed[id(reading.norm)] = reading.norm.apart(stream)
            yield reading.pulled(gradient, values, normed[id(reading.norm)])

    def _through_model(
        self, block: Block, port: SinglePort, head: int, stream: Stream, arrived: Head
    ) -> Stream:
        leaf = stream[None].clone().requires_grad_()
        with torch.enable_grad():
            projected = self.model.project(block.layer, port, [head], leaf)
        (at_input,) = torch.autograd.grad(projected, leaf, arrived[None])
        return at_input[0]
