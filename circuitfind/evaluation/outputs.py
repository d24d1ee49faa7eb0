"""Outputs of a circuit beside those of its model: are they equal, up to rounding?"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.evaluation.certificate import Counterexample
from circuitfind.evaluation.every_input import in_pairs
from circuitfind.measures import Logits
from circuitfind.problem import Problem
from circuitfind.prompts import PromptPairs
from circuitfind.rounding.balls import ends
from circuitfind.rounding.numbers import ENLARGED

Steps = Float[Tensor, "batch step"]

_SHOWN = 5
"""Of the best outputs of the model, in a counterexample."""


@dataclass(frozen=True)
class Limits:
    """How far apart outputs can be that are equal, and how near labels that are not.

    Attributes:
        model: How far the difference of two outputs of the model is from its exact value at most.
        circuit: The same of the circuit.
        allowed: How far outputs may differ where numbers are compared.
        excess: How far they are surely not equal.
    """

    model: Steps | float
    circuit: Steps | float
    allowed: Steps | float
    excess: Steps | float

    @property
    def rounding(self) -> Tensor:
        """The larger of those of the model and of the circuit."""
        return torch.maximum(*map(torch.as_tensor, (self.model, self.circuit)))


def measured(rounding: float, tolerance: float) -> Limits:
    """Return limits with a rounding that was measured."""
    allowed = max(tolerance, rounding)
    return Limits(rounding, rounding, allowed, allowed)


@dataclass(frozen=True)
class Compared:
    """Outputs of a circuit beside those of the model, at every step.

    Attributes:
        apart: The largest difference of an output.
        margin: How far the model's label is above all other outputs of the circuit; infinite where
            numbers are compared.
        needed: How far it must be.
        is_tie: Whether labels are compared, but the model has none here that is above its other
            outputs by more than its rounding.
        differs: Whether the circuit is not equal to the model, or not surely so.
        refuted: Whether it is not equal, whatever rounding does.
    """

    apart: Float[Tensor, "*candidate batch step"]
    margin: Float[Tensor, "*candidate batch step"]
    needed: Steps | float
    is_tie: Bool[Tensor, "batch step"]
    differs: Bool[Tensor, "*candidate batch step"]
    refuted: Bool[Tensor, "*candidate batch step"]


class Outputs(NamedTuple):
    """Outputs of the model and of a circuit on some cases, and what is equal there."""

    prompts: PromptPairs
    full: Logits
    ours: Logits
    limits: Limits


def within(full: Logits, ours: Logits, tolerance: float) -> tuple[tuple[Logits, Logits], Limits]:
    """Return outputs that have radii as plain ones, and what is equal because of the radii.

    Raises:
        Unproved: They have none.
    """
    (full, of_full), (ours, of_ours) = map(ends, (full, ours))
    # The subtractions of a comparison are rounded too, in float64.
    model, circuit = (2 * ENLARGED * radii.amax(-1) for radii in (of_full, of_ours))
    both = (model + circuit) / 2
    limits = Limits(model, circuit, tolerance / ENLARGED - both, tolerance * ENLARGED + both)
    return (full.double(), ours.double()), limits


def compared(
    logits: Logits,
    full: Float[Tensor, "batch step d_vocab"],
    real: Bool[Tensor, "batch step"],
    limits: Limits,
    *,
    labels: bool,
) -> Compared:
    """Compare the outputs of a circuit with those of the model.

    Args:
        logits: The circuit's; of several circuits, one after the other.
        full: The model's.
        real: True at steps that are no padding.
        limits: What is equal.
        labels: Whether the best output counts where the model has one.
    """
    apart = (logits - full).abs().amax(-1).masked_fill(~real, 0)
    # Whether the model has a label depends on its own rounding alone.
    by_label = (_margins(full, full) > limits.model) & real
    by_label &= labels
    margin = _margins(logits, full).masked_fill(~by_label, torch.inf)
    # Written so that a value that is not a number differs.
    is_equal = torch.where(by_label, margin > limits.circuit, apart <= limits.allowed)
    refuted = torch.where(
        by_label, margin <= -torch.as_tensor(limits.circuit), apart > limits.excess
    )
    is_tie = real & ~by_label if labels else torch.zeros_like(real)
    differs = ~(is_equal | ~real)
    return Compared(apart, margin, limits.circuit, is_tie, differs, refuted & real)


def _margins(
    logits: Float[Tensor, "*candidate output"], full: Float[Tensor, "*_ output"]
) -> Float[Tensor, "*candidate"]:
    """Return how far the model's best output is above all others in a circuit."""
    best = full.argmax(-1, keepdim=True).expand(*logits.shape[:-1], 1)
    others = logits.scatter(-1, best, -torch.inf).amax(-1)
    above: Tensor = logits.gather(-1, best)[..., 0] - others
    return above


def counterexample(
    problem: Problem, outputs: Outputs, apart: Steps, where: Bool[Tensor, "batch step"]
) -> Counterexample:
    """Return the first case that has one of some steps, with the outputs that are furthest apart.

    Args:
        problem: The question.
        outputs: The outputs.
        apart: How far they are apart at each step.
        where: The steps.
    """
    prompts, full, ours, _ = outputs
    row = int(where.any(-1).nonzero()[0])
    step = int(apart[row].masked_fill(~where[row], -1).argmax())
    model, circuit = full[row, step], ours[row, step]
    best = model.topk(min(_SHOWN, len(model))).indices.tolist()
    shown = dict.fromkeys([*best, int(circuit.argmax())])
    length, vocabulary = int(prompts.lengths[row]), problem.model.vocabulary

    def text(tokens: Tensor) -> str:
        return vocabulary.decode(tokens.tolist()) if vocabulary else str(tokens.tolist())

    def name(token: int) -> str:
        return vocabulary.answer_text(token) if vocabulary else str(token)

    return Counterexample(
        text(prompts.clean[row, :length]),
        text(prompts.corrupted[row, :length]) if in_pairs(problem) else "",
        int(prompts.steps[row, step]),
        {name(token): float(model[token]) for token in shown},
        {name(token): float(circuit[token]) for token in shown},
    )
