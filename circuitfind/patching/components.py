"""The output of one component for a changed input, all else as in the recorded run."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import Graph, Reader, Writer, single_ports
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Stream
from circuitfind.patching.continuation import Point
from circuitfind.patching.exchange import Patched
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
        base, source, layer = self._base, self._source, writer.layer
        if layer is None:
            return self._embedded(writer, source) - self._embedded(writer, base)
        if writer.kind == "mlp":
            return source.mlp[layer] - base.mlp[layer]
        return self._share(writer, source.z[layer]) - self._share(writer, base.z[layer])

    def _embedded(self, writer: Writer, run: Recording) -> Stream:
        if not self._graph.split_embedding:
            return run.embedding.joint
        position = run.embedding.position
        assert position is not None
        return run.embedding.token if writer.name == "embed" else position

    def _share(self, writer: Writer, z: Float[Tensor, "head batch pos d_head"]) -> Stream:
        assert writer.layer is not None and writer.index is not None
        if not self._model.shape.heads_share_norm:
            head = writer.index
            return self._model.output(writer.layer, [head], z[head : head + 1])[0]
        return self._model.output(writer.layer, range(len(z)), z)[writer.index]

    def passed_on(self, reader: Reader, changes: Changes) -> Changes:
        """Return the change of what a reader's component itself writes."""
        if reader.kind == "mlp":
            return self._mlp_change(reader, changes)
        return self._heads_change(reader, changes, alone=True)

    def arriving(self, reader: Reader, changes: Changes) -> Patched:
        """Return the stream after a reader's component has read changed inputs."""
        shape, layer = self._model.shape, reader.layer
        if layer is None:
            point = Point(shape.n_layers, "logits" if self._frozen else "attention")
            return Patched(point, self._base.final + changes)
        if reader.kind == "mlp":
            written = self._mlp_change(reader, changes)
        else:
            written = self._heads_change(reader, changes, alone=False)
            if shape.layers[layer].has_mlp and not shape.layers[layer].parallel_mlp:
                return Patched(Point(layer, "mlp"), self._base.middle(layer) + written)
        return Patched(Point(layer + 1), self._base.stream[layer + 1] + written)

    def _mlp_change(self, reader: Reader, changes: Changes) -> Changes:
        layer, base = reader.layer, self._base
        assert layer is not None
        parallel = self._model.shape.layers[layer].parallel_mlp
        entering = base.stream[layer] if parallel else base.middle(layer)
        scale = self._scale(entering, len(changes))
        written = self._model.mlp(layer, (entering + changes).flatten(0, 1), **scale)
        return written.view(changes.shape) - base.mlp[layer]

    def _scale(self, entering: Tensor, n: int) -> dict[str, Tensor]:
        """Return the argument by which the norms of `n` candidates keep a stream's scale."""
        return {"scale_of": torch.cat([entering] * n, dim=-3)} if self._frozen else {}

    def _heads_change(self, reader: Reader, changes: Changes, *, alone: bool) -> Changes:
        """Return the change of what attention writes, or of what the reader's heads alone write."""
        layer, n = reader.layer, len(changes)
        assert layer is not None
        heads = self._heads_of(reader)
        z = self._mixed(reader, heads, changes)
        base = self._base.z[layer]
        if self._model.shape.heads_share_norm:
            every = range(len(base))
            replaced = base.repeat(1, n, 1, 1)
            replaced[heads] = z
            before = self._model.output(layer, every, base)
            after = self._model.output(layer, every, replaced)
            if alone:
                before, after = before[heads], after[heads]
        else:
            before = self._model.output(layer, heads, base[heads])
            after = self._model.output(layer, heads, z)
        return after.sum(0).view(changes.shape) - before.sum(0)

    def _heads_of(self, reader: Reader) -> list[int]:
        assert reader.index is not None
        n = len(self._graph.components_fed_by(reader))
        return list(range(reader.index * n, (reader.index + 1) * n))

    def _mixed(
        self, reader: Reader, heads: Sequence[int], changes: Changes
    ) -> Float[Tensor, "head row pos d_head"]:
        """Return the mixed values of a reader's heads, candidates and prompts on one axis."""
        model, base, layer, n = self._model, self._base, reader.layer, len(changes)
        assert layer is not None and reader.index is not None
        entering = (base.stream[layer] + changes).flatten(0, 1)[None]
        scale = self._scale(base.stream[layer][None], n)
        size = model.shape.layers[layer].heads_per_kv_head
        kv_heads = [head // size for head in heads]
        recorded = {
            "q": base.query[layer][heads],
            "k": base.key[layer][kv_heads],
            "v": base.value[layer][kv_heads],
        }
        mixed = {port: values.repeat(1, n, 1, 1) for port, values in recorded.items()}
        for port in single_ports(reader.port):
            projected = model.project(layer, port, [reader.index], entering, **scale)
            mixed[port] = projected.expand_as(mixed[port])
        return model.attend(
            layer, heads, mixed["q"], mixed["k"], mixed["v"], self._real.repeat(n, 1)
        )
