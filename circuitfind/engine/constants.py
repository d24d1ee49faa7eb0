"""Learned constants: what cut edges carry, trained so that circuits stay close to the model.

Li & Janson (2024, https://arxiv.org/abs/2409.09951) call this optimal ablation. Every writer has a
constant, one for each place where edges tell places apart, and the constants minimise the mean over
prompts of

    KL(the model's distribution of the answer || that of a circuit whose cut edges carry them)

A constant is where it starts, the mean over corrupted prompts and positions, plus a multiple of how
far what its writer writes is from that mean (root mean square); the multiples are what is trained.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.ablations import ABLATIONS, Ablation, Constants, learned
from circuitfind.circuit import require_same_graph
from circuitfind.engine.full_pass import Mask, Stream
from circuitfind.engine.replacement import mean_over_prompts
from circuitfind.engine.soft_mask import prompts_together, soft_loss
from circuitfind.engine.written import Written, batches, run_on
from circuitfind.errors import MethodError
from circuitfind.metrics import METRICS
from circuitfind.problem import HasProblem, Problem, as_problem, circuit_of_question

_ITERATIONS = 100
"""Most iterations of the optimiser."""

_SMALLEST_SPREAD = 1e-3
"""Of the root mean square of what is written: how far constants move at least."""


def learned_constants(asked: HasProblem, circuit: object = None) -> Ablation:
    """Return the ablation with the constants that are best for one circuit.

    The divergence on all prompts together only falls, from that of the means on. Give the ablation
    to `make_problem` to measure the circuit with it, or to search again with these constants.

    Args:
        asked: What a search found, or its problem.
        circuit: The circuit; by default what was found. One without edges is a circuit, too.

    Raises:
        GraphError: The circuit belongs to another graph.
        MethodError: The divergence became infinite or NaN.
    """
    problem, known = as_problem(asked), circuit_of_question(asked, circuit)
    require_same_graph(known.graph, problem.graph)
    trained = _Trained.of(problem)
    mask = known.kept.to(problem.model.device, problem.model.dtype)
    optimiser = torch.optim.LBFGS(
        [trained.multiples],
        max_iter=_ITERATIONS,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        optimiser.zero_grad()
        return trained.add_slope(mask)

    # Its type asks for a tensor; it converts what it gets to a number.
    closure: Callable[[], float] = loss
    optimiser.step(closure)
    return learned(trained.constants)


@dataclass(frozen=True)
class _Trained:
    """Constants in training.

    Attributes:
        parts: The problem, measured by KL, some prompts at a time; and what the logits read of
            each part in the clean run.
        start: Where the constants began.
        spread: How far each writer's output is from there (root mean square).
        multiples: What is trained: how many times that each element is moved.
    """

    parts: Sequence[tuple[Problem, Stream]]
    start: Written
    spread: Written
    multiples: Float[Tensor, " element"]

    @classmethod
    def of(cls, problem: Problem) -> "_Trained":
        """Begin a training."""
        means = ABLATIONS.find("mean-over-positions")
        problem = replace(problem, metric=METRICS.find("kl"), ablation=means)
        parts = batches(problem, prompts_together(problem))
        mean = mean_over_prompts(parts)
        assert mean is not None
        finals, spreads = [], []
        for part in parts:
            run, clean = run_on(part, part.prompts.clean)
            finals.append(run.final)
            spreads.append(_mean_squares(clean - mean, clean, part))
        spread = reduce(add, spreads).map(lambda values: (values / len(problem.prompts)).sqrt())
        start = mean.map(lambda values: values.expand(-1, 1, problem.graph.n_places, -1))
        n = sum(values.numel() for values in start.values.values())
        multiples = torch.zeros(n, dtype=problem.model.dtype, device=problem.model.device)
        measured = list(zip(parts, finals, strict=True))
        return cls(measured, start, spread, multiples.requires_grad_())

    @property
    def constants(self) -> Constants:
        """The constants as they are now."""
        with torch.no_grad():
            return dict(self._written.values)

    def add_slope(self, mask: Mask) -> float:
        """Add the slope of the loss of all prompts to that of the multiples; return the loss.

        Raises:
            MethodError: It is infinite or NaN.
        """
        n, total = sum(len(part.prompts) for part, _ in self.parts), 0.0
        for part, final in self.parts:
            prompts = part.prompts
            with torch.enable_grad():
                carried = self._written.at(part.places).of_all(*prompts.clean.shape)
                loss = soft_loss(part, carried, final, mask) * (len(prompts) / n)
                if not bool(loss.isfinite()):
                    raise MethodError(
                        f"the divergence became {float(loss.detach())} while constants were "
                        "trained; measure it on prompts on which the model stays finite"
                    )
                if loss.requires_grad:
                    loss.backward()
            total += float(loss.detach())
        return total

    @property
    def _written(self) -> Written:
        names, starts = zip(*self.start.values.items(), strict=True)
        moved = self.multiples.split([values.numel() for values in starts])
        return replace(
            self.start,
            values={
                name: start + self.spread.values[name] * multiple.view(start.shape)
                for name, start, multiple in zip(names, starts, moved, strict=True)
            },
        )


def _mean_squares(change: Written, size: Written, part: Problem) -> Written:
    """Return the mean square of changes, or a little of that of what is written if that is more.

    The mean is over elements and positions that are no padding, and summed over prompts.
    """
    real = part.prompts.real[None, :, :, None]
    counts = real.sum(2, keepdim=True)

    def of(values: Tensor) -> Tensor:
        squares = values.square().mean(-1, keepdim=True).masked_fill(~real, 0)
        found: Tensor = (squares.sum(2, keepdim=True) / counts).sum(1, keepdim=True)
        return found

    sizes = size.map(of).values
    return replace(
        change,
        values={
            name: torch.maximum(of(values), _SMALLEST_SPREAD**2 * sizes[name])
            for name, values in change.values.items()
        },
    )
