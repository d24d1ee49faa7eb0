"""Gates that are learned: random masks between 0 and 1 that are often exactly 0 or 1.

A gate is drawn from a hard concrete distribution (Louizos et al. 2018, arXiv 1712.01312): a sigmoid
of logistic noise around `location`, stretched beyond 0 and 1 and cut off there. Its gradient passes
through the draw, and the probability that it is not 0 is known.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import Graph
from circuitfind.methods.components import edges_between, feeds

Gates = Float[Tensor, " gate"]
Mask = Float[Tensor, "writer reader"]

TEMPERATURE, LOWEST, HIGHEST = 2 / 3, -0.1, 1.1
"""How soft the sigmoid is, and how far it is stretched; the values of Louizos et al."""

_SMALLEST = 1e-6


def drawn(location: Gates, generator: torch.Generator) -> Gates:
    """Draw every gate, as a differentiable function of its location."""
    uniform = torch.rand(location.shape, generator=generator, dtype=location.dtype)
    noise = uniform.clamp(_SMALLEST, 1 - _SMALLEST).logit().to(location.device)
    stretched = ((noise + location) / TEMPERATURE).sigmoid() * (HIGHEST - LOWEST) + LOWEST
    return stretched.clamp(0, 1)


def open_probability(location: Gates) -> Gates:
    """Return the probability that each gate is not exactly 0."""
    return (location - TEMPERATURE * math.log(-LOWEST / HIGHEST)).sigmoid()


@runtime_checkable
class GateLayout(Protocol):
    """Says what the gates of a graph stand for."""

    @property
    def n(self) -> int:
        """How many gates there are."""
        ...

    def mask(self, gates: Gates) -> Mask:
        """Return the soft mask of all edges."""
        ...

    def edges_open(self, probability: Gates) -> Float[Tensor, ""]:
        """Return the expected number of edges that are kept."""
        ...

    def scores(self, probability: Gates) -> Mask:
        """Return the probability of every edge."""
        ...


@dataclass(frozen=True)
class EdgeGates:
    """A gate per edge."""

    graph: Graph

    @property
    def n(self) -> int:
        return self.graph.n_edges

    def mask(self, gates: Gates) -> Mask:
        """Return the gates at the places of their edges."""
        places = self.graph.edge_mask.to(gates.device)
        return gates.new_zeros(places.shape).masked_scatter(places, gates)

    def edges_open(self, probability: Gates) -> Float[Tensor, ""]:
        """Return the sum of all probabilities."""
        return probability.sum()

    def scores(self, probability: Gates) -> Mask:
        """Return the probabilities at the places of their edges."""
        return self.mask(probability).double().cpu()


@dataclass(frozen=True)
class ComponentGates:
    """A gate per head and MLP, on what it writes; the embedding is always kept."""

    graph: Graph

    @property
    def n(self) -> int:
        return sum(writer.stage > 0 for writer in self.graph.writers)

    def mask(self, gates: Gates) -> Mask:
        """Return each writer's gate on all its edges."""
        return self._by_writer(gates)[:, None].expand(-1, len(self.graph.readers))

    def edges_open(self, probability: Gates) -> Float[Tensor, ""]:
        """Return the expected number of edges between open components."""
        writes = self._by_writer(probability)
        fed, places = (
            part.to(probability.device, probability.dtype)
            for part in (self._feeds, self.graph.edge_mask)
        )
        # The probability that one of the components that a reader feeds is open.
        reads = 1 - (1 - fed * writes).prod(1) * (1 - (fed.sum(1) == 0).to(fed.dtype))
        return (writes[:, None] * reads[None, :] * places).sum()

    def scores(self, probability: Gates) -> Mask:
        """Return the probability of each edge's less probable end."""
        return edges_between(self.graph, self._by_writer(probability).double().cpu(), 1.0)

    @cached_property
    def _feeds(self) -> Bool[Tensor, "reader writer"]:
        return feeds(self.graph)

    def _by_writer(self, gates: Gates) -> Float[Tensor, " writer"]:
        n_embeddings = len(self.graph.writers) - len(gates)
        return torch.cat((gates.new_ones(n_embeddings), gates))
