"""Writers, readers and edges of a transformer: everything that a circuit could contain.

A transformer's components add to one residual stream and read from it. Whatever a reader receives
is the sum of what all earlier writers wrote, so each (writer, reader) pair is an edge whose
contribution can be replaced on its own (Elhage et al. 2021; Conmy et al. 2023, arXiv 2304.14997).
A component's place in the order of execution is its stage; an edge exists iff the writer's stage
comes before the reader's.

A graph is data: it lists its writers, its readers, and its blocks. A block holds what runs
together, for example the attention of one layer: its readers, its writers, and which reader feeds
which writer. What kind of component a writer or reader belongs to is a field, so nothing has to be
read out of a name. `circuitfind.granularity` builds graphs.

Readers are counted before their norm, which is recomputed on whatever they receive. A graph is also
a boolean tensor, for arithmetic, and a networkx graph, for questions about paths.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import compress, groupby
from typing import Literal, NamedTuple

import networkx as nx
import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.errors import GraphError, quoted
from circuitfind.shape import ModelShape

SinglePort = Literal["q", "k", "v"]
"""One input of a head."""

SINGLE_PORTS: tuple[SinglePort, ...] = ("q", "k", "v")

Port = Literal["q", "k", "v", "qkv"]


Input = SinglePort | None
"""One input of a component: None is that of a component with only one, such as an MLP."""


def single_ports(port: Port | None) -> tuple[Input, ...]:
    """Return which inputs of a component a port is: all of a head's where they are merged."""
    return SINGLE_PORTS if port == "qkv" else (port,)


Kind = Literal["embedding", "head", "kv group", "mlp", "logits"]
"""What a component is. A kv group is a key/value head that several query heads share: it reads, and
writes only through its query heads."""

BlockKind = Literal["embedding", "attention", "mlp", "logits"]
"""What the components of a block are."""


@dataclass(frozen=True)
class Writer:
    """A component's output into the residual stream: `embed`, `a5.h1`, `m5`.

    Attributes:
        name: The name, that of the component.
        kind: What the component is.
        stage: Its place in the order of execution.
        layer: Its layer; None for embeddings.
        index: Which of the components of its kind in the layer it is (the number of a head); None
            where there is one.
    """

    name: str
    kind: Kind
    stage: int
    layer: int | None = None
    index: int | None = None

    @property
    def component(self) -> str:
        return self.name


@dataclass(frozen=True)
class Reader:
    """A component's input from the residual stream: `a5.h1.q`, `a5.kv0.k`, `m5`, `logits`.

    Attributes:
        name: The name: that of the component, and the port where it has several inputs.
        kind: What the component is.
        stage: Its place in the order of execution.
        component: The component that the input belongs to: the name without the port.
        layer: Its layer; None for the logits.
        index: Which of the components of its kind in the layer it is: the query head for port q,
            the key/value head for ports k and v; None where there is one.
        port: Which input of a head it is.
        looks_back: Whether the component uses, at a position, what this input received at earlier
            positions (keys and values), and not only what it received there.
    """

    name: str
    kind: Kind
    stage: int
    component: str
    layer: int | None = None
    index: int | None = None
    port: Port | None = None
    looks_back: bool = False


@dataclass(frozen=True)
class Block:
    """Readers and writers that run together: the attention of a layer, its MLP, the logits.

    All indices are places in `Graph.writers` and `Graph.readers`.

    Attributes:
        name: `embedding`, `a5`, `m5` or `logits`.
        kind: What its components are.
        stage: The place of its components in the order of execution.
        readers: Its readers.
        writers: Its writers.
        feeds: For each of `readers`, the writers that compute with what it receives. One, except
            for the k and v readers of a kv group, which feed all query heads of the group.
        exchangeable: Groups of writers that could be renamed without changing the graph: the
            members of a group among themselves, and groups as wholes. Their readers go with them.
        coupled: Whether each writer's output depends on the inputs of all writers of the block: the
            sum of the heads is normalised before it is added to the stream (Gemma 2).
        layer: Its layer; -1 for the embeddings, and the number of layers for the logits.
    """

    name: str
    kind: BlockKind
    stage: int
    layer: int
    readers: tuple[int, ...]
    writers: tuple[int, ...]
    feeds: tuple[tuple[int, ...], ...]
    exchangeable: tuple[tuple[int, ...], ...] = ()
    coupled: bool = False


