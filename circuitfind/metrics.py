"""Metrics: from the logits at a prompt's steps to one number per prompt.

A metric says in which direction it is better, so that searches minimise one loss and no method
negates by hand. It never averages over prompts; `loss` is the one place where that happens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.errors import MetricError
from circuitfind.prompts import NO_TOKEN, PromptPairs

Logits = Float[Tensor, "batch step d_vocab"]
PerPrompt = Float[Tensor, " batch"]


@dataclass(frozen=True)
class Reference:
    """The full model's logits at the same steps, and what metrics need of them again and again."""

    logits: Logits

    @cached_property
    def log_normaliser(self) -> Float[Tensor, "batch step"]:
        return self.logits.logsumexp(-1)

    @cached_property
    def log_probability(self) -> Logits:
        return self.logits - self.log_normaliser[..., None]

    @cached_property
    def probability(self) -> Logits:
        return self.log_probability.exp()

    @cached_property
    def negative_entropy(self) -> Float[Tensor, "batch step"]:
        return (self.probability * self.log_probability).sum(-1)


@dataclass(frozen=True)
class Shift:
    """How a circuit's logits differ from the full model's, in two numbers a step.

    Attributes:
        log_normaliser: Rise of the log of the sum of their exponentials, in nats.
        expected: Their own mean rise under the full model's distribution, in nats.
    """

    log_normaliser: Float[Tensor, "batch step"]
    expected: Float[Tensor, "batch step"]


_SMALLEST_GAP = 1e-6
"""Of the metric's size: a smaller difference of full and empty model says nothing."""

Measure = Callable[[Logits, PromptPairs, Reference], PerPrompt]
ShiftMeasure = Callable[[Shift, PromptPairs], PerPrompt]


@dataclass(frozen=True)
class Metric:
    """One number per prompt.

    Attributes:
        name: What tables and files call it.
        unit: The unit of its values: nats, logits, probability.
        better: Whether higher or lower values mean that the model does the task.
        measure: Takes the logits at the prompts' steps, the prompts, and what the full model says
            at the same steps, and returns a value per prompt.
        reads: `answers` if it depends on the logits of the answers alone, so that nothing else
            need be computed; otherwise `vocabulary`.
        needs: Which answers every step must have.
        slope: Where its gradient says something: `everywhere`; `not at the full model` if it is
            smallest there, so that its gradient is zero; `nowhere` if it changes in jumps.
        of_shift: The same value from the logits' shift alone, which costs less than all logits;
            None where that does not fix it.
        summary: What it measures, in a sentence.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    measure: Measure
    reads: Literal["answers", "vocabulary"] = "vocabulary"
    needs: Literal["none", "right", "right and wrong"] = "none"
    slope: Literal["everywhere", "not at the full model", "nowhere"] = "everywhere"
    of_shift: ShiftMeasure | None = None
    summary: str = ""

    def __call__(self, logits: Logits, prompts: PromptPairs, full: Logits) -> PerPrompt:
        return self.measure(logits, prompts, Reference(full))

    @property
    def sign(self) -> int:
        """The factor that turns the metric into a loss: 1 if lower is better, otherwise -1."""
        return 1 if self.better == "lower" else -1

    def loss(self, values: PerPrompt) -> Float[Tensor, ""]:
        """Return the mean over prompts, in float64, turned so that lower is better."""
        return self.sign * values.double().mean()


def custom_metric(
    function: Callable[[Logits, PromptPairs], PerPrompt],
    *,
    name: str = "custom",
    unit: str = "",
    better: Literal["higher", "lower"] = "higher",
) -> Metric:
    """Make a metric of any function from logits and prompts to one number per prompt."""

    def measure(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
        values = function(logits, prompts)
        if values.shape != (len(prompts),):
            raise MetricError(
                f"the metric {name!r} returned shape {tuple(values.shape)} for {len(prompts)} "
                "prompts; return one number per prompt"
            )
        return values

    return Metric(name, unit, better, measure)


def find_metric(name: str) -> Metric:
    """Return a metric by name.

    Raises:
        MetricError: There is no such metric; the message lists the known ones.
    """
    for metric in METRICS:
        if metric.name == name:
            return metric
    raise MetricError(
        f"no metric named {name!r}; the metrics are {', '.join(m.name for m in METRICS)}"
    )


def check_metric(metric: Metric, prompts: PromptPairs) -> None:
    """Refuse a metric whose question the prompts do not answer.

    Raises:
        MetricError: The metric compares answers and a prompt has none of a kind.
    """
    for kind, choices in (("right", prompts.answers), ("wrong", prompts.wrong_answers)):
        answered = (choices != NO_TOKEN).any(dim=-1) | ~prompts.step_is_real
        if kind in metric.needs and not bool(answered.all()):
            row = int((~answered).any(dim=1).nonzero()[0])
            raise MetricError(
                f"the metric {metric.name!r} needs a {kind} answer at every step and prompt {row} "
                "has none; give one, or choose a metric that needs none: 'kl' for language models, "
                "'l2' for compiled programs"
            )


def faithfulness(full: float, circuit: float, empty: float) -> float:
    """Return the share of the gap between the empty and the full model that a circuit closes.

    Raises:
        MetricError: There is no gap: the corruption does not change the metric.
    """
    gap = full - empty
    if abs(gap) <= _SMALLEST_GAP * max(abs(full), abs(empty), 1e-12):
        raise MetricError(
            f"the full model and the empty one have the same metric ({full:.4g}), so there is "
            "nothing for a circuit to explain; choose another metric or corruption"
        )
    return (circuit - empty) / gap


def _mean_over_steps(values: Float[Tensor, "batch step"], prompts: PromptPairs) -> PerPrompt:
    real = prompts.step_is_real
    return values.masked_fill(~real, 0).sum(dim=1) / real.sum(dim=1)


def _chosen(
    values: Logits, tokens: Int[Tensor, "batch step choice"]
) -> tuple[Float[Tensor, "batch step choice"], Bool[Tensor, "batch step choice"]]:
    given = tokens != NO_TOKEN
    return values.gather(-1, tokens.clamp(min=0)).masked_fill(~given, 0), given


def _mean_chosen(
    values: Logits, tokens: Int[Tensor, "batch step choice"]
) -> Float[Tensor, "batch step"]:
    chosen, given = _chosen(values, tokens)
    return chosen.sum(-1) / given.sum(-1).clamp(min=1)


def kl(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """KL(full || circuit), summed over the vocabulary and averaged over the prompt's steps."""
    # Shifted by the full model's normaliser, all large terms are near 0 and cancel without loss.
    shifted = logits - full.log_normaliser[..., None]
    cross = torch.einsum("bsv,bsv->bs", full.probability, shifted)
    return _mean_over_steps(full.negative_entropy - cross + _log_sum_exp_(shifted), prompts)


