"""Writers, readers and edges of a transformer: everything that a circuit could contain.

A transformer's components add to one residual stream and read from it. Whatever a reader receives
is the sum of what all earlier writers wrote, so each (writer, reader) pair is an edge whose
contribution can be replaced on its own (Elhage et al. 2021; Conmy et al. 2023, arXiv 2304.14997).
A component's place in the order of execution is its stage; an edge exists iff the writer's stage
comes before the reader's. The embedding runs at stage 0, the attention of layer l at 2l + 1, its
MLP at 2l + 2 (at 2l + 1 in parallel blocks, where the MLP does not read the attention), and the
logits last.

Readers are counted before their norm, which is recomputed on whatever they receive. With grouped
key/value heads there is one k and one v reader per key/value head, because that is what the model
computes. A graph is both a boolean tensor, for arithmetic, and a networkx graph, for questions
about paths.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import networkx as nx
import torch
from jaxtyping import Bool
from torch import Tensor

from circuitfind.errors import GraphError, quoted

Port = Literal["q", "k", "v", "qkv"]

MAX_SIZE = 10**9
"""Largest of a model's sizes."""

MAX_PAIRS = 2**28
"""Largest number of (writer, reader) pairs of a graph. A circuit takes about 12 bytes for each, so
the largest takes 3 GB; those of models with 80 layers of 64 heads have a tenth of it."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that fix its graph.

    Attributes:
        n_layers: Number of blocks.
        n_heads: Query heads per block.
        n_kv_heads: Key/value heads per block; fewer than `n_heads` means grouped queries.
        d_model: Width of the residual stream.
        d_head: Width of one head.
        d_vocab: Number of logits per position.
        has_mlp: Whether blocks have an MLP at all.
        parallel_mlp: Whether a block's MLP reads the same stream as its attention.
        heads_share_norm: Whether the sum of a block's heads is normalised before it is added
            (Gemma 2). A head's output then depends, through the scale of that norm, on all heads
            of its block.
        learned_positions: Whether a position embedding is added to the token embedding.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_vocab: int
    has_mlp: bool = True
    parallel_mlp: bool = False
    heads_share_norm: bool = False
    learned_positions: bool = False

    def __post_init__(self) -> None:
        sizes = (self.n_layers, self.n_heads, self.n_kv_heads, self.d_model, self.d_head)
        if max(*sizes, self.d_vocab) > MAX_SIZE:
            raise GraphError(
                "one of its sizes is larger than that of any model; "
                f"at most {MAX_SIZE:,} is allowed"
            )
        if min(*sizes, self.d_vocab) < 1:
            raise GraphError(f"a model's sizes are positive integers, not {self}")
        if self.n_heads % self.n_kv_heads:
            raise GraphError(
                f"{self.n_heads} query heads cannot be shared out evenly over "
                f"{self.n_kv_heads} key/value heads"
            )

    @property
    def grouped(self) -> bool:
        """Whether several query heads share a key/value head."""
        return self.n_kv_heads < self.n_heads

    @property
    def heads_per_kv_head(self) -> int:
        return self.n_heads // self.n_kv_heads

    @property
    def mlp_stage_offset(self) -> int:
        """How many stages after its attention a block's MLP runs."""
        return 0 if self.parallel_mlp else 1


@dataclass(frozen=True)
class Writer:
    """A component's output into the residual stream: `embed`, `a5.h1`, `m5`."""

    name: str
    stage: int
    layer: int | None = None
    head: int | None = None

    @property
    def component(self) -> str:
        return self.name


@dataclass(frozen=True)
class Reader:
    """A component's input from the residual stream: `a5.h1.q`, `a5.kv0.k`, `m5`, `logits`.

    Attributes:
        head: The query head for port q, the key/value head for ports k and v.
        component: The component that the input belongs to: the name without the port.
    """

    name: str
    stage: int
    component: str
    layer: int | None = None
    head: int | None = None
    port: Port | None = None


