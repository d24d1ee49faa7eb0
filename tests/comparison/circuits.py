"""Circuits that tests compare: named by their edges, or drawn at random."""

import numpy as np
import torch

from circuitfind.circuit import Circuit
from circuitfind.evaluation.random_circuits import layer_blocks
from circuitfind.graph import Graph
from circuitfind.shape import ModelShape


def shape(n_layers=2, n_heads=3, n_kv_heads=None, **others) -> ModelShape:
    return ModelShape(n_layers, n_heads, n_kv_heads or n_heads, 8, 4, 10, **others)


def circuit(graph: Graph, *edges: str, effects=None, **origin) -> Circuit:
    return Circuit(graph, graph.mask_of(edges), effects, origin)


def drawn(graph: Graph, share: float, generator: np.random.Generator) -> Circuit:
    """A circuit that keeps each edge with a probability."""
    kept = generator.random(tuple(graph.edge_mask.shape)) < share
    return Circuit(graph, torch.from_numpy(kept) & graph.edge_mask)


def redrawn(found: Circuit, generator: np.random.Generator) -> Circuit:
    """Another circuit with as many edges between any two layers, by a shuffle of each stratum."""
    numbers, kept = layer_blocks(found.graph).numpy(), found.kept.numpy()
    mixed = kept.copy()
    for number in np.unique(numbers):
        places = (numbers == number) & found.graph.edge_mask.numpy()
        mixed[places] = generator.permutation(kept[places])
    return Circuit(found.graph, torch.from_numpy(mixed))


def never_too_small(stated) -> bool:
    """At most a share p has a p-value of p or less, give or take three standard errors."""
    stated = np.array(stated)
    levels = np.arange(0.05, 1, 0.05)
    noise = 3 * np.sqrt(levels * (1 - levels) / len(stated))
    return all(
        (stated <= level).mean() <= level + extra
        for level, extra in zip(levels, noise, strict=True)
    )
