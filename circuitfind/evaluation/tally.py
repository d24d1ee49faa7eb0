"""Count the cases in which a circuit differs from its model, and keep one of them."""

import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool
from torch import Tensor

from circuitfind.evaluation.certificate import Certificate, Counterexample
from circuitfind.evaluation.intervals import share_bound
from circuitfind.evaluation.outputs import Compared, Outputs, compared, counterexample
from circuitfind.problem import Problem
from circuitfind.prompts import PromptPairs


def tally(
    problem: Problem,
    batches: Iterable[Outputs],
    tolerance: float,
    on_counted: Callable[[int], None],
    *,
    labels: bool,
    proved: bool,
) -> Certificate:
    """Return what is known of a circuit from its outputs in all cases.

    Args:
        problem: The question.
        batches: The outputs.
        tolerance: How far numerical outputs may differ.
        on_counted: Called with how many cases have been counted, batch by batch.
        labels: Whether the best output counts where the model has one.
        proved: Whether the limits are proved; then a case may be neither equal nor different.
    """
    n_cases = n_different = n_open = n_ties = 0
    apart = rounding = 0.0
    nearest = (math.inf, math.inf, 0.0)
    different = unsure = None
    for batch in batches:
        prompts, full, ours, limits = batch
        seen = compared(ours, full, prompts.step_is_real, limits, labels=labels)
        wrong = seen.refuted if proved else seen.differs
        n_cases += prompts.n_prompts
        n_different += _n_prompts(prompts, wrong)
        n_open += _n_prompts(prompts, seen.differs) - _n_prompts(prompts, wrong)
        n_ties += _n_prompts(prompts, seen.is_tie)
        on_counted(n_cases)
        of_steps = limits.rounding.expand(prompts.step_is_real.shape)
        rounding = max(rounding, float(of_steps[prompts.step_is_real].max()))
        # Outputs of a circuit that are not numbers are as far away as can be.
        apart = max(apart, float(seen.apart.nan_to_num(torch.inf).max()))
        nearest = min(nearest, _nearest(seen))
        different = different or _example(problem, batch, seen, wrong)
        unsure = unsure or _example(problem, batch, seen, seen.differs)
    _, margin, needed = nearest
    has_margin = math.isfinite(margin)
    return Certificate(
        equal=n_different + n_open == 0,
        every_input=False,
        compares="labels" if labels else "numbers",
        ablation=problem.ablation.name,
        n_inputs=n_cases,
        n_cases=n_cases,
        n_different=n_different,
        largest_difference=apart,
        smallest_margin=margin if has_margin else None,
        allowed=max(tolerance, rounding),
        rounding=rounding,
        failure_bound=share_bound(n_different + n_open, n_cases),
        counterexample=different or unsure,
        n_ties=n_ties,
        rounding_proved=proved,
        n_open=n_open,
        margin_needed=needed if has_margin else None,
    )


def _example(
    problem: Problem, batch: Outputs, seen: Compared, where: Bool[Tensor, "batch step"]
) -> Counterexample | None:
    return counterexample(problem, batch, seen.apart, where) if bool(where.any()) else None


def _nearest(seen: Compared) -> tuple[float, float, float]:
    """Return the least margin in units of what is needed at its step, and both of these."""
    margin = seen.margin.double().nan_to_num(-torch.inf, torch.inf)
    needed = torch.as_tensor(seen.needed).double().expand(margin.shape)
    share = margin / needed.clamp(min=torch.finfo(torch.float64).tiny)
    at = int(share.argmin())
    return float(share.flatten()[at]), float(margin.flatten()[at]), float(needed.flatten()[at])


def _n_prompts(prompts: PromptPairs, steps: Bool[Tensor, "batch step"]) -> int:
    """Return how many prompts have such a step, in one of their rows."""
    return int((prompts.per_prompt(steps.any(-1).double()) > 0).sum())
