"""The metric that patching measures where none was chosen."""

from dataclasses import replace

from circuitfind.errors import MetricError
from circuitfind.metrics import Metric, check_metric, find_metric
from circuitfind.problem import Problem
from circuitfind.prompts import PromptPairs


def default_metric(prompts: PromptPairs, otherwise: Metric) -> Metric:
    """Return the logit difference where every step has right and wrong answers.

    Args:
        prompts: The prompts.
        otherwise: What to return where an answer is missing: the task's own metric.
    """
    metric = find_metric("logit-difference")
    try:
        check_metric(metric, prompts)
    except MetricError:
        return otherwise
    return metric


def with_metric(problem: Problem) -> Problem:
    """Return the problem with the metric of patching, unless its metric was chosen."""
    if not problem.metric_is_default:
        return problem
    return replace(problem, metric=default_metric(problem.prompts, problem.metric))
