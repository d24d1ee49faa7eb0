"""Is it proved that circuits differ from their model? One case is enough for each of them.

Each circuit is computed on a case of its own, many of them in one pass, with a bound on the
rounding of every element (`rounding`).
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
from circuitfind.evaluation.outputs import Compared, compared, within
from circuitfind.measures import Logits
from circuitfind.problem import Problem
from circuitfind.rounding.balls import bounded
from circuitfind.rounding.numbers import Unproved

_STREAMS = 6
"""Copies of what all writers write that a pass holds at once."""

_RADIUS = 8
"""Bytes."""


class Refutations:
    """Proofs that circuits differ from their model.

    Args:
        tolerance: How far numerical outputs may differ.
        memory: How many bytes a pass may take; None for what it takes.
        labels: Whether the best output counts where the model has one.
    """

    def __init__(self, tolerance: float, memory: int | None, *, labels: bool) -> None:
        self._tolerance, self._memory, self._labels = tolerance, memory, labels
        self._of: Problem | None = None
        self._mean: Written | None = None

    def of(
        self,
        problem: Problem,
        masks: Sequence[Mask],
        by: Float[Tensor, "mask prompt"],
        *,
        ask: bool = True,
    ) -> tuple[list[bool], bool]:
        """Return which circuits are not proved to be equal, and whether all these surely differ.

        Those that differ as measured are looked at, each in the case in which it differs most.

        Args:
            problem: A problem about the cases.
            masks: The circuits.
            by: By how much each is not equal as measured in each case; 0 or less where it is.
            ask: Whether to ask for proofs.
        """
        most, rows = by.max(dim=1)
        differ = most > 0
        wrong = differ.nonzero().flatten()
        proved = ask
        for some in wrong.split(self._at_once(problem, len(masks))) if ask else ():
            part = replace(problem, prompts=problem.prompts.rows(rows[some].tolist()))
            try:
                seen = self._compared(problem, part, [masks[number] for number in some.tolist()])
            except Unproved:
                proved = False
                continue
            of_mask, refuted = (steps.any(-1).cpu() for steps in (seen.differs, seen.refuted))
            differ[some] = of_mask
            proved = proved and torch.equal(of_mask, refuted)
        return differ.tolist(), proved

    def _compared(self, problem: Problem, part: Problem, masks: Sequence[Mask]) -> Compared:
        """Compare the outputs of each circuit with those of the model on its own case."""
        with bounded():
            outputs = self._outputs(problem, part, masks)
        (full, ours), limits = within(*outputs, self._tolerance)
        return compared(ours, full, part.prompts.step_is_real, limits, labels=self._labels)

    def _at_once(self, problem: Problem, n: int) -> int:
        """Return how many of n circuits one pass is made for."""
        if self._memory is None:
            return n
        stream = problem.prompts.clean.shape[1] * problem.graph.shape.d_model
        each = _STREAMS * len(problem.graph.writers) * stream
        return max(1, self._memory // (each * (problem.model.dtype.itemsize + _RADIUS)))

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
