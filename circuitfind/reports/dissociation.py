"""A dissociation as tables for the terminal and as a matrix."""

from collections.abc import Iterator

from rich.table import Table

from circuitfind.evaluation.dissociation import Column, Difference, Dissociation, Effect
from circuitfind.evaluation.scorecard import shown
from circuitfind.reports.diagram import Diagram
from circuitfind.reports.matrix import SIGNIFICANT, Cell, draw_cells
from circuitfind.reports.terminal import listing


def dissociation_tables(found: Dissociation) -> Iterator[Table]:
    """Yield what is measured, the matrix of effects, and the test of each two circuits."""
    headers = ["measured", "prompts", "metric", "full model", "every edge cut", "unit"]
    yield listing(
        headers,
        [
            [c.name, f"{c.n_prompts} {c.prompts}", c.metric, shown(c.full), shown(c.empty), c.unit]
            for c in found.columns
        ],
    )
    names = [column.name for column in found.columns]
    rows = [
        [
            each.name,
            str(each.n_edges),
            *(_effect(found.of(each.name, c.name), c) for c in found.columns),
        ]
        for each in found.circuits
    ]
    out = "own edges cut" if found.own_edges else "cut"
    yield listing([out, "edges", *(f"effect on {name}" for name in names)], rows)
    yield listing(
        ["circuits", "edges in both", "first: own minus other", "second: own minus other",
         "dissociation"],
        [
            [
                " | ".join(pair.circuits),
                str(pair.n_shared),
                *map(_difference, pair.differences),
                pair.verdict or pair.undecided or "too few prompts",
            ]
            for pair in found.pairs
        ],
    )  # fmt: skip


def draw_dissociation(found: Dissociation) -> Diagram:
    """Draw the effects: a row for each circuit that is knocked out, a column for each task."""
    cells = {
        (row, number): _cell(found.of(circuit.name, column.name), column)
        for row, circuit in enumerate(found.circuits)
        for number, column in enumerate(found.columns)
    }
    what = "its own edges" if found.own_edges else "its edges"
    caption = [
        f"Rows: a circuit, {what} cut in the whole model. Columns: what is measured.",
        "Above: share of the distance from the full model to every edge cut.",
        "Below: the mean of random connected circuits with as many edges; frames: "
        f"p < {SIGNIFICANT:g}.",
    ]
    rows, columns = ([each.name for each in some] for some in (found.circuits, found.columns))
    return draw_cells(rows, cells, caption, columns)


def _cell(each: Effect, column: Column) -> Cell:
    if each.effect is None or each.p_value is None:
        return Cell(None, tip=f"{each.circuit} on {each.on}: undefined")
    tip = f"{each.circuit} on {each.on}: {_effect(each, column)}, p {each.p_value:.3g}"
    shade = min(1.0, max(0.0, each.effect))
    return Cell(each.effect, each.random, tip, each.p_value < SIGNIFICANT, shade)


def _effect(each: Effect, column: Column) -> str:
    random = "" if each.random is None else f", random {_number(each.random)}"
    value = f", {each.value:.3g} nats" if column.prompts == "text" else ""
    return f"{_number(each.effect)}{_ends(each)}{random}{value}"


def _difference(each: Difference) -> str:
    return f"{_number(each.value)}{_ends(each)}"


def _ends(each: Effect | Difference) -> str:
    return "" if each.low is None else f" ({_number(each.low)} to {_number(each.high)})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value if abs(value) >= 5e-4 else 0:.3f}"
