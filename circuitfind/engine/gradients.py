"""The gradient of the loss at what every reader receives, from one pass forward and one back.

With every edge kept, all heads of a block read one stream, so the forward pass needs one stream and
not one per reader. On the way back the blocks are taken one by one: an MLP gives the gradient at
its input; attention is run again from its queries, keys and values, and what arrives there is
pulled back through each port's projection and norm, which gives every head port a gradient of its
own. Their sum goes on to earlier blocks. So a gradient per reader exists only while it is handed
out, and what a head writes is kept as its z (`d_head` elements a position, not `d_model`).

A run that was made before is walked back from the streams that entered its blocks, all else being
computed again. With `checkpoint` this holds for the MLPs of every run.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import SINGLE_PORTS, Block, Graph, SinglePort, single_ports
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Heads, Run, Seen, Stream, added_by_heads, attend

Streams = Float[Tensor, "reader batch pos d_model"]
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
        # Of each MLP, what it read and what it wrote, with the way from one to the other.
        self._written: dict[str, tuple[Stream, Stream]] = {}

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

    def _traced(self, block: Block, stream: Stream) -> tuple[Stream, Stream]:
        leaf = stream.detach().requires_grad_()
        with torch.enable_grad():
            return leaf, self.model.mlp(block.layer, leaf)

    def gradients(self, at_final: Stream) -> Iterator[ReaderGradients]:
        """Walk back from the logits, given the gradient there; frees what was kept for that."""
        logits = self.graph.blocks[-1]
        yield ReaderGradients(logits.readers, logits.stage, at_final[None])
        for blocks in reversed(self.graph.stages):
            if (stream := self.entering.get(blocks[0].stage)) is None:
                return
            before = at_final
            for block in reversed(blocks):
                for found in self._pulled(block, stream, at_final):
                    before = before + found.gradient.sum(0)
                    yield found
            at_final = before

    def _pulled(self, block: Block, stream: Stream, gradient: Stream) -> Iterator[ReaderGradients]:
        """Pull the gradient at what a block writes back to what its readers receive."""
        if block.kind == "mlp":
            known = self._written.pop(block.name) if block.name in self._written else None
            leaf, written = known or self._traced(block, stream)
            (at_input,) = torch.autograd.grad(written, leaf, gradient)
            yield ReaderGradients(block.readers, block.stage, at_input[None].detach())
            return
        arrived = self._at_projected(block, stream, gradient)
        for port, readers in groupby(block.readers, key=lambda r: self.graph.readers[r].port):
            at_port: Any = sum(
                self._through_projection(block, single, stream, arrived[single])
                for single in single_ports(port)
            )
            yield ReaderGradients(tuple(readers), block.stage, at_port)

    def _at_projected(self, block: Block, stream: Stream, gradient: Stream) -> Projected:
        """Return the gradient at the queries, keys and values of a block."""
        leaves = self._projected.pop(block.name, None)
        if leaves is None:
            with torch.no_grad():
                leaves = {port: self.projected(block, port, stream) for port in SINGLE_PORTS}
        query, key, value = (leaves[port].requires_grad_() for port in SINGLE_PORTS)
        with torch.enable_grad():
            z = attend(self.model, block.layer, query, key, value, self.real)
            written = added_by_heads(self.model, block.layer, z)
        found = torch.autograd.grad(written, (query, key, value), gradient)
        return dict(zip(SINGLE_PORTS, found, strict=True))

    def _through_projection(
        self, block: Block, port: SinglePort, stream: Stream, arrived: Heads
    ) -> Streams:
        """Pull gradients at projected values back to the stream that each head's port reads."""
        # A copy per head, so that each head's gradient arrives apart from the others'.
        leaf = stream.expand(len(arrived), *stream.shape).clone().requires_grad_()
        with torch.enable_grad():
            projected = self.model.project(block.layer, port, range(len(arrived)), leaf)
        (at_input,) = torch.autograd.grad(projected, leaf, arrived)
        return at_input
