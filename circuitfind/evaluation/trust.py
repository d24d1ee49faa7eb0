"""Can the figures be trusted? What a summary says first, and what it warns of.

A circuit explains how a model does a task. Where the model does not do the task, where the
corrupted prompts change nothing, or where no edge is kept, there is nothing to explain, and figures
such as faithfulness mislead. Every summary therefore begins with the model's own result on the task
and ends with a sentence for each reason to doubt it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from circuitfind.circuit import Circuit
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.fit import Fit, measure_fit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.evaluation.intervals import FEWEST_PROMPTS, LEVEL
from circuitfind.measures import Reference, accuracy
from circuitfind.metrics import ACCURACY, LOGIT_DIFFERENCE, answered
from circuitfind.models.precision import precision_note
from circuitfind.problem import HasProblem, Problem, as_problem
from circuitfind.prompts import PromptPairs

_TASK_KEPT = 0.5
"""A circuit that keeps less than this share of the model's accuracy does not do the task."""

_DISTINCT = 0.8
"""With a smaller share of distinct pairs, intervals over prompts claim too much."""


@dataclass(frozen=True)
class OwnResult:
    """The model's own result on the task, on the clean prompts.

    Attributes:
        metric: `logit-difference` where all prompts have right and wrong answers, else `accuracy`.
        unit: Its unit.
        value: Its mean.
        low: Lower end of a 95 % interval of the mean over prompts; None for fewer than 8 prompts.
        high: Its upper end.
        accuracy: How often a right answer has the largest logit of all tokens.
    """

    metric: str
    unit: str
    value: float
    low: float | None
    high: float | None
    accuracy: float

    @property
    def does_the_task(self) -> bool:
        """Whether the model prefers right answers, by more than chance between prompts explains."""
        if self.metric == ACCURACY.name:
            return self.value > 0
        return (self.value if self.low is None else self.low) > 0

    def __str__(self) -> str:
        interval = "" if self.low is None else f" ({self.low:.4g} to {self.high:.4g})"
        own = f"{self.metric} {self.value:.4g}{interval} {self.unit}"
        return own if self.metric == ACCURACY.name else f"{own}, accuracy {self.accuracy:.4g}"


def own_of(asked: HasProblem) -> OwnResult | None:
    """Return how well the model itself does a task, or None where prompts have no answers.

    Args:
        asked: The problem; or an engine of it, which holds the model's run.
    """
    problem = as_problem(asked)
    model, prompts = problem.model, problem.prompts
    with torch.no_grad():
        if isinstance(asked, IncrementalEngine):
            logits = model.logits(asked.readout.at_steps(asked.clean_final))
        else:
            logits = prompts.at_steps(model.own_logits(prompts.clean, prompts.real))
    return own_result(prompts, logits)


def foreword(own: OwnResult | None, problem: Problem | None = None) -> list[str]:
    """Return what a user should know before a search begins, a line each.

    Args:
        own: How well the model does the task.
        problem: What is asked, where its prompts are to be looked at, too.
    """
    reasons = list(doubts_about_model(own))
    result = [] if own is None else [f"the model itself: {own}"]
    if problem is not None:
        reasons += doubts_about_prompts(problem)
        fits = fits_of(problem)
        result += [f"the dictionary of {each.block} {fit}" for each, fit in fits]
        reasons += doubts_about_dictionaries(fits)
        if problem.prompts.alignment is not None:
            result += problem.prompts.alignment.notes()
    return [*result, *(f"warning: {reason}" for reason in reasons)]


def own_result(
    prompts: PromptPairs, logits: Float[Tensor, "batch step d_vocab"]
) -> OwnResult | None:
    """Return how well a model does the task, or None where prompts have no answers.

    Args:
        prompts: The prompts.
        logits: The model's own at the steps of the clean prompts.
    """
    if ACCURACY not in (can_be_asked := list(answered((ACCURACY, LOGIT_DIFFERENCE), prompts))):
        return None
    full = Reference(logits)
    hits = prompts.per_prompt(accuracy(logits, prompts, full))
    values, metric = hits, ACCURACY
    if LOGIT_DIFFERENCE in can_be_asked:
        values, metric = LOGIT_DIFFERENCE(logits, prompts, logits), LOGIT_DIFFERENCE
        values = prompts.per_prompt(values)
    low, high = mean_with_interval(values) or (None, None)
    mean = float(values.double().mean())
    return OwnResult(metric.name, metric.unit, mean, low, high, float(hits.double().mean()))


