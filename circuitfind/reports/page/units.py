"""The neurons or latents of a circuit as the page's data, with what makes each active."""

from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.evaluation.unit_uses import UnitUse, unit_uses
from circuitfind.problem import Problem
from circuitfind.reports.page.numbers import short


def described_units(problem: Problem, circuit: Circuit) -> list[dict[str, Any]]:
    """Return a row for each unit that a kept edge touches, the largest effects first."""
    found = unit_uses(problem, circuit) if problem.graph.units else ()
    return [_row(unit) for unit in found]


def _row(unit: UnitUse) -> dict[str, Any]:
    return {
        "name": unit.name,
        "effect": short(unit.effect),
        "frequency": short(unit.frequency),
        "tokens": [[each.text, short(each.share)] for each in unit.tokens],
        "contexts": [
            [each.before, each.token, each.after, short(each.activation)] for each in unit.contexts
        ],
    }
