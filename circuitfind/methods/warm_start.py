"""Gates that begin at what attribution says: a warm start of learned masks (arXiv 2510.06811).

The edges into the readers of a stage are ranked by the size of their eap-ig score, from 0 for the
smallest to 1. An edge of rank q begins with the probability

    p = sigmoid((q - b) / 0.2),    b such that the mean of p over all edges is 0.1
"""

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.graph import Graph
from circuitfind.methods.eap_ig import EapIg, EapIgOptions
from circuitfind.methods.mattr import soft_top

_WIDTH, _SHARE = 0.2, 0.1


def warm_probabilities(engine: IncrementalEngine) -> Float[Tensor, " edge"]:
    """Return the probability of each edge to be open at first, in the order of the mask."""
    graph = engine.graph
    scores = EapIg().scores(engine, EapIgOptions()).values.abs()
    ranks = torch.zeros_like(scores)
    for readers in _readers_by_stage(graph):
        exists = graph.edge_mask[:, readers]
        sizes = scores[:, readers][exists]
        # How many are smaller, so that equal scores have one rank.
        order = torch.searchsorted(sizes.sort().values, sizes).double()
        of_stage = ranks[:, readers].masked_scatter(exists, order / max(1, len(sizes) - 1))
        ranks[:, readers] = of_stage
    of_edges = ranks[graph.edge_mask]
    return soft_top(of_edges, _SHARE * len(of_edges), _WIDTH)


def _readers_by_stage(graph: Graph) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for index, reader in enumerate(graph.readers):
        found.setdefault(reader.stage, []).append(index)
    return list(found.values())
