"""What diagrams show of a search's prompts, kept in the origin of the circuit that it found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.graph import Graph
from circuitfind.problem import Problem
from circuitfind.reports.picture import Column

SEEN = "seen"
"""The entry of a circuit's origin."""


@dataclass(frozen=True)
class Seen:
    """What a diagram shows of the prompts.

    Attributes:
        tokens: What an example prompt has at each place.
        backwards: Pairs of places, the first further right, from which attention may move
            something to the second: it comes first in some prompts, or the model looks both ways.
            None where that is not known: then it may for all pairs.
    """

    tokens: Mapping[str, str] = field(default_factory=dict)
    backwards: frozenset[tuple[str, str]] | None = None

    @classmethod
    def of(cls, circuit: Circuit) -> "Seen":
        """Return what a circuit's origin says of its prompts; nothing where it is silent."""
        match circuit.origin.get(SEEN):
            case {"tokens": dict(tokens), "backwards": list(pairs)}:
                return cls(tokens, frozenset(tuple(pair) for pair in pairs))
        return cls()

    def columns(self, graph: Graph) -> list[Column]:
        """Return a column for each place."""
        return [Column(place, str(self.tokens.get(place, ""))) for place in graph.places]

    def allows(self, source: int, target: int, graph: Graph) -> bool:
        """Return whether attention may move something from a place to another one."""
        if self.backwards is None or source <= target:
            return True
        return (graph.places[source], graph.places[target]) in self.backwards


NOTHING_SEEN = Seen()


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
