"""In which order ACDC visits edges: part of its result, so fully determined and recorded.

From the logits back, so that everything before the edge being tested is still the clean run.
Within a layer the MLP comes first and then the heads' v readers, their k readers and their q
readers; each reader's writers from the latest back, the embedding last.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from circuitfind.graph import Graph

Order = Literal["backward-index", "forward-index", "random"]
"""How the heads of a layer are visited: H-1..0 as the original code does, 0..H-1, or shuffled."""


def visits(graph: Graph, order: Order, seed: int) -> list[tuple[int, list[int]]]:
    """Return each reader with its writers, as indices, in the order in which ACDC tests them."""
    heads = _heads_by_layer(graph, order, seed)
    writers = np.array(list(_writers(graph, heads)))
    reads = graph.edge_mask.numpy()[writers]
    return [(reader, writers[reads[:, reader]].tolist()) for reader in _readers(graph, heads)]


def _heads_by_layer(graph: Graph, order: Order, seed: int) -> list[list[int]]:
    """Return the order of the query heads of each layer."""
    shuffle = random.Random(seed)
    layers = []
    for _ in range(graph.shape.n_layers):
        heads = list(range(graph.shape.n_heads))
        if order == "backward-index":
            heads.reverse()
        elif order == "random":
            shuffle.shuffle(heads)
        layers.append(heads)
    return layers


def _writers(graph: Graph, heads: Sequence[Sequence[int]]) -> Iterator[int]:
    for layer in reversed(range(graph.shape.n_layers)):
        if graph.shape.has_mlp:
            yield graph.writer_index[f"m{layer}"]
        for head in heads[layer]:
            yield graph.head_writers(layer)[head]
    embeddings = [index for index, writer in enumerate(graph.writers) if writer.stage == 0]
    yield from reversed(embeddings)


def _readers(graph: Graph, heads: Sequence[Sequence[int]]) -> Iterator[int]:
    yield graph.reader_index["logits"]
    for layer in reversed(range(graph.shape.n_layers)):
        if graph.shape.has_mlp:
            yield graph.reader_index[f"m{layer}"]
        for port in reversed(graph.ports):
            readers = graph.head_readers(layer, port)
            # With grouped heads, key/value heads come in the order of their first query head.
            group = graph.shape.n_heads // len(readers)
            yield from dict.fromkeys(readers[head // group] for head in heads[layer])
