"""What diagrams show of a search's prompts, kept in the origin of the circuit that it found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from circuitfind.graph import Graph
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
    def of(cls, origin: Mapping[str, Any]) -> "Seen":
        """Return what a circuit's origin says of its prompts; nothing where it is silent."""
        match origin.get(SEEN):
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
