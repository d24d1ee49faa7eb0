"""In which order ACDC visits edges: part of its result, so fully determined and recorded.

From the logits back, so that everything before the edge being tested is still the clean run.
Within a layer the MLP comes first, then the moves inside attention, where they are edges (head by
head, into the last place first; from the last place first; v, k, q), and then the heads' v readers,
their k readers and their q readers; each reader's writers from the latest back, the embedding last.
Or an order of the user's own: a list of readers and edges.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from circuitfind.errors import GraphError, MethodError, quoted
from circuitfind.files import read_text
from circuitfind.graph import PLACE_MARK, SINGLE_PORTS, Block, Edge, Graph, Reader

NamedOrder = Literal["backward-index", "forward-index", "random"]
"""How the heads of a layer are visited: H-1..0 as the original code does, 0..H-1, or shuffled."""

Order = str | Sequence[str | Edge | Reader]
"""A `NamedOrder`, a file with the name of a reader or an edge on each line, or those in sequence.

A reader stands for all edges into it, from the latest writer back; where places are told apart, its
name without a place for those at all places, the last place first.
"""

Visit = tuple[int, list[int]]
"""A reader and some of its writers, as indices, in the order in which the edges are tested."""


def settled_order(order: Order) -> str | tuple[str, ...]:
    """Return the name of an order, or the names in an order of the user's own.

    Raises:
        MethodError: There is neither an order nor a file of that name, or it is not a text file.
    """
    if not isinstance(order, str):
        return tuple(item if isinstance(item, str) else item.name for item in order)
    return order if order in get_args(NamedOrder) else _from_file(Path(order))


def _from_file(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise MethodError(
            f"no order named {quoted(str(path))}; choose one of "
            f"{', '.join(get_args(NamedOrder))}, or give a file with the name of a reader or an "
            "edge on each line"
        )
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except (OSError, ValueError) as error:
        raise MethodError(f"cannot read the order in {path} ({error}); give a text file") from None
    return tuple(line for line in lines if line and not line.startswith("#"))


def visits(graph: Graph, order: Order, seed: int) -> list[Visit]:
    """Return each reader with its writers, as indices, in the order in which ACDC tests them.

    Raises:
        MethodError: An order of the user's own names something that the graph does not have, or
            does not name every edge exactly once.
    """
    settled = settled_order(order)
    if isinstance(settled, tuple):
        return _listed(graph, settled)
    return _by_layer(graph, settled, seed)


def _listed(graph: Graph, names: Sequence[str]) -> list[Visit]:
    usual = dict(_by_layer(graph, "backward-index", seed=0))
    pairs: dict[tuple[int, int], None] = {}
    for name in names:
        for pair in _pairs(graph, name, usual):
            if pair in pairs:
                raise MethodError(
                    f"the order has {_name(graph, pair)!r} twice; name each edge once, by itself "
                    "or with its reader"
                )
            pairs[pair] = None
    missing = [(w, reader) for reader in usual for w in usual[reader] if (w, reader) not in pairs]
    if missing:
        raise MethodError(
            f"the order lacks {len(missing)} of {graph.n_edges} edges, first "
            f"{_name(graph, missing[0])!r}; name every reader or edge of the graph"
        )
    by_reader = groupby(pairs, key=lambda pair: pair[1])
    return [(reader, [writer for writer, _ in some]) for reader, some in by_reader]


def _pairs(graph: Graph, name: str, usual: dict[int, list[int]]) -> list[tuple[int, int]]:
    """Return the writers and readers of the edges that a name of an order stands for."""
    if "->" in name:
        try:
            return [graph.index(name)]
        except GraphError as error:
            raise MethodError(f"the order cannot be used: {error}") from None
    at_places = (f"{name}{PLACE_MARK}{place}" for place in reversed(graph.places))
    readers = [graph.reader_index[e] for e in (name, *at_places) if e in graph.reader_index]
    if not readers:
        raise MethodError(
            f"the order names {quoted(name)}, which is neither a reader nor an edge of the graph; "
            "readers have names such as 'logits', 'm0' or 'a0.h1.q'"
        )
    return [(writer, reader) for reader in readers for writer in usual[reader]]


def _name(graph: Graph, pair: tuple[int, int]) -> str:
    return Edge(graph.writers[pair[0]], graph.readers[pair[1]]).name


def _by_layer(graph: Graph, order: str, seed: int) -> list[Visit]:
    blocks = _ordered(graph, order, seed)
    writers = np.array([writer for _, ordered in blocks for writer in ordered])
    reads = graph.edge_mask.numpy()[writers]
    return [
        (reader, writers[reads[:, reader]].tolist())
        if reader < graph.n_outer[1]
        else (reader, _moves_into(graph, reader))
        for reader in _readers(graph, blocks, order)
    ]


def _moves_into(graph: Graph, reader: int) -> list[int]:
    """Return the writers of the moves into a head at a place: from the last place, v, k, q."""
    rows, columns = graph.inner
    head = int(np.argwhere(columns == reader)[0][0])
    exists = graph.edge_mask.numpy()[:, reader]
    every = rows[head, :, ::-1, 0].T[:, ::-1].flatten().tolist()
    return [writer for writer in every if exists[writer]]


def _ordered(graph: Graph, order: str, seed: int) -> list[tuple[Block, list[int]]]:
    """Return each block, the last one first, with its writers in the order of the search."""
    shuffle = random.Random(seed)
    blocks = []
    for block in graph.blocks:
        writers = list(block.writers)
        if order == "random" and block.kind == "attention":
            shuffle.shuffle(writers)
        elif order == "backward-index" or block.kind == "embedding":
            writers.reverse()
        blocks.append((block, writers))
    return blocks[::-1]


def _readers(
    graph: Graph, blocks: Sequence[tuple[Block, Sequence[int]]], order: str
) -> Iterator[int]:
    for block, writers in blocks:
        if block.kind == "logits":
            yield from reversed(block.readers)
        if graph.moves and block.kind == "attention":
            columns = graph.inner[1][[graph.head_number[head] for head in writers]]
            yield from columns[..., ::-1].flatten().tolist()
        # The v readers first. Key/value heads come in the order of their first query head.
        inputs = zip(*_inputs(graph.outer, block, writers, order), strict=True)
        for readers in reversed(list(inputs)):
            yield from dict.fromkeys(readers)


def _inputs(
    graph: Graph, block: Block, writers: Sequence[int], order: str
) -> list[tuple[int, ...]]:
    """Return the readers of each component that reads: a head's, where latents write for it."""
    if block.kind != "attention" or block.has_heads:
        return [graph.inputs[writer] for writer in writers if graph.inputs[writer]]
    heads = graph.heads_in(block.layer)
    return [
        tuple(
            place
            for reader in dict.fromkeys(graph.input_of(block.layer, head, p) for p in SINGLE_PORTS)
            for place in range(reader * graph.n_places, (reader + 1) * graph.n_places)
        )
        for head in (reversed(heads) if order == "backward-index" else heads)
    ]
