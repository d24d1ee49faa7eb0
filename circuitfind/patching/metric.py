"""The metric that patching measures where none was chosen."""

from dataclasses import replace

from circuitfind.metrics import LOGIT_DIFFERENCE, Metric, answered
from circuitfind.problem import Problem
from circuitfind.prompts import PromptPairs


def default_metric(prompts: PromptPairs, otherwise: Metric) -> Metric:
    """Return the logit difference where every step has right and wrong answers.

    Args:
        prompts: The prompts.
        otherwise: What to return where an answer is missing: the task's own metric.
    """
    return next(answered((LOGIT_DIFFERENCE,), prompts), otherwise)


def with_metric(problem: Problem) -> Problem:
    """Return the problem with the metric of patching, unless its metric was chosen."""
    if not problem.metric_is_default:
        return problem
    return replace(problem, metric=default_metric(problem.prompts, problem.metric))