def kl_of_shift(shift: Shift, prompts: PromptPairs) -> PerPrompt:
    """KL(full || circuit): entropies cancel, and all but the normaliser is linear in the logits."""
    return _mean_over_steps(shift.log_normaliser - shift.expected, prompts)


def _log_sum_exp_(values: Logits) -> Float[Tensor, "batch step"]:
    """Return the log of the sum of exponentials, using up its argument.

    Vocabulary-sized temporaries cost more than the arithmetic on them.
    """
    largest = values.detach().amax(-1, keepdim=True)
    return values.sub_(largest).exp_().sum(-1).log() + largest[..., 0]


def logit_difference(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """Mean logit of the right answers less that of the wrong ones."""
    right = _mean_chosen(logits, prompts.answers)
    return _mean_over_steps(right - _mean_chosen(logits, prompts.wrong_answers), prompts)


def probability_difference(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    """Total probability of the right answers less that of the wrong ones."""
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


METRICS = (
    Metric(
        "kl",
        "nats",
        "lower",
        kl,
        slope="not at the full model",
        of_shift=kl_of_shift,
        summary="KL divergence of the circuit from the full model",
    ),
    Metric(
        "logit-difference",
        "logits",
        "higher",
        logit_difference,
        reads="answers",
        needs="right and wrong",
        summary="logit of the right answer less that of the wrong one",
    ),
    Metric(
        "probability-difference",
        "probability",
        "higher",
        probability_difference,
        needs="right and wrong",
        summary="probability of the right answers less that of the wrong ones",
    ),
    Metric(
        "loss",
        "nats",
        "lower",
        loss,
        needs="right",
        summary="negative log-likelihood of the right answers",
    ),
    Metric(
        "accuracy",
        "share",
        "higher",
        accuracy,
        needs="right",
        slope="nowhere",
        summary="how often a right answer comes first",
    ),
    Metric(
        "l2",
        "squared",
        "lower",
        l2,
        slope="not at the full model",
        summary="squared distance to the full model's outputs",
    ),
)
"""Every named metric. A new one is a function above and a line here."""
