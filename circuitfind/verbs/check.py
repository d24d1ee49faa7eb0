"""Check the gradients of a run: which rules would rank the edges best, on its model and prompts."""

from collections.abc import Callable
from pathlib import Path

from circuitfind.comparison.rule_checks import RuleChecks, check_rules
from circuitfind.directories.config import RunConfig
from circuitfind.directories.work import read_config
from circuitfind.models.rules import RULE_SETS
from circuitfind.question import Models


def check_run(path: Path, tell: Callable[[str], None] = lambda message: None) -> RuleChecks:
    """Hold the scores of a run to exact effects, by its own rules, by none, and by every set.

    Args:
        path: The run directory.
        tell: Called with what a user should know.

    Raises:
        CircuitfindError: The method takes no rules, or the model cannot be loaded.
    """
    config = read_config(RunConfig, path).completed()
    own = config.options.get("rules")
    options = {name: value for name, value in config.options.items() if name != "rules"}
    rules = dict.fromkeys((own, None, *RULE_SETS))
    problem = config.problem(Models(tell=tell).again(config))
    return check_rules(
        problem, config.method, list(rules), seed=config.seed, memory=config.memory, **options
    )
