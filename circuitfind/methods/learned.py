"""Learned masks: gates trained to keep the loss low with few edges, by gradient descent.

Each step draws the gates, runs the model on some prompts with the soft mask they make, and descends
the loss, divided by how much it differs between the full and the empty graph, on the surface where
the expected number of open edges is what the step asks for: all edges at the beginning, fewer over
the first part of the training, then the number that is wanted.

1. The slope of the loss minus a multiplier times the slope of the expected number of edges: the
   Lagrange multiplier for which a common shift of all gates changes nothing.
2. A step of Adam along it.
3. A common shift of all gates back to the number of edges that is asked for.

The usual way is to let a multiplier rise by gradient ascent. In a few hundred steps that one does
not settle: the gates expect more edges than were wanted, or fewer. With a fixed `penalty` there is
no such surface; the price of keeping all edges is the penalty.

At the end every edge has a probability; without another wish the circuit holds the most probable
edges, as many as the gates expect.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.graph import Graph
from circuitfind.limits import LIMITS
from circuitfind.methods.gates import HARD_CONCRETE, Distribution, GateLayout, Mask
from circuitfind.methods.selection import Selection
from circuitfind.methods.training import Trained, Training, TrainingOptions
from circuitfind.methods.warm_start import warm_probabilities
from circuitfind.progress import State

_LARGEST_SHIFT, _HALVINGS = 20.0, 40
"""Of all locations at once after a step; they move by a learning rate each."""

_SMALLEST_WIDENING = 1e-12
"""Where all gates are decided nothing moves them, and no multiplier is needed."""

_USUAL_SPARSITY = 0.95

_FURTHEST = 10.0
"""Largest size of a location at a warm start."""

_FEWEST_OPEN = 0.5
"""Expected edges: no shift closes all of them for certain."""


@dataclass(frozen=True, kw_only=True)
class LearnedOptions(TrainingOptions):
    """Settings of learned masks.

    Attributes:
        sparsity: Share of edges to cut; by default what the number of edges asks for, or 0.95.
        penalty: Fixed price of keeping all edges instead of a target; 1 is as much as the loss
            differs between the full and the empty graph.
        warm_up: Share of the steps over which the number of edges falls to what is wanted.
        start: Where the gates' locations begin; larger is more open.
    """

    sparsity: float | None = None
    penalty: float | None = None
    warm_up: float = 0.3
    start: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity is not None and self.penalty is not None:
            raise MethodError("give a sparsity to reach or a penalty to pay, not both")


@dataclass(frozen=True, kw_only=True)
class EdgeOptions(LearnedOptions):
    """Settings of learned masks with a gate on every edge.

    Attributes:
        warm_start: Whether the gates of edges begin where eap-ig ranks the edges (`warm_start`),
            and not all at `start`.
    """

    warm_start: bool = False


class Learned(Trained):
    """A method that trains gates."""

    options = LearnedOptions
    says_how_many = True
    distribution: ClassVar[Distribution] = HARD_CONCRETE

    @abstractmethod
    def layout(self, graph: Graph) -> GateLayout:
        """Return what the gates stand for."""

    def unit(self, engine: IncrementalEngine) -> str:
        return "probability"

    def adapted(
        self, options: LearnedOptions, selection: Selection, graph: Graph
    ) -> LearnedOptions:
        """Return the options, with the sparsity that the number of edges asks for."""
        given = (options.sparsity, options.penalty) != (None, None)
        if given or selection.n_edges is None:
            return options
        sparsity = max(0.0, 1 - selection.n_edges / graph.n_edges)
        return replace(options, sparsity=min(sparsity, float(LIMITS["sparsity"].high)))

    def prices(self, graph: Graph) -> Mask | None:
        """Return what each edge costs while it is open, in units of the gap; None for nothing."""
        return None

    def training(self, engine: IncrementalEngine, options: LearnedOptions) -> Training:
        graph = engine.graph
        return _Gates(engine, self.layout(graph), options, self.distribution, self.prices(graph))


class _Gates(Training):
    """Gates in training; the values are their locations."""

    layout: GateLayout
    options: LearnedOptions

    def __init__(
        self,
        engine: IncrementalEngine,
        layout: GateLayout,
        options: LearnedOptions,
        distribution: Distribution,
        prices: Mask | None = None,
    ) -> None:
        super().__init__(engine, layout, options, options.start)
        if isinstance(options, EdgeOptions) and options.warm_start:
            located = distribution.location(warm_probabilities(engine)).clamp(-_FURTHEST, _FURTHEST)
            # Gates of writers, where there are any, come first.
            self.values[-len(located) :] = located.to(self.values)
        self._distribution = distribution
        self._prices = None if prices is None else prices.to(self.values)
        self._most = float(self._edges_open(self.values))

    def state(self, done: int) -> State:
        expected = self._edges_open(self.values).double().cpu()
        return {**super().state(done), "expected": expected}

    def found(self) -> State:
        return {"scores": self.layout.scores(self._distribution.open_probability(self.values))}

    def step(self, number: int, generator: torch.Generator) -> None:
        location = self.values.clone().requires_grad_()
        with torch.enable_grad():
            gates = self._distribution.drawn(location, generator)
            loss = self.loss(self.layout.mask(gates), generator) + self._paid(location)
            edges = self._edges_open(location)
        (slope,), (widening,) = (torch.autograd.grad(each, location) for each in (loss, edges))
        if self.options.penalty is not None:
            price = self.options.penalty / self.engine.graph.n_edges
            self.descend(slope + price * widening)
        else:
            multiplier = slope.sum() / widening.sum().clamp_min(_SMALLEST_WIDENING)
            self.descend(slope - multiplier * widening)
            self.values = self.values + self._shift_to(self._wanted(number))

    def _paid(self, location: Tensor) -> Float[Tensor, ""] | float:
        """Return the expected price of the open edges."""
        if self._prices is None:
            return 0.0
        open_ = self.layout.mask(self._distribution.open_probability(location))
        return (open_ * self._prices).sum()

    def _edges_open(self, location: Tensor) -> Float[Tensor, ""]:
        return self.layout.edges_open(self._distribution.open_probability(location))

    def _wanted(self, number: int) -> float:
        """Return how many edges are to be open after a step, on average over draws."""
        sparsity = _USUAL_SPARSITY if self.options.sparsity is None else self.options.sparsity
        wanted = max((1 - sparsity) * self.engine.graph.n_edges, _FEWEST_OPEN)
        done = min(1.0, (number + 1) / max(1.0, self.options.warm_up * self.options.steps))
        return self._most + (min(wanted, self._most) - self._most) * done

    def _shift_to(self, n_edges: float) -> float:
        """Return the shift of all locations that gives an expected number of open edges."""
        low, high = -_LARGEST_SHIFT, _LARGEST_SHIFT
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if float(self._edges_open(self.values + middle)) > n_edges:
                high = middle
            else:
                low = middle
        return (low + high) / 2
