"""Choose how an edge is drawn: colour for what it enters, style and width for its effect."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from circuitfind.graph import Edge
from circuitfind.reports.picture import Entry, Stroke

# Colours that stay apart for colour-blind readers (Okabe and Ito 2008).
PORT_COLOURS = {"q": "#0072b2", "k": "#d55e00", "v": "#009e73", "qkv": "#cc79a7", None: "#555555"}
LEFT_COLOUR, RIGHT_COLOUR, SHARED_COLOUR = "#0072b2", "#d55e00", "#999999"
STRUCTURE = Stroke("#bbbbbb", width=0.6, arrow="none")

_PORT_MEANINGS: dict[str | None, str] = {
    "q": "into a query",
    "k": "into a key",
    "v": "into a value",
    "qkv": "into a head",
    None: "into an MLP or the logits",
}
_PORT_ARROWS: dict[str | None, str] = {
    "q": "normal",
    "k": "diamond",
    "v": "dot",
    "qkv": "normal",
    None: "vee",
}
_ARROW_NAMES = {"normal": "triangle", "diamond": "diamond", "dot": "dot", "vee": "open arrow"}
_GREY = PORT_COLOURS[None]
_THINNEST, _THICKEST, _UNMEASURED = 0.5, 4.0, 1.0
_FAINTEST, _FAINT_UNMEASURED = 0.12, 0.5


@dataclass(frozen=True)
class EffectScale:
    """How strokes show effects: width grows linearly with size, negative effects are dashed.

    Attributes:
        effects: Effects of the drawn edges; None where not measured.
        unit: Their unit.
        fades: Whether weak edges are drawn faintly too, as large circuits need.
    """

    effects: tuple[float | None, ...]
    unit: str
    fades: bool

    @property
    def sizes(self) -> list[float]:
        """The finite sizes of the measured effects."""
        measured = [abs(effect) for effect in self.effects if effect is not None]
        return [value for value in measured if value < math.inf]

    def stroke(self, effect: float | None, colour: str = _GREY) -> Stroke:
        """Return how an edge of this effect is drawn."""
        if effect is None:
            return Stroke(colour, _UNMEASURED, _FAINT_UNMEASURED if self.fades else 1.0)
        largest = max(self.sizes, default=0.0)
        strength = min(1.0, abs(effect) / largest) if largest else 0.0
        width = _THINNEST + (_THICKEST - _THINNEST) * strength
        opacity = _FAINTEST + (1 - _FAINTEST) * math.sqrt(strength) if self.fades else 1.0
        return Stroke(colour, width, opacity, dashed=effect < 0)

    def legend(self) -> list[Entry]:
        """Explain sign and size as far as they occur."""
        entries = []
        if any(effect is not None and effect >= 0 for effect in self.effects):
            entries.append(Entry("effect > 0: cutting the edge does harm", Stroke(_GREY)))
        if any(effect is not None and effect < 0 for effect in self.effects):
            entries.append(Entry("effect < 0: cutting it helps", Stroke(_GREY, dashed=True)))
        sizes = sorted(self.sizes)
        for value in dict.fromkeys([*sizes[:1], *sizes[-1:]]):
            text = f"size of effect {effect_text(value, self.unit)}"
            entries.append(Entry(text, self.stroke(value)))
        if None in self.effects:
            entries.append(Entry("effect not measured", self.stroke(None)))
        if self.fades and sizes:
            entries.append(Entry("the weaker, the fainter"))
        return entries


def size(effect: float | None) -> float:
    """Return what edges are ranked by: the effect's size, and below all others if not measured."""
    return -1.0 if effect is None else abs(effect)


def effect_text(effect: float | None, unit: str = "") -> str:
    """Return an effect as the legend and tooltips show it."""
    return "not measured" if effect is None else f"{effect:.3g} {unit}".strip()


def port_legend(edges: Iterable[Edge]) -> list[Entry]:
    """Explain the colours that occur."""
    drawn = {edge.reader.port for edge in edges}
    return [
        Entry(meaning, Stroke(PORT_COLOURS[port], width=2.0))
        for port, meaning in _PORT_MEANINGS.items()
        if port in drawn
    ]


def port_arrow(port: str | None) -> str:
    """Return the arrowhead that tells ports apart where colour says something else."""
    return _PORT_ARROWS[port]


def arrow_legend(ports: Iterable[str | None]) -> list[Entry]:
    """Explain the arrowheads that occur."""
    drawn = set(ports)
    return [
        Entry(f"{_ARROW_NAMES[_PORT_ARROWS[port]]}: {meaning}")
        for port, meaning in _PORT_MEANINGS.items()
        if port in drawn
    ]
