"""The metrics as functions: from logits, or the final residual stream, to one number per prompt.

The arguments are the circuit's logits at the prompts' steps, the prompts, and the full model's
logits at the same steps. Each metric averages over a prompt's steps, never over prompts. Logits of
several candidates may be stacked in front.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.prompts import NO_TOKEN, PromptPairs

Logits = Float[Tensor, "*candidate batch step d_vocab"]
Stream = Float[Tensor, "*candidate batch step d_model"]
PerStep = Float[Tensor, "*candidate batch step"]
PerPrompt = Float[Tensor, "*candidate batch"]


@dataclass(frozen=True)
class Reference:
    """The full model at the same steps: its logits, and values of them that metrics use repeatedly.

    Attributes:
        logits: Its logits; the final stream, for metrics that read that.
    """

    logits: Logits | Stream

    @cached_property
    def log_probability(self) -> Logits:
        return self.logits.log_softmax(-1)

    @cached_property
    def probability(self) -> Logits:
        # Its sum is nearer to 1 than that of the exponentials of the logs.
        return self.logits.softmax(-1)


@dataclass(frozen=True)
class Shift:
    """The distance of a circuit's logits from the full model's, one number per step.

    Attributes:
        divergence: KL(full || circuit), in nats; never negative.
    """

    divergence: PerStep


Rises = Callable[[], Iterator[tuple[slice, Logits]]]
Measure = Callable[[Logits | Stream, PromptPairs, Reference], PerPrompt]
ShiftMeasure = Callable[[Shift, PromptPairs], PerPrompt]


def _mean_over_steps(values: PerStep, prompts: PromptPairs) -> PerPrompt:
    real = prompts.step_is_real
    return values.masked_fill(~real, 0).sum(-1) / real.sum(-1)


def _chosen(
    values: Logits, tokens: Int[Tensor, "batch step choice"]
) -> tuple[Float[Tensor, "*candidate batch step choice"], Bool[Tensor, "batch step choice"]]:
    given = tokens != NO_TOKEN
    index = tokens.clamp(min=0).expand(*values.shape[:-1], -1)
    return values.gather(-1, index).masked_fill(~given, 0), given


def _mean_chosen(values: Logits, tokens: Int[Tensor, "batch step choice"]) -> PerStep:
    chosen, given = _chosen(values, tokens)
    return chosen.sum(-1) / given.sum(-1).clamp(min=1)


def kl(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """KL(full || circuit), summed over the vocabulary and averaged over the prompt's steps.

    Never negative, and exactly 0 where the logits are those of the full model.
    """
    rise = logits - full.logits
    rise -= torch.einsum("bsv,...bsv->...bs", full.probability, rise)[..., None]
    return _mean_over_steps(divergence(lambda: iter([(slice(None), rise)]), full), prompts)


def kl_of_shift(shift: Shift, prompts: PromptPairs) -> PerPrompt:
    """KL(full || circuit)."""
    return _mean_over_steps(shift.divergence, prompts)


def divergence(rises: Rises, full: Reference) -> PerStep:
    """Return KL(full || circuit) of each step, log E[exp(rise) - rise] where E[rise] is 0.

    E is the mean under the full model's distribution. No token's exp(rise) - 1 - rise is negative,
    so nothing cancels and the result is never negative, however near it is to 0.

    Args:
        rises: Yields some tokens at a time, and by how much the circuit's logits of them are larger
            than the full model's, minus the mean of that over all tokens.
        full: The full model.
    """
    sums = _surplus(rises(), full)
    beyond = ~sums.isfinite()
    if not bool(beyond.any()):
        return sums.log1p()
    # So far from the full model that exponentials overflow: the divergence is large, and its log
    # can be taken of the sum as a whole.
    near = _surplus(((at, rise.masked_fill(beyond[..., None], 0)) for at, rise in rises()), full)
    parts = [(full.log_probability[..., at] + rise).logsumexp(-1) for at, rise in rises()]
    far = torch.stack(parts).logsumexp(0).clamp(min=0)
    return torch.where(beyond, far, near.log1p())


def _surplus(rises: Iterable[tuple[slice, Logits]], full: Reference) -> PerStep:
    parts = [
        # In place, since vocabulary-sized temporaries cost more than the arithmetic on them.
        rise.expm1().sub(rise).mul_(full.probability[..., at]).sum(-1)
        for at, rise in rises
    ]
    # Rounding may leave a sum of terms near 0 below 0.
    return torch.stack(parts).sum(0).clamp(min=0)


def logit_difference(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """Mean logit of the right answers minus that of the wrong answers."""
    right = _mean_chosen(logits, prompts.answers)
    return _mean_over_steps(right - _mean_chosen(logits, prompts.wrong_answers), prompts)


def probability_difference(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """Total probability of the right answers minus that of the wrong answers."""
    probability = logits.softmax(-1)
    right, wrong = (
        _chosen(probability, tokens)[0].sum(-1)
        for tokens in (prompts.answers, prompts.wrong_answers)
    )
    return _mean_over_steps(right - wrong, prompts)


def loss(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """Negative log-likelihood of the right answers, all of them together."""
    log_probability = logits.log_softmax(-1)
    chosen, given = _chosen(log_probability, prompts.answers)
    return _mean_over_steps(-chosen.masked_fill(~given, -torch.inf).logsumexp(-1), prompts)


def accuracy(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """Share of steps at which a right answer has the largest logit of all tokens."""
    best = logits.argmax(-1, keepdim=True)
    hit = ((best == prompts.answers) & (prompts.answers != NO_TOKEN)).any(-1)
    return _mean_over_steps(hit.to(logits.dtype), prompts)


def l2(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """Squared distance to the full model's outputs, summed over them and averaged over steps."""
    return _mean_over_steps((logits - full.logits).square().sum(-1), prompts)


def along(direction: Float[Tensor, " d_model"]) -> Measure:
    """Return what measures the final stream's component along a direction of any length."""
    unit = direction / direction.norm()

    def component(stream: Stream, prompts: PromptPairs, full: Reference) -> PerPrompt:
        return _mean_over_steps(stream @ unit.to(stream), prompts)

    return component
