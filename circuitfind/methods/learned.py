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
edges, as many as the gates expect. All randomness of a step comes from the seed and the step's
number, so an interrupted training resumes bit for bit from its last checkpoint.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.soft_mask import soft_loss
from circuitfind.errors import MethodError
from circuitfind.graph import Graph
from circuitfind.limits import LIMITS, require_fields
from circuitfind.methods.attribution import require_slope
from circuitfind.methods.base import SEED
from circuitfind.methods.gates import GateLayout, drawn, open_probability
from circuitfind.methods.scored import Scored
from circuitfind.methods.selection import Selection
from circuitfind.progress import Checkpoint, State

_STEPS_PER_CHECKPOINT = 10
_SEED_STRIDE = 1_000_003
"""Seeds of neighbouring steps and of neighbouring runs never meet."""

_LARGEST_SHIFT, _HALVINGS = 20.0, 40
"""Of all locations at once after a step; they move by a learning rate each."""

_SMALLEST_WIDENING = 1e-12
"""Where all gates are decided nothing moves them, and no multiplier is needed."""

_USUAL_SPARSITY = 0.95

_FEWEST_OPEN = 0.5
"""Expected edges: no shift closes all of them for certain."""


@dataclass(frozen=True, kw_only=True)
class LearnedOptions:
    """Settings of learned masks.

    Attributes:
        sparsity: Share of edges to cut; by default what the number of edges asks for, or 0.95.
        penalty: Fixed price of keeping all edges instead of a target; 1 is as much as the loss
            differs between the full and the empty graph.
        steps: Training steps.
        warm_up: Share of the steps over which the number of edges falls to what is wanted.
        learning_rate: Of the gates.
        batch: Prompts drawn for each step.
        start: Where the gates' locations begin; larger is more open.
        seed: Fixes the draws.
    """

    sparsity: float | None = None
    penalty: float | None = None
    steps: int = 400
    warm_up: float = 0.3
    learning_rate: float = 0.1
    batch: int = 16
    start: float = 2.0
    seed: int = field(default=0, metadata=SEED)

    def __post_init__(self) -> None:
        require_fields(self)
        if self.sparsity is not None and self.penalty is not None:
            raise MethodError("give a sparsity to reach or a penalty to pay, not both")


class Learned(Scored):
    """A method that trains gates."""

    options = LearnedOptions
    says_how_many = True

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

    def scoring(
        self, engine: IncrementalEngine, options: LearnedOptions, state: State | None = None
    ) -> Iterator[Checkpoint]:
        """Train, yielding every few steps.

        Raises:
            MethodError: The loss became infinite or NaN, or the metric has no slope.
        """
        require_slope(engine.problem.metric, self.name, at_clean_only=False)
        training = _Training(engine, self.layout(engine.graph), options)
        done = 0 if state is None else training.restore(state)
        while done < options.steps:
            done = min(done + _STEPS_PER_CHECKPOINT, options.steps)
            training.advance_to(done)
            yield Checkpoint(done, options.steps, "training steps", training.state(done))
        if state is not None and int(state["done"]) == options.steps:
            yield Checkpoint(done, options.steps, "training steps", state)


