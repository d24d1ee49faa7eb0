"""The metrics as functions: from logits, or the final residual stream, to one number per prompt.

The arguments are the circuit's logits at the prompts' steps, the prompts, and the full model's
logits at the same steps. Each metric averages over a prompt's steps, never over prompts. Logits of
several candidates may be stacked in front.

Where answers take several tokens (`PromptPairs.sides`), the steps of a row are the tokens of its
answers and metrics of answers take these together. A prompt may then have two rows: what only one
of them shows counts twice there, so the mean over both is the metric of the prompt.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.pairs import Side
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
    parts = [surplus_of(rise, full.probability[..., at]) for at, rise in rises]
    # Rounding may leave a sum of terms near 0 below 0.
    return torch.stack(parts).sum(0).clamp(min=0)


def surplus_of(
    rise: Float[Tensor, "*_ token"], probability: Float[Tensor, "*_ token"]
) -> Float[Tensor, "*_"]:
    """Return the terms of E[exp(rise) - 1 - rise] of some tokens, summed."""
    # In place, since vocabulary-sized temporaries cost more than the arithmetic on them.
    return rise.expm1().sub(rise).mul_(probability).sum(-1)


def logit_difference(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """Mean logit of the right answers minus that of the wrong answers.

    Where answers take several tokens: the log-probability of the right answer minus that of the
    wrong answer, which is the same for answers of one token.
    """
    values = logits if prompts.compared else logits.log_softmax(-1)
    right = _mean_chosen(values, prompts.answers)
    difference = right - _mean_chosen(values, prompts.wrong_answers)
    if prompts.sides is None:
        return _mean_over_steps(difference, prompts)
    return (difference * prompts.step_weights.to(difference)).sum(-1)


def probability_difference(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """Total probability of the right answers minus that of the wrong answers."""
    if prompts.sides is not None:
        return _difference_of_forced(logits, prompts)
    probability = logits.softmax(-1)
    right, wrong = (
        _chosen(probability, tokens)[0].sum(-1)
        for tokens in (prompts.answers, prompts.wrong_answers)
    )
    return _mean_over_steps(right - wrong, prompts)


def _difference_of_forced(logits: Logits, prompts: PromptPairs) -> PerPrompt:
    log_probability, sides = logits.log_softmax(-1), prompts.sides
    assert sides is not None
    right, wrong = (
        _log_total(log_probability, tokens).sum(-1).exp().masked_fill(~given.any(-1), 0)
        for tokens, given in zip(
            (prompts.answers, prompts.wrong_answers), prompts.answered, strict=True
        )
    )
    return torch.where(sides == Side.ONLY, right - wrong, 2 * torch.where(sides > 0, right, -wrong))


def _log_total(log_probability: Logits, tokens: Int[Tensor, "batch step choice"]) -> PerStep:
    """Return the log of the total probability of some tokens; 0 at steps that have none."""
    chosen, given = _chosen(log_probability, tokens)
    total = chosen.masked_fill(~given, -torch.inf).logsumexp(-1)
    return total.masked_fill(~given.any(-1), 0)


def loss(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """Negative log-likelihood of the right answers, all of them together.

    Where answers take several tokens: of the whole right answer, a sum over its tokens.
    """
    found = -_log_total(logits.log_softmax(-1), prompts.answers)
    if prompts.sides is None:
        return _mean_over_steps(found, prompts)
    return (found * prompts.step_weights.to(found)).sum(-1)


def accuracy(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """Share of steps at which a right answer has the largest logit of all tokens.

    Where answers take several tokens: 1 where each token of the right answer has, otherwise 0.
    """
    best = logits.argmax(-1, keepdim=True)
    hit = ((best == prompts.answers) & (prompts.answers != NO_TOKEN)).any(-1)
    if prompts.sides is None:
        return _mean_over_steps(hit.to(logits.dtype), prompts)
    hit |= ~prompts.answered[0]
    shared = (hit | (prompts.step_weights > 1)).all(-1).to(logits.dtype)
    rest = (hit | (prompts.step_weights <= 1)).all(-1).to(logits.dtype)
    # The row of the wrong answer shows the shared tokens alone. With it, the mean is their product.
    factor = torch.where(prompts.sides == Side.RIGHT, 2 * rest - 1, torch.ones_like(rest))
    return shared * factor


def l2(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """Squared distance to the full model's outputs, summed over them and averaged over steps."""
    return _mean_over_steps((logits - full.logits).square().sum(-1), prompts)


def distinct_answers(prompts: PromptPairs) -> Int[Tensor, " column"]:
    """Return every token that is an answer, right or wrong, sorted and once each."""
    tokens = torch.cat([prompts.answers.flatten(), prompts.wrong_answers.flatten()])
    distinct: Tensor = tokens[tokens != NO_TOKEN].unique()
    return distinct


def on_columns(prompts: PromptPairs, columns: Int[Tensor, " column"]) -> PromptPairs:
    """Return the pairs with answers renumbered to the columns of restricted logits."""

    def renumbered(tokens: Int[Tensor, "batch step choice"]) -> Int[Tensor, "batch step choice"]:
        return torch.where(tokens == NO_TOKEN, tokens, torch.searchsorted(columns, tokens))

    return replace(
        prompts,
        answers=renumbered(prompts.answers),
        wrong_answers=renumbered(prompts.wrong_answers),
    )


def along(direction: Float[Tensor, " d_model"]) -> Measure:
    """Return what measures the final stream's component along a direction of any length."""
    return partial(_component, direction / direction.norm())


def _component(
    unit: Float[Tensor, " d_model"], stream: Stream, prompts: PromptPairs, full: Reference
) -> PerPrompt:
    return _mean_over_steps(stream @ unit.to(stream), prompts)
