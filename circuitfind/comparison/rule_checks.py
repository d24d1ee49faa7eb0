"""Hold edge attribution to exact effects, by each set of rules for its gradients.

Which gradient ranks the edges of a model best is not known beforehand (`circuitfind.models.rules`),
and to measure the effects of some edges, drawn at random, tells it of one's own model and prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuitfind.comparison.overlap import rank_correlation
from circuitfind.engine.incremental import as_engine
from circuitfind.errors import MethodError, ModelError, quoted
from circuitfind.limits import require
from circuitfind.methods import METHODS
from circuitfind.methods.eap import Attribution
from circuitfind.methods.exact import sampled_effects
from circuitfind.models.rules import RULE_SETS
from circuitfind.problem import HasProblem

SAMPLED = 500
"""Of how many edges effects are measured, unless it is told."""

OWN = "none"
"""What the model's own gradient is called beside the sets of rules."""


@dataclass(frozen=True)
class RuleChecks:
    """How well edge attribution ranks edges by each set of rules.

    Attributes:
        method: Name of the method.
        correlations: By rules, or `none`: Spearman's rank correlation of scores with effects.
        refused: Rules that cannot be followed in this model or graph, with the reason.
        n_measured: How many edges' effects were measured.
        n_edges: How many edges there are.
        seed: With which the measured ones were drawn.
    """

    method: str
    correlations: Mapping[str, float | None]
    refused: Mapping[str, str]
    n_measured: int
    n_edges: int
    seed: int


def require_rules(method: str) -> Attribution:
    """Return a method that takes rules for its gradients.

    Raises:
        MethodError: It takes none.
    """
    found = METHODS.find(method)
    if not isinstance(found, Attribution):
        able = ", ".join(each.name for each in METHODS if isinstance(each, Attribution))
        raise MethodError(
            f"the method {quoted(method)} takes no rules for gradients to be checked against exact "
            f"effects; choose one of {able}"
        )
    return found


def check_rules(
    asked: HasProblem,
    method: str = "eap-ig",
    rules: Sequence[str | None] = (None, *RULE_SETS),
    *,
    n_edges: int | None = SAMPLED,
    seed: int = 0,
    memory: int | str | None = None,
    **options: Any,
) -> RuleChecks:
    """Measure the rank correlation of scores by several sets of rules with exact effects.

    Args:
        asked: The problem, or what a search on it found.
        method: `eap` or `eap-ig`.
        rules: The sets of rules; None is the model's own gradient.
        n_edges: Of how many edges effects are measured, drawn at random; None measures all.
        seed: Fixes which.
        memory: How many bytes may be taken beside the model, also as text like `2GB`.
        options: The method's other options.

    Raises:
        MethodError: The method takes no rules, or there are no such rules.
    """
    require(**({} if n_edges is None else {"sampled_edges": n_edges}), seed=seed)
    found, engine = require_rules(method), as_engine(asked, memory)
    settings = {each or OWN: found.options(**options, rules=each) for each in rules}
    effects = sampled_effects(engine, n_edges, seed)
    correlations: dict[str, float | None] = {}
    refused: dict[str, str] = {}
    for name, given in settings.items():
        try:
            if engine.graph.moves:
                found.require_moves(vars(given))
        except MethodError as error:
            refused[name] = str(error)
            continue
        try:
            scores = found.scores(engine, given)
        except ModelError as error:
            refused[name] = str(error)
        else:
            correlations[name] = rank_correlation(scores, effects)[0].value
    n_measured = int((~effects.values.isnan()).sum())
    return RuleChecks(method, correlations, refused, n_measured, engine.graph.n_edges, seed)
