"""From the final stream to metric values, computing no logit that the metric does not read.

Final streams may be given for the last positions only, as many as the steps need.
"""

from collections.abc import Iterator
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitfind.engine.kl_bounds import Anchor, bounds_pay
from circuitfind.engine.streaming_kl import ShiftReadout
from circuitfind.errors import MetricError, quoted
from circuitfind.measures import Reference, Shift, distinct_answers, kl_of_shift, on_columns
from circuitfind.metrics import require_per_prompt
from circuitfind.problem import Problem
from circuitfind.prompts import PromptPairs

Final = Float[Tensor, "batch pos d_model"]
Stepped = Float[Tensor, "candidate batch step d_model"]

_LOGITS = 1 << 23
"""How many logits of candidates are computed at once; 32 MiB in float32."""


class Readout:
    """Turns final streams into what the metric reads at its steps, and that into values and losses.

    Args:
        problem: Gives the model, the prompts and the metric.
        clean: The final stream of the full graph on the clean prompts, which some metrics compare
            with.
        per_prompt: Whether each prompt must have a value of its own.

    Raises:
        MetricError: It must, and the metric is one number for the whole batch.
    """

    def __init__(self, problem: Problem, clean: Final, *, per_prompt: bool = True) -> None:
        if per_prompt:
            require_per_prompt(problem.metric)
        self._model, self._prompts, self.metric = problem.model, problem.prompts, problem.metric
        # Otherwise it takes probabilities, and so all logits.
        by_logits = problem.metric.reads == "answers" and problem.prompts.compared
        self._columns = distinct_answers(problem.prompts) if by_logits else None
        self._clean = clean
        self._rows = torch.arange(len(problem.prompts), device=clean.device)[:, None]

    @cached_property
    def _full(self) -> Reference:
        return Reference(self._read(self.at_steps(self._clean)))

    @cached_property
    def _shifts(self) -> ShiftReadout | None:
        """Another way to the metric, where model and metric allow it; it holds fewer logits."""
        unembedding = self._model.unembedding
        if unembedding is None or self.metric.of_shift is None:
            return None
        return ShiftReadout(self._model, unembedding, self.at_steps(self._clean), self._full)

    @cached_property
    def _renumbered(self) -> PromptPairs:
        return self._prompts if self._columns is None else on_columns(self._prompts, self._columns)

    def values(
        self, final: Final, scale_of: Float[Tensor, "batch _span d_model"] | None = None
    ) -> Float[Tensor, " batch"]:
        """Return the metric of each row; the final norm's scale may be another stream's."""
        if scale_of is None:
            return self._values(self.at_steps(final)[None])[0]
        read = self._read(self.at_steps(final), scale_of=self.at_steps(scale_of))
        return self.metric.of_candidates(read[None], self._renumbered, self._full)[0]

    def by_prompt(self, final: Final) -> Float[Tensor, " prompt"]:
        """Return the metric of each prompt, in float64; a prompt may have several rows."""
        return self._prompts.per_prompt(self.values(final).double())

    def of_logits(self, logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, " batch"]:
        """Return the metric of each prompt from all logits of a run.

        Raises:
            MetricError: It reads the final stream.
        """
        if self.metric.reads == "stream":
            raise MetricError(
                f"the metric {quoted(self.metric.name)} reads the final stream, which is not known "
                "where activations are patched by name; choose one that reads logits"
            )
        read = self._prompts.at_steps(logits)
        read = read if self._columns is None else read[..., self._columns]
        return self.metric.of_candidates(read[None], self._renumbered, self._full)[0]

    def _read(
        self, stepped: Float[Tensor, "row step d_model"], **scale: Tensor
    ) -> Float[Tensor, "row step _width"]:
        """Return what the metric reads of the streams at its steps."""
        if self.metric.reads == "stream":
            return stepped
        return self._model.logits(stepped, self._columns, **scale)

    def loss(self, final: Final) -> float:
        """Return the mean over prompts, turned so that lower is better."""
        return float(self.metric.loss(self.values(final)))

    def of_candidates(
        self, finals: Float[Tensor, "candidate batch pos d_model"]
    ) -> Float[Tensor, "candidate batch"]:
        """Return the metric of each prompt, for each candidate; give at most `together`."""
        with torch.no_grad():
            return self._values(finals[:, self._rows, self._step_index(finals.shape[2])])

    @property
    def can_bound(self) -> bool:
        """Whether there are bounds on the loss that cost much less than the loss."""
        if self._shifts is None or self.metric.of_shift is not kl_of_shift:
            return False
        return bounds_pay(self._model.shape.d_vocab, self._model.shape.d_model)

    def anchor(self, final: Final) -> Anchor:
        """Return what bounds start from, at a state with this final stream."""
        assert self._shifts is not None
        with torch.no_grad():
            return self._shifts.bounds.anchor(self._shifts.normed(self.at_steps(final)[None])[0])

    def loss_at(self, anchor: Anchor) -> float:
        """Return the loss at an anchor."""
        return self._mean_of(anchor.divergence[None])[0]

    def rises(
        self, anchor: Anchor, finals: Float[Tensor, "candidate batch pos d_model"]
    ) -> Iterator[tuple[float, float]]:
        """Yield the least and the largest rise of the loss from an anchor to each candidate."""
        assert self._shifts is not None
        index = self._step_index(finals.shape[2])
        for some in finals.split(self.together):
            with torch.no_grad():
                normed = self._shifts.normed(some[:, self._rows, index])
                ends = self._shifts.bounds.rises(anchor, normed)
            yield from zip(*map(self._mean_of, ends), strict=True)

    def _mean_of(self, divergence: Float[Tensor, "candidate batch step"]) -> list[float]:
        found: list[float] = self.metric.loss(
            kl_of_shift(Shift(divergence), self._prompts)
        ).tolist()
        return found

    def _values(self, stepped: Stepped) -> Float[Tensor, "candidate batch"]:
        """Return the metric of each prompt, for each candidate."""
        if self._shifts is not None:
            assert self.metric.of_shift is not None
            return self.metric.of_shift(self._shifts.shift(stepped), self._prompts)
        read = self._read(stepped.flatten(0, 1)).view(*stepped.shape[:-1], -1)
        return self.metric.of_candidates(read, self._renumbered, self._full)

    @property
    def together(self) -> int:
        """For how many candidates logits are computed at once."""
        steps = self._prompts.steps.numel()
        if self._shifts is not None:
            return max(1, self._shifts.rows // steps)
        width = self._model.shape.d_vocab if self._columns is None else len(self._columns)
        return max(1, _LOGITS // (steps * width))

    def at_steps(self, final: Final) -> Float[Tensor, "batch step d_model"]:
        """Select the metric's steps from a final stream of all or of the last positions."""
        return final[self._rows, self._step_index(final.shape[1])]

    def _step_index(self, n_positions: int) -> Int[Tensor, "batch step"]:
        """Return where the steps are in a stream of this many last positions."""
        missing = self._prompts.clean.shape[1] - n_positions
        return (self._prompts.steps - missing).clamp(min=0)
