"""Metrics: from the logits, or the final stream, at a prompt's steps to one number per prompt.

A metric says in which direction it is better, so that searches minimise one loss and no method
negates by hand. It never averages over prompts; `loss` is the one place where that happens.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.errors import MetricError, quoted, require_kind
from circuitfind.measures import (
    Logits,
    Measure,
    PerPrompt,
    Reference,
    ShiftMeasure,
    Stream,
    accuracy,
    kl,
    kl_of_shift,
    l2,
    logit_difference,
    loss,
    probability_difference,
)
from circuitfind.prompts import PromptPairs
from circuitfind.registry import Table

_SMALLEST_GAP = 1e-6
"""Of the metric's size: a smaller difference of full and empty model says nothing."""


_CHOICES: dict[str, tuple[str, ...]] = {
    "better": ("higher", "lower"),
    "reads": ("answers", "vocabulary", "stream"),
    "needs": ("none", "right", "right and wrong"),
    "slope": ("everywhere", "not at the full model", "nowhere"),
    "per": ("prompt", "batch"),
}
"""What the fields of a metric can be, where that is one of a few words."""


@dataclass(frozen=True)
class MeanDifference:
    """A direction: the mean residual stream of the clean prompts minus that of the corrupted ones.

    Attributes:
        block: After which block, counted from 0; None is the last, whose stream the logits read.
    """

    block: int | None = None


