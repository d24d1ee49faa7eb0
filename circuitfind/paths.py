"""Which edges lie on a path of kept edges from what reads nothing to the logits.

A path leads from edge to edge through a component at one place, except that what a key or a value
receives at a place may reach its heads at every place. Two passes over the blocks find both ends of
all paths at once: where writers are reached, and where readers are used.
"""

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.graph import Graph


def on_paths(graph: Graph, kept: Bool[Tensor, "writer reader"]) -> Bool[Tensor, "writer reader"]:
    """Return the kept edges on a path of kept edges from what reads nothing to the logits.

    Where heads share a norm, one that reads nothing of the clean run still writes something new:
    another head's change reaches it through the scale of the norm.
    """
    edges = kept.cpu().numpy().reshape(len(kept), -1, graph.n_places)
    found = edges & _reached(graph.merged, edges)[:, None] & _used(graph.merged, edges)
    return torch.from_numpy(found.reshape(kept.shape))


def _reached(
    graph: Graph, edges: Bool[np.ndarray, "writer reader place"]
) -> Bool[np.ndarray, "writer place"]:
    """Return at which places what writers write depends on the embedding, or on a fixed error."""
    reached = np.zeros((len(graph.writers), edges.shape[2]), dtype=bool)
    reached[list(graph.sources)] = True
    for block in graph.blocks:
        writers = list(block.writers)
        for reader, fed in zip(block.readers, block.feeds, strict=True):
            received = edges[:, reader] & reached
            reached[list(fed)] |= _at_places(graph, reader, received)
        if block.coupled:
            reached[writers] = reached[writers].any(axis=0)
    return reached


def _used(
    graph: Graph, edges: Bool[np.ndarray, "writer reader place"]
) -> Bool[np.ndarray, "reader place"]:
    """Return at which places what readers receive is used for the logits."""
    used = np.zeros(edges.shape[1:], dtype=bool)
    used[list(graph.logits)] = True
    needed = np.zeros((len(graph.writers), edges.shape[2]), dtype=bool)
    for block in reversed(graph.blocks):
        writers = list(block.writers)
        needed[writers] = (edges[writers] & used).any(axis=1)
        if block.coupled:
            needed[writers] = needed[writers].any(axis=0)
        for reader, fed in zip(block.readers, block.feeds, strict=True):
            if fed:
                used[reader] = _at_places(graph, reader, needed[list(fed)])
    return used


def _at_places(
    graph: Graph, reader: int, at: Bool[np.ndarray, "writer place"]
) -> Bool[np.ndarray, " place"]:
    """Return the places at which any of some writers belongs together with a reader."""
    places: NDArray[np.bool_] = np.logical_or.reduce(at, axis=0)
    return places | places.any() if graph.readers[reader].looks_back else places
