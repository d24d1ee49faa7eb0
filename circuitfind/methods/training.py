"""Numbers that are trained by gradient descent on the loss of a soft mask, a step at a time.

All randomness of a step comes from the seed and the step's number, so an interrupted training
resumes bit for bit from its last checkpoint.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.soft_mask import soft_loss
from circuitfind.errors import MethodError
from circuitfind.limits import require_fields
from circuitfind.methods.base import SEED, STEPS
from circuitfind.methods.gates import Gates, Layout
from circuitfind.methods.scored import Scored
from circuitfind.methods.slopes import require_slope
from circuitfind.progress import Checkpoint, State

_STEPS_PER_CHECKPOINT = 10
_SEED_STRIDE = 1_000_003
"""Seeds of neighbouring steps and of neighbouring runs never meet."""

_MOST_SEEDS = 2**63
"""As many as generators take."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Settings of a training.

    Attributes:
        steps: Training steps.
        learning_rate: Of Adam.
        batch: Prompts drawn for each step.
        seed: Fixes the draws.
    """

    steps: int = field(default=400, metadata=STEPS)
    learning_rate: float = 0.1
    batch: int = 16
    seed: int = field(default=0, metadata=SEED)

    def __post_init__(self) -> None:
        require_fields(self)


class Trained(Scored):
    """A method that trains numbers, from which all edges have their scores at the end."""

    options: type[Any] = TrainingOptions

    @abstractmethod
    def training(self, engine: IncrementalEngine, options: Any) -> "Training":
        """Return the training, at its beginning."""

    def scoring(
        self, engine: IncrementalEngine, options: Any, state: State | None = None
    ) -> Iterator[Checkpoint]:
        """Train, yielding every few steps.

        Raises:
            MethodError: The loss became infinite or NaN, or the metric has no slope.
        """
        require_slope(engine.problem.metric, self.name, at_clean_only=False)
        training = self.training(engine, options)
        done = 0 if state is None else training.restore(state)
        while done < options.steps:
            done = min(done + _STEPS_PER_CHECKPOINT, options.steps)
            training.advance_to(done)
            yield Checkpoint(done, options.steps, "training steps", training.state(done))
        if state is not None and int(state["done"]) == options.steps:
            yield Checkpoint(done, options.steps, "training steps", state)


class Training(ABC):
    """Numbers in training, with their optimiser.

    Args:
        engine: The problem, made ready to cut edges.
        layout: What the numbers stand for.
        options: How they are trained.
        start: Where all of them begin.
    """

    def __init__(
        self,
        engine: IncrementalEngine,
        layout: Layout,
        options: TrainingOptions,
        start: float,
    ) -> None:
        problem = engine.problem
        self.engine, self.layout, self.options = engine, layout, options
        dtype, device = problem.model.dtype, problem.model.device
        self.values: Gates = torch.full((layout.n,), start, dtype=dtype, device=device)
        self._moments = {name: torch.zeros_like(self.values) for name in ("mean", "square")}
        self._done = 0
        self.gap = _gap(engine)

    @abstractmethod
    def step(self, number: int, generator: torch.Generator) -> None:
        """Make a step: move the values by `descend`."""

    @abstractmethod
    def found(self) -> State:
        """Return what is found at the end: the `scores` of all edges."""

    def restore(self, state: State) -> int:
        """Take up an earlier checkpoint; return how many steps it had done."""
        device = self.values.device
        self.values = state["location"].to(device)
        self._moments = {name: state[name].to(device) for name in self._moments}
        self._done = int(state["done"])
        return self._done

    def state(self, done: int) -> State:
        """Return all that the training needs to go on, and at its end what it has found."""
        state = {"location": self.values, **self._moments, "done": torch.tensor(done)}
        return state if done < self.options.steps else {**state, **self.found()}

    def advance_to(self, step: int) -> None:
        """Train up to a step."""
        while self._done < step:
            seed = (self.options.seed * _SEED_STRIDE + self._done) % _MOST_SEEDS
            self.step(self._done, torch.Generator().manual_seed(seed))
            self._done += 1

    def loss(self, mask: Tensor, generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the loss of some prompts with a soft mask, in units of the gap.

        Raises:
            MethodError: It is infinite or NaN.
        """
        problem, engine = self.engine.problem, self.engine
        n = len(problem.prompts)
        drawn = torch.randperm(n, generator=generator)[: self.options.batch].sort().values.tolist()
        # All of them need no copy.
        rows = drawn if len(drawn) < n else slice(None)
        part = replace(problem, prompts=problem.prompts.select(rows))
        width = part.prompts.clean.shape[1]
        carried, final = engine.replacement[:, rows, :width], engine.clean_final[rows, :width]
        loss = soft_loss(part, carried, final, mask) / self.gap
        if not bool(loss.isfinite()):
            raise MethodError(
                f"the loss became {float(loss.detach())} in training step {self._done}; choose a "
                "metric that stays finite on these prompts, or a smaller learning_rate"
            )
        return loss

    def descend(self, slope: Tensor) -> None:
        """Move the values as Adam does (Kingma & Ba 2015, arXiv 1412.6980)."""
        first, second, tiny = 0.9, 0.999, 1e-8
        mean = first * self._moments["mean"] + (1 - first) * slope
        square = second * self._moments["square"] + (1 - second) * slope**2
        self._moments = {"mean": mean, "square": square}
        n = self._done + 1
        step = mean / (1 - first**n) / ((square / (1 - second**n)).sqrt() + tiny)
        self.values = self.values - self.options.learning_rate * step


def _gap(engine: IncrementalEngine) -> float:
    """Return how much the loss differs between the full and the empty graph, or 1 if it does not.

    It is the natural unit of a price: what all edges together are worth.
    """
    empty = engine.recomputed(torch.zeros_like(engine.graph.edge_mask))
    with torch.no_grad():
        gap = abs(engine.readout.loss(empty) - engine.readout.loss(engine.clean_final))
    return gap if 0 < gap < math.inf else 1.0
