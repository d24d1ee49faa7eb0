"""The evaluation as the page's data; `web/src/data.ts` describes the form."""

from dataclasses import asdict
from typing import Any

from circuitfind.evaluation.assessment import Assessment
from circuitfind.reports.evaluation import assessment_rows
from circuitfind.reports.page.numbers import finite, short


def drawn_evaluation(assessment: Assessment) -> dict[str, Any]:
    """Return an evaluation's figures as text, its charts and tests, and what it says of edges."""
    return {
        "effort": assessment.effort,
        "metric": assessment.metric,
        "rows": assessment_rows(assessment),
        "curve": _curve(assessment),
        "knockOuts": _knock_outs(assessment),
        "tests": [finite(asdict(test)) for test in assessment.tests],
        "evidence": _evidence(assessment),
    }


def _curve(given: Assessment) -> dict[str, Any] | None:
    curve = given.curve
    if curve is None or curve.cpr is None:
        return None
    baseline = given.baselines[0] if given.baselines else None
    ends = None if baseline is None else [baseline.low, baseline.mean, baseline.high]
    return {
        "by": curve.by,
        "points": [[short(p.share), short(p.faithfulness)] for p in curve.points if p.share > 0],
        "own": [given.n_edges / given.n_edges_full, given.readings[0].measured.faithfulness],
        "random": ends and [short(end) for end in ends],
    }


def _knock_outs(given: Assessment) -> list[dict[str, Any]]:
    """Return what is left of circuit and model without some components, the worst set first."""
    return [
        {
            "kind": knock_out.kind,
            "components": list(knock_out.components),
            "full": short(knock_out.full),
            "circuit": short(knock_out.circuit),
        }
        for knock_out in (given.completeness.knock_outs if given.completeness else ())
    ]


def _evidence(given: Assessment) -> dict[str, Any] | None:
    found = given.discoveries
    if found is None:
        return None
    rows = {
        row.edge: [short(value) for value in (row.effect, row.adjusted, row.low, row.high)]
        for row in found.edges
    }
    return {"prompts": found.n_prompts, "heldOut": found.held_out, "edges": rows}
