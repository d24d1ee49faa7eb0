"""Random circuits: what any circuit of this kind does by chance.

A figure of a circuit means something next to the same figure of random circuits. What these share
with the circuit is the null hypothesis:

    size     the number of edges, all of them on paths from the embedding to the logits
    layer    the number of edges between any two layers and into each kind of port; not necessarily
             connected
    degree   how many edges every component writes and every port reads, up to the names of the
             heads of a layer: the same parts, wired at random. As connected as the circuit is

Where places are told apart, these numbers are those at each place.

`size` draws walks from the embedding, as Shi et al. 2024 (arXiv 2410.13032) do, but ends them so
that the number of edges is met exactly. `degree` exchanges the readers of two random edges many
times over, which changes no degree, and renames heads. The result of so many exchanges is not
independent of where they began; so they lead from the circuit to another one first, and from there
to each random circuit. Then the circuit and the random ones are exchangeable under the null, and
p-values are exact however slowly exchanges mix (Besag & Clifford 1989, "Generalized Monte Carlo
significance tests", the parallel method; see Howes 2023, arXiv 2310.04924).
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.circuit import Circuit
from circuitfind.errors import MethodError
from circuitfind.evaluation.random_walks import connected_mask
from circuitfind.graph import Graph

Null = Literal["degree", "layer", "size"]
"""What random circuits share with a circuit."""

Mask = NDArray[np.bool_]

_EXCHANGES_PER_EDGE = 10


def random_circuits(
    circuit: Circuit, n: int, *, null: Null = "degree", seed: int = 0
) -> list[Circuit]:
    """Draw random circuits that share something with a circuit; see the top of the file.

    Args:
        circuit: What they are to be compared with.
        n: How many.
        null: What they share with it.
        seed: Fixes them.

    Raises:
        MethodError: There is no such null.
    """
    if null not in get_args(Null):
        raise MethodError(f"no null named {null!r}; choose one of {', '.join(get_args(Null))}")
    generator = np.random.default_rng(seed)
    graph, kept = circuit.graph, circuit.kept.cpu().numpy()
    if null == "degree":
        hub = rewired(graph, kept, generator)
        drawn = [rewired(graph, hub, generator) for _ in range(n)]
    elif null == "layer":
        blocks = layer_blocks(graph).numpy()
        drawn = [_redrawn(blocks, kept, generator) for _ in range(n)]
    else:
        drawn = [connected_mask(graph, circuit.n_edges, generator) for _ in range(n)]
    return [Circuit(graph, torch.from_numpy(mask)) for mask in drawn]


def p_value(observed: float, drawn: Sequence[float]) -> float:
    """Return how often chance does at least as well: (1 + number of drawn >= observed) / (1 + n).

    The circuit counts as one of the random ones, so that a p-value is never 0 and, under the null,
    at most a share p of all circuits has a p-value of p or less.
    """
    return (1 + sum(value >= observed for value in drawn)) / (1 + len(drawn))


def layer_blocks(graph: Graph) -> Int[Tensor, "writer reader"]:
    """Number the pairs of a layer's writers of one kind and a layer's readers of one port.

    Those at different places have different numbers. -1 where there is no edge.
    """
    writers = _numbered([(w.stage, w.kind, w.port, w.place) for w in graph.writers])
    readers = _numbered([(r.stage, r.kind, r.port, r.place) for r in graph.readers])
    blocks = writers[:, None] * (int(readers.max()) + 1) + readers[None, :]
    return blocks.masked_fill(~graph.edge_mask, -1)


def _numbered(keys: Sequence[tuple[object, ...]]) -> Int[Tensor, " item"]:
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([numbers[key] for key in keys])


def _redrawn(blocks: NDArray[np.int64], kept: Mask, generator: np.random.Generator) -> Mask:
    """Keep as many edges of every block, any of them."""
    drawn, order = np.zeros_like(kept), blocks.argsort(axis=None, kind="stable")
    found, counts = np.unique(blocks[kept], return_counts=True)
    starts, ends = (np.searchsorted(blocks.flat[order], found, side) for side in ("left", "right"))
    for start, end, count in zip(starts, ends, counts, strict=True):
        drawn.flat[generator.choice(order[start:end], size=count, replace=False)] = True
    return drawn


def rewired(graph: Graph, kept: Mask, generator: np.random.Generator) -> Mask:
    """Exchange the readers of random pairs of edges many times, and rename heads within layers.

    Only those of edges at the same place. No writer gains or loses an edge at a place, and no
    reader does, so what was on a path from the embedding to the logits before still is.
    """
    drawn, possible = kept.copy(), graph.edge_mask.numpy()
    for place in range(graph.n_places):
        at_place = np.s_[:, place :: graph.n_places]
        _exchange_readers(drawn[at_place], possible[at_place], generator)
    return _renamed(graph, drawn, generator)


def _exchange_readers(drawn: Mask, possible: Mask, generator: np.random.Generator) -> None:
    """Exchange the readers of random pairs of edges of a mask, in place."""
    writers, readers = (index.tolist() for index in np.nonzero(drawn))
    n_edges = len(writers)
    if n_edges < 2:
        return
    pairs = generator.integers(0, n_edges, (_EXCHANGES_PER_EDGE * n_edges, 2))
    for one, other in pairs.tolist():
        crossed = (writers[one], readers[other]), (writers[other], readers[one])
        if all(possible[edge] and not drawn[edge] for edge in crossed):
            drawn[writers[one], readers[one]] = drawn[writers[other], readers[other]] = False
            drawn[crossed[0]] = drawn[crossed[1]] = True
            readers[one], readers[other] = readers[other], readers[one]


def _renamed(graph: Graph, kept: Mask, generator: np.random.Generator) -> Mask:
    """Permute the exchangeable writers of every block, and their readers with them."""
    writers, readers = np.arange(kept.shape[0]), np.arange(kept.shape[1])
    for block in graph.blocks:
        groups = [np.array(group) for group in block.exchangeable]
        if not groups:
            continue
        order = [groups[place] for place in generator.permutation(len(groups))]
        order = [group[generator.permutation(len(group))] for group in order]
        writers[list(block.writers)] = np.concatenate(order)
        for reader, fed in zip(block.readers, block.feeds, strict=True):
            readers[reader] = graph.outer.alike(reader, int(writers[fed[0]]))
    if graph.moves:
        rows, columns = graph.inner
        heads = [graph.head_number[int(writers[head])] for head in graph.heads]
        writers[rows.flatten()] = rows[heads].flatten()
        readers[columns.flatten()] = columns[heads].flatten()
    return kept[np.ix_(writers, readers)]
