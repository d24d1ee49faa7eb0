"""Gates that are learned: random masks between 0 and 1 that are often exactly 0 or 1.

A gate is drawn from a hard concrete distribution (Louizos et al. 2018, arXiv 1712.01312): a sigmoid
of logistic noise around `location`, stretched beyond 0 and 1 and cut off there. Its gradient passes
through the draw, and the probability that it is not 0 is known. Or it is drawn uniformly, and is
between 0 and 1 only in a window (`drawn_uniformly`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import Graph
from circuitfind.methods.components import at_readers, edges_between, feeds, looks_back

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


def drawn_uniformly(location: Gates, generator: torch.Generator) -> Gates:
    """Draw every gate from a window around its probability, by UGS (Li & Janson 2024).

    With p = sigmoid(location), a gate is 1 where a uniform number lies below the window of width
    p (1 - p) around p, 0 above it, and falls linearly inside. Its mean is p. Inside the window its
    slope along p is 1, the window held still; elsewhere it is 0.
    """
    p = location.sigmoid()
    window = (p * (1 - p)).detach().clamp_min(_SMALLEST)
    middle = window * p - (window - 1) * p.detach()
    uniform = torch.rand(location.shape, generator=generator, dtype=location.dtype)
    return 1 - ((uniform.to(location.device) - middle) / window + 0.5).clamp(0, 1)


class Distribution(NamedTuple):
    """A distribution that gates are drawn from.

    Attributes:
        drawn: Draws every gate, as a differentiable function of its location.
        open_probability: How likely each gate is to be open, given its location.
        location: Where the gate without noise has a value.
    """

    drawn: Callable[[Gates, torch.Generator], Gates]
    open_probability: Callable[[Gates], Gates]
    location: Callable[[Gates], Gates]


def location_of(value: Gates) -> Gates:
    """Return where a gate of the hard concrete distribution has a value where the noise is 0."""
    return TEMPERATURE * ((value - LOWEST) / (HIGHEST - LOWEST)).logit()


HARD_CONCRETE = Distribution(drawn, open_probability, location_of)
UNIFORM = Distribution(drawn_uniformly, torch.sigmoid, torch.logit)


@runtime_checkable
class Layout(Protocol):
    """Says what the gates of a graph stand for."""

    @property
    def n(self) -> int:
        """Number of gates."""
        ...

    def mask(self, gates: Gates) -> Mask:
        """Return the soft mask of all edges."""
        ...

    def scores(self, probability: Gates) -> Mask:
        """Return the probability of every edge, or another value from 0 to 1 that gates have."""
        ...


@runtime_checkable
class GateLayout(Layout, Protocol):
    """A layout whose gates are drawn."""

    def edges_open(self, probability: Gates) -> Float[Tensor, ""]:
        """Return the expected number of edges that are kept."""
        ...


@dataclass(frozen=True)
class EveryEdge:
    """A gate per edge and no other."""

    graph: Graph

    @property
    def n(self) -> int:
        return self.graph.n_edges

    def mask(self, gates: Gates) -> Mask:
        """Return the gates, each where its edge is in the mask."""
        exists = self.graph.edge_mask.to(gates.device)
        return gates.new_zeros(exists.shape).masked_scatter(exists, gates)

    def edges_open(self, probability: Gates) -> Float[Tensor, ""]:
        return probability.sum()

    def scores(self, probability: Gates) -> Mask:
        return self.mask(probability.double().cpu())


@dataclass(frozen=True)
class _WriterGates:
    """Part that layouts share: a gate on each head's and MLP's output, then other gates.

    Where edges tell places apart, an output has a gate at each place. An edge is open if its writer
    is, if one of the components that read it is, and if its own gate is, whatever that stands for.
    The embedding and the logits have no gates.
    """

    graph: Graph

    @cached_property
    def n_written(self) -> int:
        """Number of gates on outputs."""
        return sum(writer.stage > 0 for writer in self.graph.writers) * self.graph.n_places

    @cached_property
    def feeds(self) -> Bool[Tensor, "input writer"]:
        return feeds(self.graph)

    def by_writer(self, gates: Gates) -> Float[Tensor, "writer place"]:
        """Return the gate of each writer at each place, those of the embedding open."""
        written = gates[: self.n_written].unflatten(0, (-1, self.graph.n_places))
        n_embeddings = len(self.graph.writers) - len(written)
        return torch.cat((gates.new_ones(n_embeddings, self.graph.n_places), written))

    def own(self, gates: Gates) -> Mask:
        """Return the gate of each edge's own."""
        raise NotImplementedError

    def mask(self, gates: Gates) -> Mask:
        """Return each edge's own gate times its writer's: a reader that is closed does nothing."""
        return self.own(gates) * at_readers(self.graph, self.by_writer(gates))

    def edges_open(self, probability: Gates) -> Float[Tensor, ""]:
        """Return the expected number of open edges."""
        writes = self.by_writer(probability)
        fed, exists = (
            part.to(probability.device, probability.dtype)
            for part in (self.feeds, self.graph.edge_mask)
        )
        # The probability that all components that an input feeds at a place are closed.
        closed = (1 - fed[..., None] * writes).prod(1)
        back = looks_back(self.graph).to(closed.device)
        closed = torch.where(back, closed.prod(1, keepdim=True), closed)
        feeds_any = 1 - closed * (1 - (fed.sum(1, keepdim=True) == 0).to(fed.dtype))
        open_ends = at_readers(self.graph, writes) * feeds_any.flatten()[None, :]
        return (self.own(probability) * open_ends * exists).sum()

    def scores(self, probability: Gates) -> Mask:
        """Return the smallest probability among the gates that each edge needs."""
        ends = edges_between(self.graph, self.by_writer(probability).double().cpu(), 1.0)
        return torch.minimum(ends, self.own(probability).double().cpu())


@dataclass(frozen=True)
class EdgeGates(_WriterGates):
    """A gate per edge, and one per head and MLP, on what it writes."""

    @property
    def n(self) -> int:
        return self.n_written + self.graph.n_edges

    def own(self, gates: Gates) -> Mask:
        """Return the edges' gates, each where its edge is in the mask."""
        return EveryEdge(self.graph).mask(gates[self.n_written :])


@dataclass(frozen=True)
class WriterGates(_WriterGates):
    """A gate per head and MLP, on what it writes, and no other."""

    @property
    def n(self) -> int:
        return self.n_written

    def own(self, gates: Gates) -> Mask:
        """Return open gates: edges have none of their own."""
        return gates.new_ones(self.graph.edge_mask.shape)


@dataclass(frozen=True)
class ComponentGates(_WriterGates):
    """A gate per head and MLP, on what it writes, and one per input of a head."""

    @property
    def n(self) -> int:
        return self.n_written + len(self.ports)

    @cached_property
    def ports(self) -> list[int]:
        """The readers that have gates."""
        return [index for index, reader in enumerate(self.graph.readers) if reader.port]

    def own(self, gates: Gates) -> Mask:
        """Return the gate of each edge's reader; what an MLP reads is always open."""
        ports = torch.tensor(self.ports, device=gates.device)
        ungated = gates.new_ones(len(self.graph.readers))
        by_reader = ungated.index_put((ports,), gates[self.n_written :])
        return by_reader.expand(len(self.graph.writers), -1)