class _Training:
    """Gates in training, with their optimiser."""

    def __init__(
        self, engine: IncrementalEngine, layout: GateLayout, options: LearnedOptions
    ) -> None:
        problem = engine.problem
        self._engine, self._layout, self._options = engine, layout, options
        dtype, device = problem.model.dtype, problem.model.device
        self._location = torch.full((layout.n,), options.start, dtype=dtype, device=device)
        self._moments = {name: torch.zeros_like(self._location) for name in ("mean", "square")}
        self._done = 0
        self._gap = _gap(engine)
        self._most = float(self._edges_open(self._location))

    def restore(self, state: State) -> int:
        """Take up an earlier checkpoint; return how many steps it had done."""
        device = self._location.device
        self._location = state["location"].to(device)
        self._moments = {name: state[name].to(device) for name in self._moments}
        self._done = int(state["done"])
        return self._done

    def state(self, done: int) -> State:
        """Return all that the training needs to go on, and at its end what it has found."""
        state = {"location": self._location, **self._moments, "done": torch.tensor(done)}
        state["expected"] = self._edges_open(self._location).double().cpu()
        if done == self._options.steps:
            state["scores"] = self._layout.scores(open_probability(self._location))
        return state

    def advance_to(self, step: int) -> None:
        """Train up to a step."""
        while self._done < step:
            self._step(self._done)
            self._done += 1

    def _step(self, number: int) -> None:
        generator = torch.Generator().manual_seed(self._options.seed * _SEED_STRIDE + number)
        location = self._location.clone().requires_grad_()
        with torch.enable_grad():
            loss = self._loss(drawn(location, generator), generator) / self._gap
            edges = self._edges_open(location)
        if not bool(loss.isfinite()):
            raise MethodError(
                f"the loss became {float(loss.detach())} in training step {number}; choose a "
                "metric that stays finite on these prompts, or a smaller learning_rate"
            )
        (slope,), (widening,) = (torch.autograd.grad(each, location) for each in (loss, edges))
        if self._options.penalty is not None:
            price = self._options.penalty / self._engine.graph.n_edges
            self._descend(slope + price * widening)
        else:
            multiplier = slope.sum() / widening.sum().clamp_min(_SMALLEST_WIDENING)
            self._descend(slope - multiplier * widening)
            self._location = self._location + self._shift_to(self._wanted(number))

    def _loss(self, gates: Tensor, generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the loss of some prompts with a soft mask."""
        problem, engine = self._engine.problem, self._engine
        n = len(problem.prompts)
        rows = torch.randperm(n, generator=generator)[: self._options.batch].sort().values.tolist()
        part = replace(problem, prompts=problem.prompts.select(rows))
        width = part.prompts.clean.shape[1]
        carried, final = engine.replacement[:, rows, :width], engine.clean_final[rows, :width]
        return soft_loss(part, carried, final, self._layout.mask(gates))

    def _edges_open(self, location: Tensor) -> Float[Tensor, ""]:
        return self._layout.edges_open(open_probability(location))

    def _wanted(self, number: int) -> float:
        """Return how many edges are to be open after a step, on average over draws."""
        wanted = max((1 - self._target) * self._engine.graph.n_edges, _FEWEST_OPEN)
        done = min(1.0, (number + 1) / max(1.0, self._options.warm_up * self._options.steps))
        return self._most + (min(wanted, self._most) - self._most) * done

    def _shift_to(self, n_edges: float) -> float:
        """Return the shift of all locations that gives an expected number of open edges."""
        low, high = -_LARGEST_SHIFT, _LARGEST_SHIFT
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if float(self._edges_open(self._location + middle)) > n_edges:
                high = middle
            else:
                low = middle
        return (low + high) / 2

    @property
    def _target(self) -> float:
        sparsity = self._options.sparsity
        return _USUAL_SPARSITY if sparsity is None else sparsity

    def _descend(self, slope: Tensor) -> None:
        """Move the locations as Adam does (Kingma & Ba 2015, arXiv 1412.6980)."""
        first, second, tiny = 0.9, 0.999, 1e-8
        mean = first * self._moments["mean"] + (1 - first) * slope
        square = second * self._moments["square"] + (1 - second) * slope**2
        self._moments = {"mean": mean, "square": square}
        n = self._done + 1
        step = mean / (1 - first**n) / ((square / (1 - second**n)).sqrt() + tiny)
        self._location = self._location - self._options.learning_rate * step


def _gap(engine: IncrementalEngine) -> float:
    """Return how much the loss differs between the full and the empty graph, or 1 if it does not.

    It is the natural unit of a price: what all edges together are worth.
    """
    empty = engine.recomputed(torch.zeros_like(engine.graph.edge_mask))
    with torch.no_grad():
        gap = abs(engine.readout.loss(empty) - engine.readout.loss(engine.clean_final))
    return gap if 0 < gap < math.inf else 1.0
