"""Writers, readers and edges of a transformer: everything that a circuit could contain.

A transformer's components add to one residual stream and read from it. Whatever a reader receives
is the sum of what all earlier writers wrote, so each (writer, reader) pair is an edge whose
contribution can be replaced on its own (Elhage et al. 2021; Conmy et al. 2023, arXiv 2304.14997).
A component's place in the order of execution is its stage; an edge exists iff the writer's stage
comes before the reader's. Where latents take the residual stream apart, readers behind them read
what these write and nothing from before (`Reader.since`).

A graph is data: it lists its writers, its readers, and its blocks. A block holds what runs
together, for example the attention of one layer: its readers, its writers, and which reader feeds
which writer. What kind of component a writer or reader belongs to is a field, so nothing has to be
read out of a name. `circuitfind.granularity` builds graphs.

Readers are counted before their norm, which is recomputed on whatever they receive. A graph is also
a boolean tensor, for arithmetic, and a networkx graph, for questions about paths.

Where token positions are told apart, a component has a reader for each place: `a7.h3.k@S2` is what
its key receives at the positions that are called S2 (`circuitfind.places`). An edge then acts at
one place. `Graph.merged` is the same graph with the places of each input put together.

Inside attention a head reads its keys and values at one place and writes at another. Where these
moves are told apart as well (`Graph.crossing`), the last writers are a head's ports at the places
that are attended to (`a7.h3.k@S2`), the last readers a head's attention at the places where it
writes (`a7.h3@end`), and an edge between them is a move.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress, groupby
from typing import Literal, NamedTuple, get_args

import networkx as nx
import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.errors import GraphError, quoted, shortened
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


Kind = Literal[
    "embedding",
    "head",
    "kv group",
    "attention",
    "mlp",
    "stream",
    "neuron",
    "latent",
    "error",
    "move",
    "logits",
]
"""What a component is. A kv group is a key/value head that several query heads share: it reads, and
writes only through its query heads. Neurons, latents and errors are parts of a block (`Units`); the
rest of it is of the kind of the block. The ends of moves inside attention are parts of heads
(`Graph.crossing`)."""

NUMBERED_AS: dict[Kind, str] = {
    "head": "head",
    "kv group": "head",
    "move": "head",
    "neuron": "neuron",
    "latent": "latent",
}
"""What the number of a component is called among the attributes of a node, by kind."""

PLACE_MARK = "@"
"""Stands between the name of an input and the place at which it is read."""

BlockKind = Literal["embedding", "attention", "mlp", "stream", "logits"]
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
        port: Of a move inside attention, which port it cuts; None of what writes into the stream.
        place: Of a move, the place that is attended to.
    """

    name: str
    kind: Kind
    stage: int
    layer: int | None = None
    index: int | None = None
    port: SinglePort | None = None
    place: str | None = None

    @property
    def component(self) -> str:
        return self.name if self.port is None else self.name.rpartition(f".{self.port}")[0]


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
        place: The place of the token positions at which it reads; None for all positions.
        since: The first stage whose writers it reads. Where latents take the residual stream apart,
            readers behind them read the stream from these on.
    """

    name: str
    kind: Kind
    stage: int
    component: str
    layer: int | None = None
    index: int | None = None
    port: Port | None = None
    looks_back: bool = False
    place: str | None = None
    since: int = 0

    def reads(self, writer: Writer) -> bool:
        """Return whether there is an edge from a writer."""
        return self.since <= writer.stage < self.stage

    def at(self, place: str | None) -> "Reader":
        """Return the same input at one place, or at all positions."""
        whole = self.name.partition(PLACE_MARK)[0]
        name = whole if place is None else f"{whole}{PLACE_MARK}{place}"
        return replace(self, name=name, place=place)


UnitKind = Literal["neuron", "latent"]
UNIT_KINDS: tuple[UnitKind, ...] = ("neuron", "latent")


def counted(n_units: int) -> str:
    """Return what the components of a graph are called where they are counted.

    Args:
        n_units: How many neurons and latents are components.
    """
    return "components" if n_units else "heads and MLPs"


ErrorKind = Literal["fixed", "live"]
"""Where what a dictionary does not reconstruct comes from: from the unpatched runs, so that nothing
acts through it; or from what the block receives."""

UnitsOf = Literal["mlp", "attention", "resid_pre", "resid_mid", "resid_post"]
"""What units take apart: an MLP, the output of attention, or the residual stream before a layer,
between its attention and its MLP, or behind it."""

LETTERS: dict[UnitsOf, str] = {
    "mlp": "m",
    "attention": "a",
    "resid_pre": "pre",
    "resid_mid": "mid",
    "resid_post": "post",
}
"""How names of blocks begin, by what they are."""


@dataclass(frozen=True)
class Units:
    """Units of a block that are writers: neurons of an MLP, or latents of a dictionary.

    The rest of what the block writes is one more writer (`m5.rest`), so that nothing is lost.

    Attributes:
        layer: The layer of the block.
        kind: What they are.
        numbers: Which of all neurons or latents, in ascending order.
        apart: Whether each has an input of its own, as have the latents of a transcoder; otherwise
            the readers of the block feed them all.
        skip: Whether the dictionary's skip connection is a writer (`m5.skip`).
        error: Whether what the dictionary does not reconstruct is a writer (`m5.error`), and where
            it comes from.
        of: What they take apart.
    """

    layer: int
    kind: UnitKind
    numbers: tuple[int, ...]
    apart: bool = False
    skip: bool = False
    error: ErrorKind | None = None
    of: UnitsOf = "mlp"

    def __post_init__(self) -> None:
        given: tuple[object, ...] = self.layer, self.kind, self.numbers
        layer, kind, numbers = given
        if type(layer) is not int or kind not in UNIT_KINDS:
            raise GraphError(
                f"units are those of a layer and of a kind ({' or '.join(UNIT_KINDS)}), not "
                f"{quoted(kind)} of {quoted(layer)}"
            )
        if (
            not isinstance(numbers, tuple)
            or not all(type(number) is int and number >= 0 for number in numbers)
            or list(numbers) != sorted(set(numbers))
        ):
            raise GraphError(
                f"the {kind}s of layer {layer} are given by a tuple of ascending numbers from 0 "
                f"on, such as (3, 17), not by {shortened(quoted(numbers))}"
            )
        if self.error not in (None, *get_args(ErrorKind)):
            raise GraphError(f"an error is fixed or live, not {quoted(self.error)}")
        if self.of not in LETTERS:
            raise GraphError(f"units take apart {' or '.join(LETTERS)}, not {quoted(self.of)}")
        if self.of != "mlp" and (
            (self.kind, self.apart, self.skip, self.error) != ("latent", False, False, "live")
        ):
            raise GraphError(
                f"units of {self.block} are the latents of an autoencoder, whose error is live and "
                "which have no inputs of their own; give Units(layer, 'latent', numbers, "
                f"error='live', of={quoted(self.of)})"
            )

    @property
    def whole(self) -> Literal["mlp", "attention", "stream"]:
        """What kind of block they take apart."""
        return self.of if self.of in ("mlp", "attention") else "stream"

    @property
    def block(self) -> str:
        """The name of the block that they take apart."""
        return f"{LETTERS[self.of]}{self.layer}"

    def __str__(self) -> str:
        n = len(self.numbers)
        return f"{n:,} {self.kind}{'s' * (n != 1)} of {self.block}"


@dataclass(frozen=True)
class Block:
    """Readers and writers that run together: the attention of a layer, its MLP, the logits.

    All indices are places in `Graph.writers` and `Graph.readers`.

    Attributes:
        name: `embedding`, `a5`, `m5`, `logits`, or `pre5`, `mid5`, `post5` of the residual stream.
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
        units: Of a block whose neurons or latents are writers, which these are. They are the first
            of `writers`.
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
    units: Units | None = None

    @property
    def has_fixed_error(self) -> bool:
        """Whether a transcoder's latents are its writers, whose error comes from unpatched runs."""
        return self.units is not None and self.units.error == "fixed"

    @property
    def has_heads(self) -> bool:
        """Whether its writers are heads."""
        return self.kind == "attention" and self.units is None


