"""What diagrams show of a problem's prompts: the tokens of one of them at each place."""

from typing import Any

from circuitfind.problem import Problem
from circuitfind.reports.seen import SEEN


def seen_of(problem: Problem) -> dict[str, Any]:
    """Return what diagrams show of a problem's prompts, as plain JSON values.

    Empty where the problem does not tell places apart.
    """
    places, vocabulary = problem.places, problem.model.vocabulary
    if places is None:
        return {}
    names = places.names
    backwards = (
        places.backwards()
        if problem.model.causal
        else [(names[s], names[t]) for s in range(len(names)) for t in range(s)]
    )
    tokens = problem.prompts.clean[0, : int(problem.prompts.lengths[0])].tolist()
    at = places.of[0].tolist()
    example = {}
    for number, name in enumerate(names):
        here = [token for token, place in zip(tokens, at, strict=False) if place == number]
        if here:
            text = " ".join(map(str, here)) if vocabulary is None else vocabulary.decode(here)
            example[name] = text
    return {SEEN: {"tokens": example, "backwards": [list(pair) for pair in backwards]}}
