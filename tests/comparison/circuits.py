"""Circuits that tests compare: named by their edges, or drawn at random."""

import numpy as np
import torch

from circuitfind.circuit import Circuit
from circuitfind.comparison.chance import strata
from circuitfind.graph import Graph, ModelShape


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
    numbers, kept = strata(found.graph), found.kept.numpy()
    mixed = kept.copy()
    for number in np.unique(numbers):
        places = (numbers == number) & found.graph.edge_mask.numpy()
        mixed[places] = generator.permutation(kept[places])
    return Circuit(found.graph, torch.from_numpy(mixed))
