"""The state of an incremental search: a forward pass that can be continued with more edges cut.

At which positions a component matters is known from the edges that are kept. The metric reads the
logits at its steps only. Through a query, an MLP or the logits a position depends on itself alone;
through a key or a value later positions depend on all earlier ones. And with causal attention no
position before the first difference of clean and corrupted prompts ever changes. So a component
matters either at the positions from the first step on, or at those from the first difference on,
or nowhere: its span, a number of positions counted from the end of the prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.graph import Graph
from circuitfind.models.readings import Reading

Stream = Float[Tensor, "batch _ d_model"]
Candidates = Float[Tensor, "candidate batch _ d_model"]
Projected = Float[Tensor, "batch _ d_head"]
PortReading = tuple[int, Reading]
"""A reader, and how one of its ports reads."""

Ports = tuple[NDArray[np.int64], ...]
"""Indices of readers, one for each writer of a stage, port by port."""


@dataclass(frozen=True)
class Horizon:
    """How many positions, counted from the end, can matter at all.

    Attributes:
        steps: From the first position whose logits the metric reads.
        changes: From the first position that can change, steps included.
    """

    steps: int
    changes: int


@dataclass(frozen=True, eq=False)
class Stage:
    """The attention or the MLP of a block.

    Attributes:
        layer: The block.
        writers: Indices of its writers.
        readers: Indices of its readers.
        is_attention: Which of the two it is.
        here: What its writers read at a position to write there (queries, MLPs).
        earlier: What they read at that position and all earlier ones (keys, values).
    """

    layer: int
    writers: list[int]
    readers: list[int]
    is_attention: bool
    here: Ports
    earlier: Ports


@lru_cache(maxsize=8)
def stages(graph: Graph) -> tuple[Stage, ...]:
    """Return the attention and the MLP of every block, in the order in which they run."""
    found = []
    for layer in range(graph.shape.n_layers):
        heads = list(graph.head_writers(layer))
        readers = [i for port in graph.ports for i in graph.head_readers(layer, port)]
        here, earlier = _fed_by(graph, heads)
        found.append(Stage(layer, heads, readers, is_attention=True, here=here, earlier=earlier))
        if graph.shape.layers[layer].has_mlp:
            name = f"m{layer}"
            mlp, reader = graph.writer_index[name], graph.reader_index[name]
            here, earlier = _fed_by(graph, [mlp])
            found.append(
                Stage(layer, [mlp], [reader], is_attention=False, here=here, earlier=earlier)
            )
    return tuple(found)


def _fed_by(graph: Graph, writers: Sequence[int]) -> tuple[Ports, Ports]:
    """Return what writers read at a position alone, and what at all earlier ones too."""
    ports = zip(*(graph.inputs[writer] for writer in writers), strict=True)
    here: list[NDArray[np.int64]] = []
    earlier: list[NDArray[np.int64]] = []
    for readers in ports:
        (earlier if graph.readers[readers[0]].looks_back else here).append(np.array(readers))
    return tuple(here), tuple(earlier)


@dataclass(frozen=True)
class Spans:
    """At how many positions, counted from the end, each writer and reader matters; 0 is nowhere."""

    writers: NDArray[np.int64]
    readers: NDArray[np.int64]


def spans(graph: Graph, kept: NDArray[np.bool_], horizon: Horizon) -> Spans:
    """Follow the kept edges back from the logits.

    Where heads share a norm, each head of a block matters wherever any of them does.
    """
    writers = np.zeros(len(graph.writers), dtype=np.int64)
    readers = np.zeros(len(graph.readers), dtype=np.int64)
    readers[graph.reader_index["logits"]] = horizon.steps
    for stage in reversed(stages(graph)):
        # In parallel blocks no edge leads from a block's heads to its MLP, so one stage at a time
        # is right there too.
        first, last = stage.writers[0], stage.writers[-1]
        later = slice(stage.readers[-1] + 1, None)
        own = (kept[first : last + 1, later] * readers[later]).max(axis=1)
        if graph.shape.heads_share_norm and stage.is_attention:
            own[:] = own.max()
        writers[stage.writers] = own
        for port in stage.here:
            readers[port] = own
        for port in stage.earlier:
            readers[port[own > 0]] = horizon.changes
    embeddings = [index for index, writer in enumerate(graph.writers) if writer.stage == 0]
    writers[embeddings] = (kept[embeddings] * readers).max(axis=1)
    return Spans(writers, readers)


@dataclass(frozen=True)
class ChunkState:
    """A forward pass on some prompts, with some edges cut.

    Tensors of a component hold at least the positions of its span, and always the last ones; keys
    and values hold all positions. What matters nowhere is not kept up to date: edges are only
    ever cut, so nothing will read it again.

    Attributes:
        graph: What the indices refer to.
        horizon: How many positions can matter at all.
        kept: True where an edge is kept.
        spans: At how many positions components matter, which follows from the edges kept.
        written: What each writer writes, by writer index; of heads only where they share a norm.
        read: What each reader receives, by reader index.
        projected: Each head's query, key and value, by reader index and port.
        z: Each head's mixed values, by writer index.
        products: Linear maps of what some readers receive, where these were carried along with it.
            They round otherwise than those made anew.
    """

    graph: Graph
    horizon: Horizon
    kept: NDArray[np.bool_]
    spans: Spans
    written: Mapping[int, Stream]
    read: Mapping[int, Stream]
    projected: Mapping[tuple[int, str], Projected]
    z: Mapping[int, Projected]
    products: Mapping[PortReading, Float[Tensor, "batch _ _"]] = field(default_factory=dict)

    @property
    def final(self) -> Stream:
        """What the logits read."""
        return self.read[len(self.graph.readers) - 1]

    def product(self, port: PortReading, stream: Stream) -> Float[Tensor, "batch _ _"]:
        """Return the linear map of what a reader receives, given that at its last positions."""
        known, (_, reading) = self.products.get(port), port
        if known is None:
            return reading.linear(reading.norm.centre(stream))
        return known[:, -stream.shape[-2] :]

    def keeping(self, kept: NDArray[np.bool_]) -> "ChunkState":
        """Return the state with these edges kept, before anything is brought up to date.

        It has no products, so that rounding does not depend on the way here.
        """
        now = spans(self.graph, kept, self.horizon)
        return replace(self, kept=kept, spans=now, products={})
