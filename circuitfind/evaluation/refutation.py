"""Is it proved that circuits differ from their model? One case is enough for each of them.

Each circuit is computed on a case of its own, all of them in one pass, with a bound on the rounding
of every number (`rounding`).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.full_pass import full_pass, sources
from circuitfind.engine.replacement import mean_over_prompts, replacement
from circuitfind.engine.written import Written, run_on
from circuitfind.evaluation.measured import Mask
from circuitfind.evaluation.outputs import compared, within
from circuitfind.measures import Logits
from circuitfind.problem import Problem
from circuitfind.rounding.balls import bounded
from circuitfind.rounding.numbers import Unproved


class Refutations:
    """Proofs that circuits differ from their model.

    Args:
        tolerance: How far numerical outputs may differ.
        labels: Whether the best output counts where the model has one.
    """

    def __init__(self, tolerance: float, *, labels: bool) -> None:
        self._tolerance, self._labels = tolerance, labels
        self._of: Problem | None = None
        self._mean: Written | None = None

    def prove(
        self, problem: Problem, masks: Sequence[Mask], by: Float[Tensor, "mask prompt"]
    ) -> bool:
        """Tell whether those of some circuits that differ are proved to differ.

        Args:
            problem: A problem about the cases.
            masks: The circuits.
            by: By how much each of them is not equal in each case; 0 or less where it is.
        """
        most, rows = by.max(dim=1)
        wrong = (most > 0).nonzero().flatten().tolist()
        if not wrong:
            return True
        part = replace(problem, prompts=problem.prompts.rows(rows[wrong].tolist()))
        try:
            with bounded():
                outputs = self._outputs(problem, part, [masks[number] for number in wrong])
        except Unproved:
            return False
        (full, ours), limits = within(*outputs, self._tolerance)
        seen = compared(ours, full, part.prompts.step_is_real, limits, labels=self._labels)
        return bool(seen.refuted(limits).any(-1).all())

    def _outputs(
        self, problem: Problem, part: Problem, masks: Sequence[Mask]
    ) -> tuple[Logits, Logits]:
        """Return the outputs of the model, and of each circuit on its own case."""
        if problem is not self._of:
            self._of, self._mean = problem, mean_over_prompts([problem])
        model, graph, prompts = part.model, part.graph, part.prompts
        carried = replacement(part, self._mean).of_all(*prompts.clean.shape)
        given = sources(model, graph, prompts.clean, prompts.real)
        kept = torch.stack(list(masks), dim=-1).to(model.device, model.dtype)
        run, _ = run_on(part, prompts.clean)
        final = full_pass(model, graph, given, carried, kept, prompts.real).final
        full, ours = (model.logits(prompts.at_steps(each)) for each in (run.final, final))
        return full, ours
