"""From the final stream to metric values, computing no logit that the metric does not read.

Final streams may be given for the last positions only, as many as the steps need.
"""

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.metrics import Metric, Reference
from circuitfind.problem import Problem
from circuitfind.prompts import PromptPairs, distinct_answers, on_columns

Final = Float[Tensor, "batch pos d_model"]


class Readout:
    """Turns final streams into logits at the metric's steps, and those into values and losses.

    Args:
        problem: Gives the model, the prompts and the metric.
        clean: The final stream of the full graph on the clean prompts, which some metrics compare
            with.
    """

    def __init__(self, problem: Problem, clean: Final) -> None:
        self._model, self._prompts, self.metric = problem.model, problem.prompts, problem.metric
        self._columns = (
            distinct_answers(problem.prompts) if problem.metric.reads == "answers" else None
        )
        self._clean = clean
        self._rows = torch.arange(len(problem.prompts), device=clean.device)[:, None]

    @cached_property
    def _full(self) -> Reference:
        return Reference(self.logits(self._clean))

    @cached_property
    def _renumbered(self) -> PromptPairs:
        return self._prompts if self._columns is None else on_columns(self._prompts, self._columns)

    def logits(self, final: Final) -> Float[Tensor, "batch step d_vocab"]:
        """Return the logits at each prompt's steps, of the tokens that the metric reads."""
        return self._model.logits(self.at_steps(final), self._columns)

    def values(self, final: Final) -> Float[Tensor, " batch"]:
        """Return the metric of each prompt."""
        return self.metric.measure(self.logits(final), self._renumbered, self._full)

    def loss(self, final: Final) -> float:
        """Return the mean over prompts, turned so that lower is better."""
        return float(self.metric.loss(self.values(final)))

    def losses(self, finals: Float[Tensor, "candidate batch pos d_model"]) -> list[float]:
        """Return the loss of each candidate; their logits are computed in one product."""
        with torch.no_grad():
            stepped = torch.stack([self.at_steps(final) for final in finals])
            logits = self._model.logits(stepped.flatten(0, 1), self._columns)
            by_candidate = logits.view(*stepped.shape[:-1], -1)
            measure, prompts = self.metric.measure, self._renumbered
            losses = [
                self.metric.loss(measure(candidate, prompts, self._full))
                for candidate in by_candidate
            ]
            return torch.stack(losses).tolist()

    def at_steps(self, final: Final) -> Float[Tensor, "batch step d_model"]:
        """Select the metric's steps from a final stream of all or of the last positions."""
        missing = self._prompts.clean.shape[1] - final.shape[1]
        index = (self._prompts.steps - missing).clamp(min=0)
        return final[self._rows, index]

    def measure(self, metric: Metric, final: Final) -> Float[Tensor, " batch"]:
        """Return another metric of each prompt, from all logits."""
        logits = self._model.logits(self.at_steps(final))
        return metric(logits, self._prompts, self._model.logits(self.at_steps(self._clean)))