class Edge(NamedTuple):
    """One (writer, reader) pair, written `a5.h1->a7.h3.k`."""

    writer: Writer
    reader: Reader

    @property
    def name(self) -> str:
        return f"{self.writer.name}->{self.reader.name}"


EdgeName = str | Edge | tuple[int, int]
"""An edge as callers name it: its name, the edge itself, or the indices of writer and reader."""


def listed(edges: str | Edge | Iterable[EdgeName]) -> list[EdgeName]:
    """Return edges as a list; a single name or edge is a list of one."""
    return [edges] if isinstance(edges, str | Edge) else list(edges)


@dataclass(frozen=True)
class Graph:
    """All writers, readers and edges of a model.

    Attributes:
        shape: The model's sizes.
        split_qkv: Whether a head reads its query, key and value separately.
        split_embedding: Whether token and position embeddings are separate writers.
    """

    shape: ModelShape
    split_qkv: bool = True
    split_embedding: bool = False

    def __post_init__(self) -> None:
        if self.n_pairs > MAX_PAIRS:
            raise GraphError(
                f"a graph of {self.shape.n_layers:,} layers with {self.shape.n_heads:,} heads is "
                f"larger than that of any model: it has {self.n_pairs:,} pairs of a writer and a "
                f"reader, and at most {MAX_PAIRS:,} are allowed"
            )
        if not self.split_qkv and self.shape.grouped:
            raise GraphError(
                "q, k and v cannot be merged where query heads share key/value heads "
                f"({self.shape.n_heads} share {self.shape.n_kv_heads}); keep them split"
            )
        if self.split_embedding and not self.shape.learned_positions:
            raise GraphError(
                "this model has no position embedding to split from `embed`; "
                "keep the embedding joint"
            )

    @property
    def n_pairs(self) -> int:
        """How many pairs of a writer and a reader there are, in any order of execution."""
        shape, n_embeddings = self.shape, 2 if self.split_embedding else 1
        n_readers = sum(self.heads_of(port) for port in self.ports) + shape.has_mlp
        n_writers = shape.n_heads + shape.has_mlp
        return (n_embeddings + shape.n_layers * n_writers) * (1 + shape.n_layers * n_readers)

    def __repr__(self) -> str:
        shape = self.shape
        parts = "apart" if self.split_qkv else "together"
        return (
            f"<Graph of {self.n_edges} edges: {len(self.writers)} writers, {len(self.readers)} "
            f"readers; {shape.n_layers} layers of {shape.n_heads} heads, q, k and v {parts}>"
        )

    @cached_property
    def writers(self) -> tuple[Writer, ...]:
        """All writers in the order in which they run."""
        embeddings = ("embed", "pos_embed") if self.split_embedding else ("embed",)
        return (*(Writer(name, 0) for name in embeddings), *self._block_writers())

    def _block_writers(self) -> Iterator[Writer]:
        shape = self.shape
        for layer in range(shape.n_layers):
            stage = 2 * layer + 1
            for head in range(shape.n_heads):
                yield Writer(f"a{layer}.h{head}", stage, layer, head)
            if shape.has_mlp:
                yield Writer(f"m{layer}", stage + shape.mlp_stage_offset, layer)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """All readers in the order in which they run; in a layer all q, then k, then v."""
        last = 2 * self.shape.n_layers + 1
        return (*self._block_readers(), Reader("logits", last, "logits"))

    def _block_readers(self) -> Iterator[Reader]:
        shape = self.shape
        for layer in range(shape.n_layers):
            stage = 2 * layer + 1
            for port in self.ports:
                for head in range(self.heads_of(port)):
                    component = self.attention_component(layer, head, port)
                    yield Reader(f"{component}.{port}", stage, component, layer, head, port)
            if shape.has_mlp:
                name = f"m{layer}"
                yield Reader(name, stage + shape.mlp_stage_offset, name, layer)

    @property
    def ports(self) -> tuple[Port, ...]:
        """The inputs of a head that can be cut separately."""
        return ("q", "k", "v") if self.split_qkv else ("qkv",)

    def heads_of(self, port: Port) -> int:
        """Return how many readers of this port a layer has."""
        return self.shape.n_kv_heads if port in ("k", "v") else self.shape.n_heads

    def attention_component(self, layer: int, head: int, port: Port) -> str:
        """Return the component that a port belongs to: `a5.h1`, or `a5.kv0` in grouped models."""
        grouped = self.shape.grouped and port in ("k", "v")
        return f"a{layer}.kv{head}" if grouped else f"a{layer}.h{head}"

    @cached_property
    def edge_mask(self) -> Bool[Tensor, "writer reader"]:
        """True where the writer runs before the reader, so that an edge exists."""
        writes_at = torch.tensor([writer.stage for writer in self.writers])
        reads_at = torch.tensor([reader.stage for reader in self.readers])
        return writes_at[:, None] < reads_at[None, :]

    @property
    def n_edges(self) -> int:
        return int(self.edge_mask.sum())

    @property
    def n_components(self) -> int:
        """Number of components that write: embedding, heads and MLPs."""
        return len(self.writers)

    @property
    def heads_and_mlps(self) -> tuple[Writer, ...]:
        """All writers but the embeddings, in the order in which they run."""
        return tuple(writer for writer in self.writers if writer.layer is not None)

    @cached_property
    def writer_index(self) -> dict[str, int]:
        return {writer.name: index for index, writer in enumerate(self.writers)}

    @cached_property
    def reader_index(self) -> dict[str, int]:
        return {reader.name: index for index, reader in enumerate(self.readers)}

    def head_writers(self, layer: int) -> range:
        """Return the writer indices of a layer's heads."""
        first = self.writer_index[f"a{layer}.h0"]
        return range(first, first + self.shape.n_heads)

    def head_readers(self, layer: int, port: Port) -> range:
        """Return the reader indices of a layer's heads for one of the graph's ports."""
        first = self.reader_index[f"{self.attention_component(layer, 0, port)}.{port}"]
        return range(first, first + self.heads_of(port))

    @cached_property
    def readers_of(self) -> dict[str, tuple[int, ...]]:
        """The indices of the readers of each writing component, shared k and v readers included."""
        shared: dict[str, list[int]] = {writer.name: [] for writer in self.writers}
        for index, reader in enumerate(self.readers):
            for component in self.components_fed_by(reader):
                shared.setdefault(component, []).append(index)
        return {component: tuple(indices) for component, indices in shared.items()}

    def components_fed_by(self, reader: Reader) -> tuple[str, ...]:
        """Return the components that compute with what a reader receives.

        One, except for the k and v readers of grouped models, which feed all query heads of
        their group.
        """
        if not (self.shape.grouped and reader.port in ("k", "v")):
            return (reader.component,)
        assert reader.head is not None
        group = self.shape.heads_per_kv_head
        heads = range(reader.head * group, (reader.head + 1) * group)
        return tuple(f"a{reader.layer}.h{head}" for head in heads)

    def edge(self, name: EdgeName) -> Edge:
        """Return the edge that a name, an edge or two indices stand for.

        Raises:
            GraphError: The name is malformed, or no such edge exists, with the reason.
        """
        writer, reader = self._ends(name)
        if writer.stage >= reader.stage:
            raise GraphError(
                f"no edge {quoted(name)}: {writer.name} writes at stage {writer.stage}, "
                f"not before {reader.name} has read the stream (stage {reader.stage})"
            )
        return Edge(writer, reader)

    def _ends(self, name: EdgeName) -> tuple[Writer, Reader]:
        if isinstance(name, Edge):
            return self.writer(name.writer.name), self.reader(name.reader.name)
        if isinstance(name, str) and "->" in name:
            writer, _, reader = name.partition("->")
            return self.writer(writer), self.reader(reader)
        n_writers, n_readers = len(self.writers), len(self.readers)
        match name:
            case (int(w), int(r)) if 0 <= w < n_writers and 0 <= r < n_readers:
                return self.writers[w], self.readers[r]
            case (int(), int()):
                raise GraphError(
                    f"no edge {quoted(name)}: the graph has the writers 0 to {n_writers - 1} and "
                    f"the readers 0 to {n_readers - 1}"
                )
        raise GraphError(f"{quoted(name)} is not an edge; edges look like 'a0.h1->a1.h0.q'")

    def place(self, name: EdgeName) -> tuple[int, int]:
        """Return the indices of an edge's writer and reader, its place in masks and effects.

        Raises:
            GraphError: There is no such edge.
        """
        writer, reader = self.edge(name)
        return self.writer_index[writer.name], self.reader_index[reader.name]

    def writer(self, name: str) -> Writer:
        """Return the writer with this name.

        Raises:
            GraphError: There is none; the message shows what names look like.
        """
        return self.writers[self._index(name, "writer", self.writer_index)]

    def reader(self, name: str) -> Reader:
        """Return the reader with this name.

        Raises:
            GraphError: There is none; the message shows what names look like.
        """
        return self.readers[self._index(name, "reader", self.reader_index)]

    @staticmethod
    def _index(name: str, role: str, known: dict[str, int]) -> int:
        if name not in known:
            first = ", ".join(list(known)[:4])
            raise GraphError(
                f"no {role} named {quoted(name)} in this model; its {len(known)} {role}s are "
                f"{first}, ... {list(known)[-1]}"
            )
        return known[name]

    def edges(self, kept: Bool[Tensor, "writer reader"] | None = None) -> list[Edge]:
        """Return all edges, or those of a mask, ordered by reader and then by writer.

        Raises:
            GraphError: The mask marks a pair that is no edge.
        """
        mask = self.edge_mask if kept is None else kept.cpu()
        if bool((mask & ~self.edge_mask).any()):
            raise GraphError("the mask keeps a pair whose writer does not run before its reader")
        return [
            Edge(self.writers[writer], self.readers[reader])
            for reader, writer in mask.T.nonzero().tolist()
        ]

    def mask_of(self, edges: str | Edge | Iterable[EdgeName]) -> Bool[Tensor, "writer reader"]:
        """Return the mask that keeps exactly these edges."""
        kept = torch.zeros_like(self.edge_mask)
        for name in listed(edges):
            kept[self.place(name)] = True
        return kept

    def network(self, kept: Bool[Tensor, "writer reader"] | None = None) -> nx.MultiDiGraph:
        """Return a networkx graph: a node per component, an edge per kept edge with its port.

        Three kinds of edges, told apart by the attribute `kind`: `edge` is a kept edge and has its
        `name` and `port`; `group` leads from a key/value head to the query heads that share it;
        `norm` marks that a head acts through the shared norm of its block (`ModelShape`). Without
        a mask the whole graph is returned. Nodes carry `stage`, `layer` and `head`.
        """
        network = nx.MultiDiGraph()
        ends: list[Reader | Writer] = [*self.readers, *self.writers]
        for end in ends:
            network.add_node(end.component, stage=end.stage, layer=end.layer)
            if end.head is not None:
                network.nodes[end.component]["head"] = end.head
        for reader in self.readers:
            for component in self.components_fed_by(reader):
                if component != reader.component:
                    network.add_edge(reader.component, component, "group", kind="group")
        for edge in self.edges(kept):
            self._add_edge(network, edge)
        return network

    def _add_edge(self, network: nx.MultiDiGraph, edge: Edge) -> None:
        writer, reader = edge
        port = reader.port or ""
        network.add_edge(
            writer.component, reader.component, edge.name, kind="edge", name=edge.name, port=port
        )
        if self.shape.heads_share_norm and writer.head is not None:
            norm = f"a{writer.layer}.norm"
            network.add_node(norm, stage=writer.stage, layer=writer.layer)
            for head in range(self.shape.n_heads):
                network.add_edge(f"a{writer.layer}.h{head}", norm, "norm", kind="norm")
            network.add_edge(norm, reader.component, "norm", kind="norm")
