"""The output of one component for a changed input, all else as in the recorded run."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import Block, Graph, Input, Reader, Writer, single_ports
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Stream, read
from circuitfind.patching.continuation import Point
from circuitfind.patching.exchange import Patched, after
from circuitfind.patching.recording import Recording

Changes = Float[Tensor, "candidate batch pos d_model"]


class Components:
    """The components of a base run, and what each of them writes in a source run.

    Args:
        model: The model.
        graph: Names the components.
        base: The run in which inputs are changed.
        source: The run whose writes the changes come from.
        real: True at positions that are no padding.
        frozen: Whether a changed input is normed with the scale of the base run.
    """

    def __init__(
        self,
        model: ResidualModel,
        graph: Graph,
        base: Recording,
        source: Recording,
        real: Bool[Tensor, "batch pos"],
        *,
        frozen: bool = False,
    ) -> None:
        self._model, self._graph, self._real = model, graph, real
        self._base, self._source, self._frozen = base, source, frozen

    def sent(self, writer: Writer) -> Stream:
        """Return a writer's output in the source run minus that in the base run."""
        base, source = self._base, self._source
        if writer.kind == "embedding":
            return self._embedded(writer, source) - self._embedded(writer, base)
        block = self._graph.block_of[writer.name]
        if block.kind == "mlp":
            return source.added[block.name] - base.added[block.name]
        return self._share(block, writer, source) - self._share(block, writer, base)

    def _embedded(self, writer: Writer, run: Recording) -> Stream:
        if not self._graph.split_embedding:
            return run.embedding.joint
        position = run.embedding.position
        assert position is not None
        return run.embedding.token if writer.name == "embed" else position

    def _share(self, block: Block, writer: Writer, run: Recording) -> Stream:
        z, head = run.z[block.name], writer.index or 0
        if not block.coupled:
            return self._model.output(block.layer, [head], z[head : head + 1])[0]
        return self._model.output(block.layer, range(len(z)), z)[head]

    def passed_on(self, reader: Reader, changes: Changes) -> Changes:
        """Return the change of what a reader's component itself writes."""
        return self._change(reader, changes, alone=True)

    def arriving(self, reader: Reader, changes: Changes) -> Patched:
        """Return the stream after a reader's component has read changed inputs."""
        if reader.kind == "logits":
            return Patched(Point(reader.stage, self._frozen), self._base.final + changes)
        block = self._graph.block_of[reader.component]
        return after(self._base, block, self._change(reader, changes, alone=False))

    def _change(self, reader: Reader, changes: Changes, *, alone: bool) -> Changes:
        """Return the change of what a block writes, or of what the reader's heads alone write."""
        block = self._graph.block_of[reader.component]
        if block.kind == "mlp":
            return self._mlp_change(block, changes)
        return self._heads_change(block, reader, changes, alone=alone)

    def _mlp_change(self, block: Block, changes: Changes) -> Changes:
        entering = self._base.entering[block.stage]
        scale = self._scale(entering, len(changes))
        written = self._model.mlp(block.layer, (entering + changes).flatten(0, 1), *scale)
        return written.view(changes.shape) - self._base.added[block.name]

    def _scale(self, entering: Tensor, n: int) -> list[Tensor]:
        """Return the streams whose scale the norms of `n` candidates keep, if not their own."""
        return [torch.cat([entering] * n, dim=-3)] if self._frozen else []

    def _heads_change(
        self, block: Block, reader: Reader, changes: Changes, *, alone: bool
    ) -> Changes:
        n, base = len(changes), self._base.z[block.name]
        heads = [writer.index or 0 for writer in self._graph.fed_by(reader)]
        z = self._mixed(block, reader, heads, changes)
        if block.coupled:
            every = range(len(base))
            replaced = base.repeat(1, n, 1, 1)
            replaced[heads] = z
            before = self._model.output(block.layer, every, base)
            changed = self._model.output(block.layer, every, replaced)
            if alone:
                before, changed = before[heads], changed[heads]
        else:
            before = self._model.output(block.layer, heads, base[heads])
            changed = self._model.output(block.layer, heads, z)
        return changed.sum(0).view(changes.shape) - before.sum(0)

    def _mixed(
        self, block: Block, reader: Reader, heads: Sequence[int], changes: Changes
    ) -> Float[Tensor, "head row pos d_head"]:
        """Return the mixed values of a reader's heads, candidates and prompts on one axis."""
        model, base, graph, n = self._model, self._base, self._graph, len(changes)
        stream = base.entering[block.stage]
        entering = (stream + changes).flatten(0, 1)[None]
        scale = self._scale(stream[None], n)
        fed = [graph.input_of(block.layer, w.index or 0, "k") for w in graph.fed_by(reader)]
        kv_heads = [graph.readers[i].index or 0 for i in fed]
        recorded: dict[Input, Tensor] = {
            "q": base.query[block.name][heads],
            "k": base.key[block.name][kv_heads],
            "v": base.value[block.name][kv_heads],
        }
        mixed = {port: values.repeat(1, n, 1, 1) for port, values in recorded.items()}
        for port in single_ports(reader.port):
            rows = read(model, block, port, [reader.index or 0], entering, *scale)
            mixed[port] = rows.expand_as(mixed[port])
        return model.attend(
            block.layer, heads, mixed["q"], mixed["k"], mixed["v"], self._real.repeat(n, 1)
        )