@dataclass(frozen=True)
class Metric:
    """One number per prompt, or one for all of them.

    Attributes:
        name: What tables and files call it.
        unit: The unit of its values: nats, logits, probability.
        better: Whether higher or lower values mean that the model does the task.
        measure: Takes what the metric reads at the prompts' steps, the prompts, and the same of
            the full model, and returns a value per prompt.
        reads: `vocabulary`: the logits of all tokens; `answers`: those of the answers alone, so
            that no others need be computed; `stream`: the final stream, before its norm.
        needs: Which answers every step must have.
        direction: Which direction of the model's stream it has yet to be given
            (`engine.direction.with_direction`); None for metrics that need none or have it.
        slope: Where its gradient says something: `everywhere`; `not at the full model` if it is
            smallest there, so that its gradient is zero; `nowhere` if it changes in jumps.
        stacked: Whether `measure` takes what it reads of several candidates at once, stacked in
            front, and returns as many rows.
        of_shift: The same value from the logits' shift alone, which costs less than all logits;
            None where that does not fix it.
        per: `batch` where `measure` returns one number for all prompts. Only patching measures
            that: every prompt is given this number, and no error can be told.
        summary: What it measures, in a sentence.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    measure: Measure
    reads: Literal["answers", "vocabulary", "stream"] = "vocabulary"
    needs: Literal["none", "right", "right and wrong"] = "none"
    direction: MeanDifference | None = None
    slope: Literal["everywhere", "not at the full model", "nowhere"] = "everywhere"
    stacked: bool = False
    of_shift: ShiftMeasure | None = None
    per: Literal["prompt", "batch"] = "prompt"
    summary: str = ""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if (given := getattr(self, name)) not in choices:
                raise MetricError(
                    f"the metric {quoted(self.name)} has {name}={quoted(given)}; choose one of "
                    f"{', '.join(map(repr, choices))}"
                )

    def __call__(
        self, read: Logits | Stream, prompts: PromptPairs, full: Logits | Stream
    ) -> PerPrompt:
        return self._checked(self.measure(read, prompts, Reference(full)), prompts)

    def of_candidates(
        self, read: Logits | Stream, prompts: PromptPairs, full: Reference
    ) -> Float[Tensor, "candidate batch"]:
        """Return the value per prompt of each candidate, given what is read of all of them."""
        if self.stacked and self.per == "prompt":
            return self.measure(read, prompts, full)
        values = [self.measure(candidate, prompts, full) for candidate in read]
        return torch.stack([self._checked(each, prompts) for each in values])

    def _checked(self, given: object, prompts: PromptPairs) -> PerPrompt:
        """Return a value for every prompt; refuse what else a metric from outside returns."""
        if self.per == "batch":
            return self._spread(given, len(prompts))
        if not isinstance(given, Tensor):
            raise MetricError(
                f"the metric {quoted(self.name)} returned {quoted(given)}; return a tensor with "
                "one number per prompt"
            )
        if given.shape != (len(prompts),):
            raise MetricError(
                f"the metric {quoted(self.name)} returned shape {tuple(given.shape)} for "
                f"{len(prompts)} prompts; return one number per prompt, or, for patching, make it "
                "a metric of the whole batch: custom_metric(..., per='batch')"
            )
        return given

    def _spread(self, given: object, n: int) -> PerPrompt:
        number = given if isinstance(given, Tensor) else None
        if isinstance(given, float | int):
            number = torch.tensor(given, dtype=torch.float64)
        if number is None or number.numel() != 1:
            said = quoted(given) if number is None else f"shape {tuple(number.shape)}"
            raise MetricError(
                f"the metric {quoted(self.name)} is one for the whole batch and returned {said}; "
                "return one number"
            )
        return number.reshape(1).expand(n)

    @property
    def sign(self) -> int:
        """The factor that turns the metric into a loss: 1 if lower is better, otherwise -1."""
        return 1 if self.better == "lower" else -1

    def loss(self, values: PerPrompt) -> Float[Tensor, "*candidate"]:
        """Return the mean over prompts, in float64, turned so that lower is better."""
        return self.sign * values.double().mean(-1)


def custom_metric(
    function: Callable[..., PerPrompt],
    *,
    name: str = "custom",
    unit: str = "",
    better: Literal["higher", "lower"] = "higher",
    per: Literal["prompt", "batch"] = "prompt",
) -> Metric:
    """Make a metric of any function from logits, or from logits and prompts.

    Args:
        function: Takes the logits at the steps of each prompt (axes: batch, step, vocabulary),
            and the prompts if it has a second parameter without a default.
        name: What tables and files call it.
        unit: The unit of its values.
        better: Whether higher or lower values mean that the model does the task.
        per: Whether it returns one number per prompt, or one for the whole batch. The latter can
            be patched with, and nothing else.

    Raises:
        MetricError: `better` or `per` is none of these words.
        MethodError: It is not a function.
    """
    require_kind(function, Callable, "a function; give one of logits and prompts")
    measure = partial(_called, function, takes_prompts=_takes_prompts(function))
    return Metric(name, unit, better, measure, per=per)


def _called(
    function: Callable[..., PerPrompt],
    logits: Logits,
    prompts: PromptPairs,
    full: Reference,
    *,
    takes_prompts: bool,
) -> Any:
    return function(logits, prompts) if takes_prompts else function(logits)


def _takes_prompts(function: Callable[..., PerPrompt]) -> bool:
    try:
        parameters = signature(function).parameters
    except ValueError:
        # Some functions written in C tell nothing.
        return False
    needed = [each for each in parameters.values() if each.default is each.empty]
    return "prompts" in parameters or len(needed) > 1


def require_per_prompt(metric: Metric) -> None:
    """Refuse a metric of the whole batch.

    Raises:
        MetricError: It has no value of its own for each prompt.
    """
    if metric.per == "batch":
        raise MetricError(
            f"the metric {quoted(metric.name)} is one number for the whole batch, and here every "
            "prompt needs its own: only patching takes it; return one number per prompt"
        )


def find_metric(name: str) -> Metric:
    """Return a metric by name; `direction:BLOCK` takes its direction after another block.

    Raises:
        MetricError: There is no such metric; the message lists the known ones.
    """
    plain, _, block = str(name).partition(":")
    if plain == DIRECTION.name and block.isdecimal():
        return replace(DIRECTION, name=name, direction=MeanDifference(int(block)))
    return METRICS.find(name, or_else=", and direction:BLOCK")


def check_metric(metric: Metric, prompts: PromptPairs) -> None:
    """Refuse a metric whose question the prompts do not answer.

    Raises:
        MetricError: The metric compares answers and a prompt has none of a kind.
    """
    for kind, given in zip(("right", "wrong"), prompts.answered, strict=True):
        answered = given | ~prompts.step_is_real
        if prompts.sides is not None:
            # The tokens of one answer may outnumber those of the other.
            answered = given.any(dim=-1, keepdim=True)
        if kind in metric.needs and not bool(answered.all()):
            row = int((~answered).any(dim=1).nonzero()[0])
            raise MetricError(
                f"the metric {quoted(metric.name)} needs a {kind} answer at every step and "
                f"{prompts.source(row)} has none; give one, or choose a metric that needs none: "
                "'kl' for language models, 'l2' for compiled programs"
            )


def answered(metrics: Iterable[Metric], prompts: PromptPairs) -> Iterator[Metric]:
    """Yield the metrics whose question the prompts answer."""
    for metric in metrics:
        with suppress(MetricError):
            check_metric(metric, prompts)
            yield metric


Value = TypeVar("Value", float, Tensor)


@dataclass(frozen=True)
class Scale:
    """Scale of faithfulness: the gap of a metric between the empty and the full graph.

    Attributes:
        full: The metric of the full graph, a mean over prompts.
        empty: Of the empty graph.
    """

    full: float
    empty: float

    @property
    def has_gap(self) -> bool:
        """Whether both ends differ by more than rounding."""
        size = max(abs(self.full), abs(self.empty), 1e-12)
        return not abs(self.full - self.empty) <= _SMALLEST_GAP * size

    def faithfulness(self, value: Value) -> Value:
        """Return the share of the gap that circuits close, given the metric of each.

        Raises:
            MetricError: There is no gap: the corruption does not change the metric.
        """
        if not self.has_gap:
            raise MetricError(
                f"the full model and the empty one have the same metric ({self.full:.4g}), so "
                "there is nothing for a circuit to explain; choose another metric or corruption"
            )
        return (value - self.empty) / (self.full - self.empty)


def _without_direction(stream: Stream, prompts: PromptPairs, full: Reference) -> PerPrompt:
    raise MetricError(
        "this metric has no direction yet; make the problem with `make_problem`, or give the "
        "metric a direction first (`circuitfind.engine.direction.with_direction`)"
    )


KL = Metric(
    "kl",
    "nats",
    "lower",
    kl,
    slope="not at the full model",
    of_shift=kl_of_shift,
    stacked=True,
    summary="KL divergence of the circuit from the full model",
)

LOGIT_DIFFERENCE = Metric(
    "logit-difference",
    "logits",
    "higher",
    logit_difference,
    reads="answers",
    needs="right and wrong",
    stacked=True,
    summary="logit of the right answer minus that of the wrong one",
)

PROBABILITY_DIFFERENCE = Metric(
    "probability-difference",
    "probability",
    "higher",
    probability_difference,
    needs="right and wrong",
    stacked=True,
    summary="probability of the right answers minus that of the wrong ones",
)

LOSS = Metric(
    "loss",
    "nats",
    "lower",
    loss,
    needs="right",
    stacked=True,
    summary="negative log-likelihood of the right answers",
)

ACCURACY = Metric(
    "accuracy",
    "share",
    "higher",
    accuracy,
    needs="right",
    slope="nowhere",
    stacked=True,
    summary="how often a right answer comes first",
)

L2 = Metric(
    "l2",
    "squared",
    "lower",
    l2,
    slope="not at the full model",
    stacked=True,
    summary="squared distance to the full model's outputs",
)

DIRECTION = Metric(
    "direction",
    "activation",
    "higher",
    _without_direction,
    reads="stream",
    direction=MeanDifference(),
    stacked=True,
    summary="projection of the final stream on the mean difference of clean and corrupted",
)

METRICS = Table(
    "metric",
    Metric,
    MetricError,
    (KL, LOGIT_DIFFERENCE, PROBABILITY_DIFFERENCE, LOSS, ACCURACY, L2, DIRECTION),
)
"""Every named metric. A new one is a function in `measures.py` and a line here."""
