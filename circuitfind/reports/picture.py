"""The contents of a diagram before layout: boxes, lines between them, and a legend.

`diagram.py` turns circuits into pictures, `sizes.py` and `layout.py` place the boxes, `routes.py`
leads the lines around them, `dot.py` writes all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from circuitfind.graph import Kind

BoxKind = Literal["end", "head", "kv", "mlp", "norm", "unit", "input", "rest", "error"]

Row = tuple[int, int]

DRAWN_AS: dict[Kind | Literal["norm"], BoxKind] = {
    "embedding": "end",
    "head": "head",
    "kv group": "kv",
    "attention": "mlp",
    "mlp": "mlp",
    "stream": "mlp",
    "neuron": "mlp",
    "latent": "mlp",
    "error": "mlp",
    "move": "head",
    "norm": "norm",
    "logits": "end",
}
"""How each kind of node of `Graph.network` is drawn."""

MANY_LINES = 80
"""With more lines than this, weak ones are drawn faintly."""


@dataclass(frozen=True)
class Box:
    """A component.

    Attributes:
        row: Where it runs: its stage, and its place within the stage (key/value heads before the
            heads that share them, norms after). Rows are drawn bottom to top.
        layer: None for embeddings and logits.
        role: What it does, written under its name.
        text: What is written in it; its name where this is empty.
        column: The column that it stands in.
        units: Of a block whose neurons or latents are drawn, these: small boxes that stand in it,
            in rows from the top, the heads that feed them in the last ones.
    """

    name: str
    kind: BoxKind
    row: Row
    layer: int | None = None
    role: str = ""
    text: str = ""
    column: int = 0
    units: tuple[tuple["Box", ...], ...] = ()

    @property
    def label(self) -> str:
        """The first line in it."""
        return self.text or self.name

    @property
    def inner(self) -> list["Box"]:
        """The boxes that stand in it."""
        return [unit for row in self.units for unit in row]


@dataclass(frozen=True)
class Stroke:
    """Style of a line: colour as `#rrggbb`, width in points, opacity from 0 to 1."""

    colour: str
    width: float = 1.2
    opacity: float = 1.0
    dashed: bool = False
    arrow: str = "normal"


@dataclass(frozen=True)
class Line:
    """An arrow between two boxes.

    Attributes:
        name: The edge it stands for; empty if it is part of the model and cannot be cut.
        port: Which input of the head it enters, if it enters one.
        tooltip: What an SVG shows when the pointer rests on it.
    """

    tail: str
    head: str
    stroke: Stroke
    name: str = ""
    port: str | None = None
    tooltip: str = ""


@dataclass(frozen=True)
class Column:
    """A place of token positions: what happens there stands in one column.

    Attributes:
        name: The name of the place.
        tokens: What an example prompt has there; empty where that is not known.
    """

    name: str
    tokens: str = ""


@dataclass(frozen=True)
class Entry:
    """A row of the legend: what a stroke means, or a remark where there is no stroke."""

    text: str
    stroke: Stroke | None = None


@dataclass(frozen=True)
class Picture:
    """Everything a diagram shows.

    Attributes:
        lines: Later lines of a box are drawn over earlier ones.
        legend: One column of entries each.
        columns: The columns that boxes stand in, from left to right; empty where all boxes share
            the whole width.
    """

    boxes: Sequence[Box]
    lines: Sequence[Line]
    legend: Sequence[Sequence[Entry]] = ()
    caption: Sequence[str] = ()
    columns: Sequence[Column] = ()

    @property
    def rows(self) -> list[list[Box]]:
        """The boxes row by row, from the bottom."""
        return [list(boxes) for _, boxes in groupby(sorted(self.boxes, key=_row_of), key=_row_of)]

    @property
    def outer(self) -> dict[str, Box]:
        """The box in which each box stands, by name: the box itself unless it is a unit's."""
        return {one.name: box for box in self.boxes for one in (box, *box.inner)}


def _row_of(box: Box) -> Row:
    return box.row
