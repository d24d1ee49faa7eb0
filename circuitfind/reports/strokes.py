"""Choose how an edge is drawn: colour for what it enters, style and width for its effect."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from circuitfind.circuit import Circuit
from circuitfind.graph import Graph
from circuitfind.reports.picture import Entry, Stroke

# Colours that stay apart for colour-blind readers (Okabe and Ito 2008).
PORT_COLOURS = {"q": "#0072b2", "k": "#d55e00", "v": "#009e73", "qkv": "#cc79a7", None: "#555555"}
LEFT_COLOUR, RIGHT_COLOUR, SHARED_COLOUR = "#0072b2", "#d55e00", "#999999"
STRUCTURE = Stroke("#bbbbbb", width=0.6, arrow="none")
MOVE = Stroke("#56b4e9", width=1.0, opacity=0.8)
"""What a head's attention moves from one place to another: no edge, and never cut."""

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
_LEAST_RANGE, _MOST_RANGE = 10.0, 1000.0
"""Of the largest effect to the one that the thinnest line stands for."""


@dataclass(frozen=True)
class EffectScale:
    """Scale of line widths: width grows with the logarithm of an effect; negative is dashed.

    The thinnest line stands for the smallest effect, but at most for a tenth of the largest one,
    and at least for a thousandth of it; then it stands for all smaller ones too.

    Attributes:
        effects: Effects of the drawn edges; None where not measured.
        unit: Their unit.
        fades: Whether weak edges are drawn faintly too, as large circuits need.
    """

    effects: tuple[float | None, ...]
    unit: str
    fades: bool

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The sizes of the thinnest and of the thickest line; zeros if no effect has a size."""
        measured = [abs(effect) for effect in self.effects if effect is not None]
        sizes = [value for value in measured if 0 < value < math.inf]
        largest = max(sizes, default=0.0)
        smallest = min(sizes, default=0.0)
        return max(min(smallest, largest / _LEAST_RANGE), largest / _MOST_RANGE), largest

    def stroke(self, effect: float | None, colour: str = _GREY) -> Stroke:
        """Return how an edge of this effect is drawn."""
        if effect is None:
            return Stroke(colour, _UNMEASURED, _FAINT_UNMEASURED if self.fades else 1.0)
        strength = self._strength(abs(effect))
        width = _THINNEST + (_THICKEST - _THINNEST) * strength
        opacity = _FAINTEST + (1 - _FAINTEST) * strength**2 if self.fades else 1.0
        return Stroke(colour, width, opacity, dashed=effect < 0)

    def _strength(self, value: float) -> float:
        """Return how strong an effect of a size is, from 0 to 1."""
        low, high = self.ends
        if value >= high and value > 0:
            return 1.0
        return math.log(value / low) / math.log(high / low) if value > low else 0.0

    def legend(self) -> list[Entry]:
        """Explain sign and size as far as they occur."""
        entries = []
        if any(effect is not None and effect >= 0 for effect in self.effects):
            entries.append(Entry("effect > 0: cutting the edge does harm", Stroke(_GREY)))
        if any(effect is not None and effect < 0 for effect in self.effects):
            entries.append(Entry("effect < 0: cutting it helps", Stroke(_GREY, dashed=True)))
        return [*entries, *self.sizes_legend()]

    def sizes_legend(self) -> list[Entry]:
        """Explain size alone."""
        entries = [Entry(text, self.stroke(value)) for value, text in self._marks()]
        if None in self.effects:
            entries.append(Entry("effect not measured", self.stroke(None)))
        if self.fades and self.ends[1]:
            entries.append(Entry("the weaker, the fainter"))
        return entries

    def _marks(self) -> list[tuple[float, str]]:
        """Return sizes for the legend, the smallest first, and what it says of them."""
        measured = [abs(effect) for effect in self.effects if effect is not None]
        if not measured:
            return []
        thinnest, high = self.ends
        below = "up to " if min(measured) < thinnest else ""
        low = max(thinnest, min(measured))
        # One that occurs: shares of three runs, say, are thirds. The square roots keep the product
        # of two sizes from leaving the range of numbers.
        middle = math.sqrt(low) * math.sqrt(high)
        inner = sorted({value for value in measured if low < value < high and high > 2 * low})
        between = sorted(inner, key=lambda value: abs(math.log(value / middle)))[:1]
        values = [low, *between, high] if high else [low]
        texts = {effect_text(value, self.unit): value for value in values}
        return [
            (value, f"size of effect {below if value == low else ''}{text}")
            for text, value in texts.items()
        ]


def shares_of_largest(circuit: Circuit) -> dict[str, float | None]:
    """Return the sizes of a circuit's effects, by edge, as shares of its largest finite one.

    Circuits whose effects have different units are drawn together by these.
    """
    effects = {edge.name: circuit.effect(edge) for edge in circuit.edges}
    sizes = [abs(effect) for effect in effects.values() if effect is not None]
    largest = max((value for value in sizes if value < math.inf), default=0.0)
    return {
        name: None if effect is None else min(1.0, abs(effect) / largest) if largest else 0.0
        for name, effect in effects.items()
    }


def omission(n_drawn: int, n_edges: int, which: str) -> list[Entry]:
    """Return the caption's note on how many edges are drawn, if not all are."""
    if n_drawn == n_edges:
        return []
    return [Entry(f"{n_drawn:,} of {n_edges:,} edges are drawn: {which}")]


def size(effect: float | None) -> float:
    """Return what edges are ranked by: the effect's size, and below all others if not measured."""
    return -1.0 if effect is None else abs(effect)


def effect_text(effect: float | None, unit: str = "") -> str:
    """Return an effect as the legend and tooltips show it."""
    return "not measured" if effect is None else f"{effect:.3g} {unit}".strip()


def port_legend(ports: Iterable[str | None], graph: Graph) -> list[Entry]:
    """Explain the colours that occur."""
    return [
        Entry(meaning, Stroke(PORT_COLOURS[port], width=2.0))
        for port, meaning in _meanings(ports, graph)
    ]


def port_arrow(port: str | None) -> str:
    """Return the arrowhead that tells ports apart where colour says something else."""
    return _PORT_ARROWS[port]


def arrow_legend(ports: Iterable[str | None], graph: Graph) -> list[Entry]:
    """Explain the arrowheads that occur."""
    return [
        Entry(f"{_ARROW_NAMES[_PORT_ARROWS[port]]}: {meaning}")
        for port, meaning in _meanings(ports, graph)
    ]


def _meanings(ports: Iterable[str | None], graph: Graph) -> list[tuple[str | None, str]]:
    """Return what edges lead into, of those that occur."""
    drawn, meanings = set(ports), dict(_PORT_MEANINGS)
    if any(block.kind == "stream" for block in graph.blocks):
        meanings[None] = "into an MLP, the stream or the logits"
    return [(port, meaning) for port, meaning in meanings.items() if port in drawn]