def norm_name(block: Block) -> str:
    """Return the name of the node that stands for the norm of a coupled block (`Graph.network`)."""
    return f"{block.name}.norm"


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
        writers: All writers in the order in which they run.
        readers: All readers in the order in which they run; in a layer all q, then k, then v.
        blocks: Which of them run together, in the order in which they run.
    """

    shape: ModelShape
    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]
    blocks: tuple[Block, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.shape, self.writers, self.readers))

    def __repr__(self) -> str:
        shape = self.shape
        parts = "apart" if self.split_qkv else "together"
        return (
            f"<Graph of {self.n_edges} edges: {len(self.writers)} writers, {len(self.readers)} "
            f"readers; {shape.n_layers} layers of {shape.heads_text} heads, q, k and v {parts}>"
        )

    @cached_property
    def split_qkv(self) -> bool:
        """Whether a head reads its query, key and value separately."""
        return all(reader.port != "qkv" for reader in self.readers)

    @cached_property
    def split_embedding(self) -> bool:
        """Whether token and position embeddings are separate writers."""
        return len(self.embeddings) > 1

    @cached_property
    def embeddings(self) -> tuple[int, ...]:
        """The indices of the writers that read nothing."""
        return tuple(i for i, writer in enumerate(self.writers) if writer.kind == "embedding")

    @cached_property
    def logits(self) -> int:
        """The index of the reader that the logits are computed from."""
        return next(i for i, reader in enumerate(self.readers) if reader.kind == "logits")

    @cached_property
    def feeds(self) -> tuple[tuple[int, ...], ...]:
        """For each reader, the writers that compute with what it receives; none for the logits."""
        pairs = [
            pair for block in self.blocks for pair in zip(block.readers, block.feeds, strict=True)
        ]
        return tuple(writers for _, writers in sorted(pairs))

    @cached_property
    def stages(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks between the embedding and the logits, in the order in which they run.

        Those of one stage are together: they read the same stream, and neither reads the other.
        """
        between = self.blocks[1:-1]
        return tuple(tuple(some) for _, some in groupby(between, key=lambda block: block.stage))

    @cached_property
    def block_of(self) -> dict[str, Block]:
        """The block of each component, by its name."""
        found = {self.writers[i].component: block for block in self.blocks for i in block.writers}
        found |= {self.readers[i].component: block for block in self.blocks for i in block.readers}
        return found

    @cached_property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """For each writer, the readers that it computes from; none for the embeddings."""
        found: list[list[int]] = [[] for _ in self.writers]
        for reader, writers in enumerate(self.feeds):
            for writer in writers:
                found[writer].append(reader)
        return tuple(tuple(readers) for readers in found)

    @cached_property
    def edge_mask(self) -> Bool[Tensor, "writer reader"]:
        """True where the writer runs before the reader, so that an edge exists."""
        writes_at = torch.tensor([writer.stage for writer in self.writers])
        reads_at = torch.tensor([reader.stage for reader in self.readers])
        return writes_at[:, None] < reads_at[None, :]

    @cached_property
    def _exists(self) -> NDArray[np.bool_]:
        return self.edge_mask.numpy()

    @cached_property
    def _ports(self) -> dict[tuple[int, Input], int]:
        found: dict[tuple[int, Input], int] = {}
        for writer, readers in enumerate(self.inputs):
            for reader in readers:
                for port in single_ports(self.readers[reader].port):
                    found[writer, port] = reader
        return found

    def input_of(self, writer: int, port: SinglePort) -> int:
        """Return the reader that a head's query, key or value is computed from."""
        return self._ports[writer, port]

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
        return tuple(writer for writer in self.writers if writer.kind != "embedding")

    @cached_property
    def writer_index(self) -> dict[str, int]:
        return {writer.name: index for index, writer in enumerate(self.writers)}

    @cached_property
    def reader_index(self) -> dict[str, int]:
        return {reader.name: index for index, reader in enumerate(self.readers)}

    @cached_property
    def attention(self) -> dict[int, Block]:
        """The attention block of each layer."""
        return {block.layer: block for block in self.blocks if block.kind == "attention"}

    @cached_property
    def mlps(self) -> dict[int, Block]:
        """The MLP of each layer that has one."""
        return {block.layer: block for block in self.blocks if block.kind == "mlp"}

    def is_parallel(self, layer: int) -> bool:
        """Return whether a layer has an MLP that reads the same stream as its attention."""
        mlp = self.mlps.get(layer)
        return mlp is not None and mlp.stage == self.attention[layer].stage

    @cached_property
    def kind_of(self) -> dict[str, Kind]:
        """Kind of each component, by its name."""
        ends: list[Reader | Writer] = [*self.readers, *self.writers]
        return {end.component: end.kind for end in ends}

    def alike(self, reader: int, writer: int) -> int:
        """Return the reader that is to a writer what another one is to the writers it feeds."""
        place = self.inputs[self.feeds[reader][0]].index(reader)
        return self.inputs[writer][place]

    def fed_by(self, reader: Reader) -> tuple[Writer, ...]:
        """Return the writers that compute with what a reader receives; none for the logits."""
        return tuple(self.writers[i] for i in self.feeds[self.reader_index[reader.name]])

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

    def index(self, edge: EdgeName) -> tuple[int, int]:
        """Return the indices of an edge's writer and reader, its place in masks and effects.

        Raises:
            GraphError: There is no such edge.
        """
        if isinstance(edge, str):
            # Asked for every edge of large graphs; what is no edge is left to those who say why.
            ends = edge.split("->")
            pair = self.writer_index.get(ends[0], -1), self.reader_index.get(ends[-1], -1)
            if len(ends) == 2 and min(pair) >= 0 and self._exists[pair]:
                return pair
        writer, reader = self.edge(edge)
        return self.writer_index[writer.name], self.reader_index[reader.name]

    def writer(self, name: str) -> Writer:
        """Return the writer with this name.

        Raises:
            GraphError: There is none; the message shows what names look like.
        """
        return self.writers[self._known(name, "writer", self.writer_index)]

    def reader(self, name: str) -> Reader:
        """Return the reader with this name.

        Raises:
            GraphError: There is none; the message shows what names look like.
        """
        return self.readers[self._known(name, "reader", self.reader_index)]

    @staticmethod
    def _known(name: str, role: str, known: dict[str, int]) -> int:
        if name not in known:
            first = ", ".join(list(known)[:4])
            raise GraphError(
                f"no {role} named {quoted(name)} in this model; its {len(known)} {role}s are "
                f"{first}, ... {list(known)[-1]}"
            )
        return known[name]

    def require_mask(self, kept: Bool[Tensor, "writer reader"]) -> None:
        """Refuse what is not a mask of this graph.

        Raises:
            GraphError: It is no tensor of truth values, or has another shape.
        """
        given: object = kept
        if not isinstance(given, Tensor) or given.dtype != torch.bool:
            kind = given.dtype if isinstance(given, Tensor) else type(given).__name__
            raise GraphError(
                f"a mask is a tensor of True and False, not {kind}; give `circuit.kept`, or "
                "`graph.mask_of(edges)`"
            )
        if given.shape != self.edge_mask.shape:
            raise GraphError(
                f"a mask of shape {tuple(given.shape)} does not fit a graph of "
                f"{len(self.writers)} writers and {len(self.readers)} readers"
            )

    def edges(self, kept: Bool[Tensor, "writer reader"] | None = None) -> list[Edge]:
        """Return all edges, or those of a mask, ordered by reader and then by writer.

        Raises:
            GraphError: The mask marks a pair that is no edge.
        """
        if kept is None:
            return list(self._edges)
        mask = kept.cpu()
        if bool((mask & ~self.edge_mask).any()):
            raise GraphError("the mask keeps a pair whose writer does not run before its reader")
        return list(compress(self._edges, mask.T[self.edge_mask.T].tolist()))

    @cached_property
    def _edges(self) -> list[Edge]:
        return [
            Edge(self.writers[writer], self.readers[reader])
            for reader, writer in self.edge_mask.T.nonzero().tolist()
        ]

    def mask_of(self, edges: str | Edge | Iterable[EdgeName]) -> Bool[Tensor, "writer reader"]:
        """Return the mask that keeps exactly these edges."""
        kept = torch.zeros_like(self.edge_mask)
        for name in listed(edges):
            kept[self.index(name)] = True
        return kept

    def network(self, kept: Bool[Tensor, "writer reader"] | None = None) -> nx.MultiDiGraph:
        """Return a networkx graph: a node per component, an edge per kept edge with its port.

        Three kinds of edges, told apart by the attribute `kind`: `edge` is a kept edge and has its
        `name` and `port`; `group` leads from a key/value head to the query heads that share it;
        `norm` marks that a head acts through the shared norm of its block (`ModelShape`). Without
        a mask the whole graph is returned. Nodes carry `kind`, `stage`, `layer` and `head`.
        """
        network = nx.MultiDiGraph()
        ends: list[Reader | Writer] = [*self.readers, *self.writers]
        for end in ends:
            network.add_node(end.component, kind=end.kind, stage=end.stage, layer=end.layer)
            if end.index is not None:
                network.nodes[end.component]["head"] = end.index
        for reader, fed in zip(self.readers, self.feeds, strict=True):
            if reader.kind == "kv group":
                for writer in fed:
                    component = self.writers[writer].component
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
        block = self.block_of[writer.name]
        if block.coupled:
            norm = norm_name(block)
            network.add_node(norm, kind="norm", stage=block.stage, layer=block.layer)
            for other in block.writers:
                network.add_edge(self.writers[other].component, norm, "norm", kind="norm")
            network.add_edge(norm, reader.component, "norm", kind="norm")