class Edge(NamedTuple):
    """One (writer, reader) pair, written `a5.h1->a7.h3.k`; at one place, `a5.h1->a7.h3.k@S2`."""

    writer: Writer
    reader: Reader

    @property
    def name(self) -> str:
        return f"{self.writer.name}->{self.reader.name}"

    @property
    def port(self) -> Port | None:
        """By which port it is read; of a move inside attention, the port that moves."""
        return self.reader.port if self.writer.port is None else self.writer.port


MAX_PAIRS = 2**28
"""Largest number of (writer, reader) pairs of a graph. A circuit takes about 12 bytes for each, so
the largest takes 3 GB; those of models with 80 layers of 64 heads have a tenth of it."""

Moves = tuple[tuple[int, int], ...]
"""Pairs of places, by number: one that is attended to, and one that attends to it."""

_MOST_PLACE_NAME = 40
"""Characters of the name of a place."""


def require_place_names(names: Sequence[str]) -> None:
    """Refuse names of places that could not stand in the name of an edge.

    Raises:
        GraphError: They are no texts, there are none, one is there twice, or one has characters
            that names of edges use for something else.
    """
    given: object = names
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise GraphError(f"{quoted(given)} are not names of places; give texts: ('IO', 'end')")
    if not names:
        raise GraphError("there are no places; give the name of at least one")
    for name in names:
        if (
            not 0 < len(name) <= _MOST_PLACE_NAME
            or PLACE_MARK in name
            or "->" in name
            or not name.isprintable()
            or any(character.isspace() for character in name)
        ):
            raise GraphError(
                f"a place cannot be called {quoted(name)}; names of places have 1 to "
                f"{_MOST_PLACE_NAME} characters, no spaces, no {PLACE_MARK} and no ->"
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise GraphError(f"two places are called {quoted(twice)}; give each its own name")


def _require_moves(graph: "Graph", moves: Moves) -> None:
    """Refuse moves that a graph cannot have."""
    if not graph.places:
        raise GraphError("moves lead from place to place; tell places apart first (at_places)")
    if graph.moves:
        raise GraphError("the graph tells the moves inside attention apart already")
    if not graph.split_qkv:
        raise GraphError(
            "moves inside attention are those of queries, keys and values; keep q, k and v apart"
        )
    if any(block.kind == "attention" and not block.has_heads for block in graph.blocks):
        raise GraphError(
            "moves inside attention are those of heads, and in this graph latents write for them; "
            "take latents of MLPs, or leave out crossing"
        )
    numbers = range(graph.n_places)
    if not moves or any(a not in numbers or b not in numbers for a, b in moves):
        raise GraphError(
            f"moves are pairs of places by number, 0 to {graph.n_places - 1}, and at least one, "
            f"not {shortened(quoted(moves))}"
        )


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
        readers: All readers in the order in which they run; in a layer all q, then k, then v. Those
            of one input at all places stand together, in the order of the places.
        blocks: Which of them run together, in the order in which they run.
        places: The places of token positions that readers tell apart, from left to right; empty
            where each reader reads at all positions.
        moves: The pairs of places between which attention moves something along an edge of its own;
            empty where moves are no edges.
    """

    shape: ModelShape
    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]
    blocks: tuple[Block, ...]
    places: tuple[str, ...] = ()
    moves: Moves = ()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.shape, self.writers, self.readers))

    def __repr__(self) -> str:
        shape = self.shape
        parts = "apart" if self.split_qkv else "together"
        places = f"; places {shortened(', '.join(self.places))[:80]}" if self.places else ""
        places += " and moves between them" if self.moves else ""
        return (
            f"<Graph of {self.n_edges} edges: {len(self.writers)} writers, {len(self.readers)} "
            f"readers; {shape.n_layers} layers of {shape.heads_text} heads, q, k and v {parts}"
            f"{places}>"
        )

    @property
    def n_places(self) -> int:
        """How many readers an input has: one for each place."""
        return max(1, len(self.places))

    @cached_property
    def merged(self) -> "Graph":
        """The same graph with one reader for each input, at all positions.

        Its reader number i stands for the readers `i * n_places` to `(i + 1) * n_places - 1`.
        """
        if not self.places:
            return self
        n, (n_writers, n_readers) = self.n_places, self.n_outer
        return Graph(
            self.shape,
            self.writers[:n_writers],
            tuple(reader.at(None) for reader in self.readers[:n_readers:n]),
            tuple(
                replace(
                    block,
                    readers=tuple(reader // n for reader in block.readers[::n]),
                    feeds=block.feeds[::n],
                )
                for block in self.blocks
            ),
        )

    def at_places(self, places: Sequence[str]) -> "Graph":
        """Return the same graph with a reader for each input and each place.

        Args:
            places: The names of the places, from left to right.

        Raises:
            GraphError: A name cannot be used or is there twice, this graph has places already, or
                the graph would be larger than that of any model.
        """
        require_place_names(places)
        if self.places:
            raise GraphError(f"the graph has places already: {', '.join(self.places)}")
        n = len(places)
        n_pairs = len(self.writers) * len(self.readers) * n
        if n_pairs > MAX_PAIRS:
            raise GraphError(
                f"a graph with {n:,} places has {n_pairs:,} pairs of a writer and a reader, and at "
                f"most {MAX_PAIRS:,} are allowed; give fewer places"
            )
        return Graph(
            self.shape,
            self.writers,
            tuple(reader.at(place) for reader in self.readers for place in places),
            tuple(
                replace(
                    block,
                    readers=tuple(r * n + place for r in block.readers for place in range(n)),
                    feeds=tuple(fed for fed in block.feeds for _ in range(n)),
                )
                for block in self.blocks
            ),
            tuple(places),
        )

    def crossing(self, moves: Moves) -> "Graph":
        """Return the same graph with an edge for each port of each head and each of these moves.

        Args:
            moves: The pairs of places, by number, that attention can move something between.

        Raises:
            GraphError: The graph tells no places apart or has moves already, a head has one input,
                there is no such pair, or the graph would be larger than that of any model.
        """
        _require_moves(self, moves)
        n, heads = self.n_places, [self.writers[head] for head in self.heads]
        writers = (
            replace(
                head,
                name=f"{head.name}.{port}{PLACE_MARK}{place}",
                kind="move",
                port=port,
                place=place,
            )
            for head in heads
            for port in SINGLE_PORTS
            for place in self.places
        )
        readers = (
            Reader(head.name, "move", head.stage, head.name, head.layer, head.index).at(place)
            for head in heads
            for place in self.places
        )
        n_pairs = (len(self.writers) + 3 * n * len(heads)) * (len(self.readers) + n * len(heads))
        if n_pairs > MAX_PAIRS:
            raise GraphError(
                f"a graph with the moves of {len(heads):,} heads between {n:,} places has "
                f"{n_pairs:,} pairs of a writer and a reader, and at most {MAX_PAIRS:,} are "
                "allowed; give fewer places, or leave out crossing"
            )
        return replace(
            self,
            writers=(*self.writers, *writers),
            readers=(*self.readers, *readers),
            moves=tuple(moves),
        )

    @cached_property
    def outer(self) -> "Graph":
        """The same graph without moves."""
        if not self.moves:
            return self
        n_writers, n_readers = self.n_outer
        return replace(
            self, writers=self.writers[:n_writers], readers=self.readers[:n_readers], moves=()
        )

    @property
    def n_outer(self) -> tuple[int, int]:
        """How many writers and readers there are outside of attention; they come first."""
        n = self.n_places * len(self.heads) if self.moves else 0
        return len(self.writers) - len(SINGLE_PORTS) * n, len(self.readers) - n

    @cached_property
    def heads(self) -> tuple[int, ...]:
        """The indices of the writers that are heads, in the order in which they run."""
        return tuple(i for block in self.with_heads for i in block.writers)

    @cached_property
    def head_number(self) -> dict[int, int]:
        """The position in `heads` of each head, by its index as a writer."""
        return {head: number for number, head in enumerate(self.heads)}

    @cached_property
    def inner(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The indices of all moves, to take them out of masks: `mask[graph.inner]`.

        What is taken out has the axes head (in the order of `heads`), port (q, k, v), the place
        that is attended to, and the place that attends. Pairs outside of `moves` are no edges.
        """
        (n_writers, n_readers), n = self.n_outer, self.n_places
        n_heads = len(self.heads) if self.moves else 0
        n_ports = len(SINGLE_PORTS)
        rows = np.arange(n_heads * n_ports * n).reshape(n_heads, n_ports, n, 1)
        columns = np.arange(n_heads * n).reshape(n_heads, 1, 1, n)
        return n_writers + rows, n_readers + columns

    def moves_of(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which moves a mask keeps, with the axes of `inner`.

        Pairs of places between which nothing can move count as kept.
        """
        found: NDArray[np.bool_] = kept[self.inner] | ~self._exists[self.inner]
        return found

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
        """The indices of the writers that are embeddings."""
        return tuple(i for i, writer in enumerate(self.writers) if writer.kind == "embedding")

    @cached_property
    def sources(self) -> tuple[int, ...]:
        """The indices of the writers that read nothing: embeddings, and errors that are fixed."""
        return tuple(i for i, readers in enumerate(self.inputs) if not readers)

    @cached_property
    def units(self) -> tuple[Units, ...]:
        """The units that are writers, in the order in which their blocks run."""
        return tuple(block.units for block in self.blocks if block.units is not None)

    @property
    def n_units(self) -> int:
        """How many neurons and latents are writers."""
        return sum(len(units.numbers) for units in self.units)

    @cached_property
    def logits(self) -> tuple[int, ...]:
        """The indices of the readers that the logits are computed from: one for each place."""
        return tuple(i for i, reader in enumerate(self.readers) if reader.kind == "logits")

    @cached_property
    def feeds(self) -> tuple[tuple[int, ...], ...]:
        """For each reader, the writers that compute with what it receives; none for the logits.

        With moves, what a head receives by a port is what its moves of that port write, and what
        its moves arrive at is what the head itself writes.
        """
        pairs = [
            pair for block in self.blocks for pair in zip(block.readers, block.feeds, strict=True)
        ]
        found = [writers for _, writers in sorted(pairs)]
        if self.moves:
            found = [self._moved_by(self.readers[i], writers) for i, writers in enumerate(found)]
            found += [(head,) for head in self.heads for _ in self.places]
        return tuple(found)

    def _moved_by(self, reader: Reader, heads: Sequence[int]) -> tuple[int, ...]:
        """Return the writers of the moves that use what a reader receives for some heads."""
        if reader.port not in SINGLE_PORTS:
            return tuple(heads)
        rows, own = self.inner[0][..., 0], self.places.index(str(reader.place))
        used = [own] if reader.looks_back else [a for a, b in self.moves if b == own]
        port = SINGLE_PORTS.index(reader.port)
        return tuple(int(rows[self.head_number[head], port, a]) for head in heads for a in used)

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
        """For each writer, the readers that it computes from; none for the embeddings.

        At every place: `inputs_at` tells which of them count for what it writes at one.
        """
        found: list[list[int]] = [[] for _ in self.writers]
        for reader, writers in enumerate(self.feeds):
            for writer in writers:
                found[writer].append(reader)
        return tuple(tuple(readers) for readers in found)

    def inputs_at(self, writer: int, reader: int) -> tuple[int, ...]:
        """Return the readers that a writer computes from what a reader receives of it.

        These are its inputs at the reader's place, and its keys and values at all places.
        """
        place = self.readers[reader].place
        return tuple(
            each
            for each in self.inputs[writer]
            if self.readers[each].looks_back or self.readers[each].place == place
        )

    @cached_property
    def edge_mask(self) -> Bool[Tensor, "writer reader"]:
        """True where the reader reads the writer (`Reader.reads`), so that an edge exists."""
        writes_at = torch.tensor([writer.stage for writer in self.writers])[:, None]
        reads_at = torch.tensor([reader.stage for reader in self.readers])
        since = torch.tensor([reader.since for reader in self.readers])
        exists = (since <= writes_at) & (writes_at < reads_at)
        if self.moves:
            n_writers, n_readers = self.n_outer
            exists[n_writers:], exists[:, n_readers:] = False, False
            possible = torch.zeros(self.n_places, self.n_places, dtype=torch.bool)
            possible[tuple(torch.tensor(self.moves).T)] = True
            exists[self.inner] = possible
        return exists

    @cached_property
    def _exists(self) -> NDArray[np.bool_]:
        return self.edge_mask.numpy()

    @cached_property
    def _ports(self) -> dict[tuple[int, int, Input], int]:
        found: dict[tuple[int, int, Input], int] = {}
        for number, reader in enumerate(self.merged.readers):
            if reader.layer is None or reader.index is None or reader.port is None:
                continue
            size = self.shape.layers[reader.layer].heads_per_kv_head
            first, n = reader.index, 1
            if reader.kind == "kv group":
                first, n = first * size, size
            for head in range(first, first + n):
                found |= {(reader.layer, head, p): number for p in single_ports(reader.port)}
        return found

    def input_of(self, layer: int, head: int, port: SinglePort) -> int:
        """Return the reader of `merged` that a head's query, key or value is computed from."""
        return self._ports[layer, head, port]

    def input_of_writer(self, head: int, port: SinglePort) -> int:
        """Return the reader of `merged` that a writer's query, key or value is computed from."""
        writer = self.writers[head]
        assert writer.layer is not None and writer.index is not None
        return self.input_of(writer.layer, writer.index, port)

    @property
    def n_edges(self) -> int:
        return int(self.edge_mask.sum())

    @property
    def n_components(self) -> int:
        """Number of components that write: embedding, heads and MLPs, or parts of these."""
        return self.n_outer[0]

    @property
    def heads_and_mlps(self) -> tuple[Writer, ...]:
        """All writers but the embeddings, in the order in which they run."""
        outer = self.writers[: self.n_outer[0]]
        return tuple(writer for writer in outer if writer.kind != "embedding")

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

    def heads_in(self, layer: int) -> range:
        """Return the numbers of the query heads that read in a layer."""
        return range(self.shape.layers[layer].n_heads)

    @property
    def norms_heads(self) -> bool:
        """Whether the sum of what the heads of a layer write is normed before it is added."""
        return self.shape.heads_share_norm

    @property
    def with_heads(self) -> tuple[Block, ...]:
        """The blocks whose writers are heads."""
        return tuple(block for block in self.blocks if block.has_heads)

    def is_parallel(self, layer: int) -> bool:
        """Return whether a layer has an MLP that reads the same stream as its attention."""
        mlp = self.mlps.get(layer)
        return mlp is not None and mlp.stage == self.attention[layer].stage

    @cached_property
    def kind_of(self) -> dict[str, Kind]:
        """Kind of each component, by its name."""
        ends: list[Reader | Writer] = [*self.merged.readers, *self.merged.writers]
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
        if writer.port is not None or self._is_inner(reader):
            if not self._exists[self.writer_index[writer.name], self.reader_index[reader.name]]:
                raise GraphError(
                    f"no edge {quoted(name)}: moves inside attention lead from a port of a head at "
                    "a place to the same head at a place that may attend to it, as in "
                    f"'a0.h1.k@{self.places[0]}->a0.h1@{self.places[-1]}'"
                )
        elif writer.stage < reader.since:
            raise GraphError(
                f"no edge {quoted(name)}: latents take the stream apart between {writer.name} and "
                f"{reader.name}, which reads what they write"
            )
        elif writer.stage >= reader.stage:
            raise GraphError(
                f"no edge {quoted(name)}: {writer.name} writes at stage {writer.stage}, "
                f"not before {reader.name} has read the stream (stage {reader.stage})"
            )
        return Edge(writer, reader)

    def _is_inner(self, reader: Reader) -> bool:
        return self.reader_index[reader.name] >= self.n_outer[1]

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
        match edge:
            case (int(w), int(r)) if min(w, r) >= 0 and w < len(self.writers):
                if r < len(self.readers) and self._exists[w, r]:
                    return w, r
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
            raise GraphError("the mask keeps a pair that is no edge of the graph")
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

        Four kinds of edges, told apart by the attribute `kind`: `edge` is a kept edge and has its
        `name` and `port`; `group` leads from a key/value head to the query heads that share it, and
        from an MLP, or from heads, to their neurons or latents and the rest, where these are
        writers;
        `norm` marks that a head acts through the shared norm of its block (`ModelShape`);
        `attention` leads from what a head reads as key or value at a place to the head at every
        place that may attend to it. Without a mask the whole graph is returned. Nodes carry `kind`,
        `stage`, `layer`, and the number of a `head`, `neuron` or `latent`.

        With places there is a node per component and place (`a7.h3@S2`), with `place`, and one for
        what a head reads as key and value (`a7.h3.kv@S2`). Moves inside attention lead from there
        to the head; where they are edges, only those that are kept do.
        """
        network = nx.MultiDiGraph()
        outer = self.writers[: self.n_outer[0]]
        ends: list[Reader | Writer] = [*self.readers, *outer]
        for end in ends:
            for node, place in self._nodes(end):
                network.add_node(node, kind=end.kind, stage=end.stage, layer=end.layer)
                if end.index is not None:
                    network.nodes[node][NUMBERED_AS[end.kind]] = end.index
                if place is not None:
                    network.nodes[node]["place"] = place
        for reader, fed in zip(self.readers, self.outer.feeds, strict=False):
            is_shared = self._is_shared(reader, fed)
            if (is_shared or (reader.looks_back and self.places)) and not (
                reader.looks_back and self.moves
            ):
                self._add_moves(network, reader, fed, "group" if is_shared else "attention")
        for edge in self.edges(kept):
            self._add_edge(network, edge)
        return network

    def _is_shared(self, reader: Reader, fed: Sequence[int]) -> bool:
        """Return whether a reader belongs to a component that writes through others."""
        return any(self.writers[writer].component != reader.component for writer in fed)

    def _nodes(self, end: Reader | Writer) -> list[tuple[str, str | None]]:
        """Return the nodes of an end, each with its place."""
        if isinstance(end, Writer):
            return [(self._node(end.component, place), place) for place in self.places or (None,)]
        return [(self.node_of(end), end.place)]

    @staticmethod
    def _node(component: str, place: str | None) -> str:
        return component if place is None else f"{component}{PLACE_MARK}{place}"

    def node_of(self, reader: Reader) -> str:
        """Return the node of the network that a reader belongs to."""
        moves = reader.looks_back and reader.kind == "head" and reader.place is not None
        return self._node(f"{reader.component}.kv" if moves else reader.component, reader.place)

    def nodes_of(self, edge: Edge) -> tuple[str, str]:
        """Return the nodes of the network that an edge leads from and to."""
        tail = self.tail_of(edge)
        if isinstance(tail, Reader):
            return self.node_of(tail), self.node_of(edge.reader)
        return self._node(tail.component, edge.reader.place), self.node_of(edge.reader)

    def tail_of(self, edge: Edge) -> Writer | Reader:
        """Return the end that says where an edge leads from: of a move, what is attended to."""
        if edge.writer.kind != "move":
            return edge.writer
        key = self.merged.input_of_writer(self.writer_index[edge.writer.component], "k")
        return self.merged.readers[key].at(edge.writer.place)

    def norm_node(self, edge: Edge) -> str | None:
        """Return the node of the norm that an edge's writer shares with others; None without."""
        if edge.writer.port is not None:
            return None
        block = self.block_of[edge.writer.name]
        return self._node(f"{block.name}.norm", edge.reader.place) if block.coupled else None

    def _add_moves(
        self, network: nx.MultiDiGraph, reader: Reader, fed: Sequence[int], kind: str
    ) -> None:
        """Lead from what a key, a value or an MLP reads to what writes it."""
        for writer in fed:
            for node, place in self._nodes(self.writers[writer]):
                if reader.looks_back or place == reader.place:
                    network.add_edge(self.node_of(reader), node, kind, kind=kind)

    def _add_edge(self, network: nx.MultiDiGraph, edge: Edge) -> None:
        writer, reader = edge
        source, target = self.nodes_of(edge)
        port = edge.port or ""
        network.add_edge(source, target, edge.name, kind="edge", name=edge.name, port=port)
        block = self.block_of[writer.component]
        if (norm := self.norm_node(edge)) is not None:
            network.add_node(norm, kind="norm", stage=block.stage, layer=block.layer)
            for other in block.writers:
                component = self.writers[other].component
                network.add_edge(self._node(component, reader.place), norm, "norm", kind="norm")
            network.add_edge(norm, target, "norm", kind="norm")
