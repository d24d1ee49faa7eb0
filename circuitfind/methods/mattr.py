"""Matryoshka attribution: one ranking of all edges that is good at every size (arXiv 2609.25518).

Every edge has a score. Each step draws a size k for some prompts, keeps the k best edges softly,
and descends the loss of the circuit that this makes. One ranking has to serve all sizes, so the
circuits are nested, and one training is enough for all of them.

The best k of n scores are kept by gates `sigmoid((score - tau) / T)`, where tau is such that the
gates add up to k (`soft_top`). With the schedule `log` small sizes are drawn as often as large
ones, which is what small diagrams need; `uniform` draws those that the area under MIB's curve is
made of, nearly all of them above a tenth of the edges.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError, quoted
from circuitfind.methods.gates import EveryEdge, Gates, WriterGates
from circuitfind.methods.training import Trained, Training, TrainingOptions
from circuitfind.progress import State

Schedule = Literal["log", "uniform", "logit"]
Level = Literal["edges", "components"]
Direction = Literal["sufficient", "necessary"]

TEMPERATURE = 0.5
_HALVINGS = 60
_SMALLEST_MASS = 1e-8
"""Below it all gates are decided, and no score has a slope."""


@dataclass(frozen=True, kw_only=True)
class MattrOptions(TrainingOptions):
    """Settings of Matryoshka attribution.

    Attributes:
        schedule: How sizes are drawn from 1 to the number n of scores: `log` evenly by their
            logarithm, `uniform` evenly, `logit` evenly by log(k / (n - k)).
        level: Whether edges have scores, or heads and MLPs, whose edges are worth as much as their
            weaker end.
        direction: `sufficient`: the best k are kept and all else is cut, and the loss is to be low.
            `necessary`: the best k are cut and all else is kept, and the loss is to be high.
    """

    learning_rate: float = 0.05
    batch: int = 8
    schedule: Schedule = "log"
    level: Level = "edges"
    direction: Direction = "sufficient"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, known in (
            ("schedule", self.schedule, get_args(Schedule)),
            ("level", self.level, get_args(Level)),
            ("direction", self.direction, get_args(Direction)),
        ):
            if value not in known:
                raise MethodError(
                    f"no {name} named {quoted(value)}; choose one of {', '.join(known)}"
                )


class Mattr(Trained):
    """Matryoshka attribution as an entry of the table of methods."""

    name = "mattr"
    summary = "train one ranking of all edges whose first k are a good circuit for every k"
    paper = "Matryoshka attribution, arXiv 2609.25518"
    options = MattrOptions

    def unit(self, engine: IncrementalEngine) -> str:
        return "share of the range of scores"

    def training(self, engine: IncrementalEngine, options: MattrOptions) -> Training:
        graph = engine.graph
        layout = EveryEdge(graph) if options.level == "edges" else WriterGates(graph)
        return _Ranking(engine, layout, options, 0.0)


class _Ranking(Training):
    """Scores in training."""

    options: MattrOptions

    def step(self, number: int, generator: torch.Generator) -> None:
        scores = self.values.clone().requires_grad_()
        size = drawn_size(self.options.schedule, len(scores), generator)
        with torch.enable_grad():
            gates = soft_top(scores, size)
            if self.options.direction == "sufficient":
                loss = self.loss(self.layout.mask(gates), generator)
            else:
                loss = -self.loss(self.layout.mask(1 - gates), generator)
        (slope,) = torch.autograd.grad(loss, scores)
        self.descend(slope)

    def found(self) -> State:
        """Return the place of each edge's score between the lowest, 0, and the highest, 1."""
        values = self.values.double()
        low, high = values.aminmax()
        return {"scores": self.layout.scores((values - low) / (high - low).clamp_min(1e-300))}


def drawn_size(schedule: Schedule, n: int, generator: torch.Generator) -> float:
    """Draw a size between 1 and n - 1; of two scores or fewer, half of them."""
    if n <= 2:
        return n / 2
    share = float(torch.rand((), generator=generator, dtype=torch.float64))
    most = n - 1
    if schedule == "uniform":
        return 1 + share * (most - 1)
    if schedule == "log":
        return math.exp(share * math.log(most))
    edge = math.log(most)
    return n / (1 + math.exp(-(2 * share - 1) * edge))


def soft_top(scores: Gates, size: float, temperature: float = TEMPERATURE) -> Gates:
    """Return gates that keep the `size` largest scores softly, and add up to that number.

    Scores matter by their differences alone. The gates are differentiable in the scores; tau, which
    makes them add up, moves with them: for gates m and p = m (1 - m),

        d loss / d score_j = p_j / T (g_j - sum(g p) / sum(p))

    where g is the gradient at the gates.

    Args:
        scores: The scores.
        size: How many are kept, above 0 and below their number; it need not be whole.
        temperature: T: how soft the gates are, in units of the scores.
    """
    top: Any = _SoftTop.apply
    found: Tensor = top(scores, size, temperature)
    return found


class _SoftTop(torch.autograd.Function):
    """See `soft_top`."""

    @staticmethod
    def forward(
        ctx: Any, scores: Float[Tensor, " n"], size: float, temperature: float
    ) -> Float[Tensor, " n"]:
        """Find tau by halving a bracket. In float64, because the gates of many scores add up."""
        scaled = scores.detach().double() / temperature
        # One gate alone at the lower end, or one closed at the upper: log(n) beyond all scores.
        margin = 10 + math.log(max(len(scores), 2))
        low, high = float(scaled.min()) - margin, float(scaled.max()) + margin
        for _ in range(_HALVINGS):
            tau = (low + high) / 2
            if float((scaled - tau).sigmoid().sum()) > size:
                low = tau
            else:
                high = tau
        gates = (scaled - (low + high) / 2).sigmoid()
        ctx.save_for_backward(gates)
        ctx.temperature = temperature
        return gates.to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the slope at the scores, tau moving with them."""
        (gates,) = ctx.saved_tensors
        (at_gates,) = gradients
        given, steepness = at_gates.double(), gates * (1 - gates)
        mass = steepness.sum().clamp_min(_SMALLEST_MASS)
        slope = steepness / ctx.temperature * (given - (given * steepness).sum() / mass)
        return slope.to(at_gates.dtype), None, None