def mean_with_interval(values: Float[Tensor, " batch"]) -> tuple[float, float] | None:
    """Return the ends of Student's 95 % interval of a mean; None for fewer than 8 values."""
    if len(values) < FEWEST_PROMPTS:
        return None
    numbers = values.double().cpu()
    error = float(numbers.std()) / math.sqrt(len(numbers))
    reach = float(stdtrit(len(numbers) - 1, (1 + LEVEL) / 2)) * error
    mean = float(numbers.mean())
    return mean - reach, mean + reach


def within_noise(full: Float[Tensor, " batch"], empty: Float[Tensor, " batch"]) -> bool:
    """Return whether a gap between two runs may be chance: its interval over prompts holds 0."""
    ends = mean_with_interval(full.double() - empty.double())
    return ends is not None and ends[0] <= 0 <= ends[1]


def doubts(
    problem: Problem,
    circuit: Circuit,
    own: OwnResult | None,
    *,
    kept_accuracy: float | None,
    faithfulness: float | None,
) -> tuple[str, ...]:
    """Return why the figures of a circuit cannot be trusted, a sentence each.

    Args:
        problem: The question.
        circuit: Its answer.
        own: How well the model does the task.
        kept_accuracy: Accuracy of the circuit, where prompts have answers.
        faithfulness: That of the circuit by the problem's metric; None where it is undefined.
    """
    found = [*doubts_about_model(own), *doubts_about_prompts(problem)]
    found += doubts_about_dictionaries(fits_of(problem))
    if faithfulness is None:
        found.append(
            f"the full model and the empty graph differ in {problem.metric.name} by no more than "
            "chance between prompts explains, so faithfulness is undefined; choose another metric, "
            "another corruption, or more prompts"
        )
    if not circuit.n_edges:
        found.append("the circuit is empty: no edge was kept; try a smaller threshold")
    elif (
        own is not None
        and own.does_the_task
        and kept_accuracy is not None
        and kept_accuracy < _TASK_KEPT * own.accuracy
    ):
        found.append(
            f"the circuit does not do the task: its accuracy is {kept_accuracy:.2f} and the "
            f"model's {own.accuracy:.2f}; try a smaller threshold, or more edges"
        )
    return tuple(found)


def doubts_about_model(own: OwnResult | None) -> Iterator[str]:
    """Yield that the model does not do the task, where it does not."""
    if own is not None and not own.does_the_task:
        yield (
            f"the model does not do this task ({own}), so there is no behaviour that a circuit "
            "could explain; try another task or model"
        )


def notes(problem: Problem) -> tuple[str, ...]:
    """Return what a reader of the figures should know, though it is no reason to doubt them."""
    note = precision_note(problem.model)
    return () if note is None else (note,)


def fits_of(problem: Problem) -> list[tuple[Dictionary, Fit]]:
    """Return the model's dictionaries with how well each reconstructs it on the clean prompts."""
    model, prompts = problem.model, problem.prompts
    every = [each for each in model.dictionaries.values() if isinstance(each, Dictionary)]
    return [(each, measure_fit(model, each, prompts.clean, prompts.real)) for each in every]


def doubts_about_dictionaries(fits: Sequence[tuple[Dictionary, Fit]]) -> Iterator[str]:
    """Yield which dictionaries reconstruct the model badly, so that much of it is their error."""
    for dictionary, fit in fits:
        if (warning := fit.warning(dictionary)) is not None:
            yield warning


def doubts_about_prompts(problem: Problem) -> Iterator[str]:
    """Yield what is wrong with the prompts: unknown tokens, and pairs that repeat one another."""
    prompts, vocabulary = problem.prompts, problem.model.vocabulary
    unknown = getattr(getattr(vocabulary, "tokenizer", None), "unk_token_id", None)
    special = (getattr(vocabulary, "bos", None), None)
    if unknown not in special:
        rows = int(((prompts.clean == unknown) & prompts.real).any(1).sum())
        if rows:
            yield (
                f"{rows} of {len(prompts)} prompts hold tokens that the model does not know; "
                "choose words that its tokenizer has"
            )
    if prompts.n_distinct < _DISTINCT * prompts.n_prompts:
        yield (
            f"only {prompts.n_distinct} of {prompts.n_prompts} pairs of prompts differ from one "
            "another, so intervals over prompts are too narrow"
        )
