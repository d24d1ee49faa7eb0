"""From the final stream to metric values, computing no logit that the metric does not read."""

from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from circuitfind.metrics import Metric
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

    @cached_property
    def _full(self) -> Float[Tensor, "batch step d_vocab"]:
        return self.logits(self._clean)

    @cached_property
    def _renumbered(self) -> PromptPairs:
        return self._prompts if self._columns is None else on_columns(self._prompts, self._columns)

    def logits(self, final: Final) -> Float[Tensor, "batch step d_vocab"]:
        """Return the logits at each prompt's steps, of the tokens that the metric reads."""
        return self._model.logits(self._prompts.at_steps(final), self._columns)

    def values(self, final: Final) -> Float[Tensor, " batch"]:
        """Return the metric of each prompt."""
        return self.metric(self.logits(final), self._renumbered, self._full)

    def loss(self, final: Final) -> float:
        """Return the mean over prompts, turned so that lower is better."""
        return float(self.metric.loss(self.values(final)))

    def measure(self, metric: Metric, final: Final) -> Float[Tensor, " batch"]:
        """Return another metric of each prompt, from all logits."""
        stepped = self._prompts.at_steps
        logits = self._model.logits(stepped(final))
        return metric(logits, self._prompts, self._model.logits(stepped(self._clean)))
