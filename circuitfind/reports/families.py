"""Families of prompts as tables for the terminal, a matrix, and a drawing of their circuits."""

from collections.abc import Iterator, Sequence

import torch
from rich.markup import escape
from rich.table import Table

from circuitfind.circuit import Circuit
from circuitfind.comparison.families import Attribute, Families, Share
from circuitfind.reports.diagram import Diagram, draw_difference, draw_frequencies
from circuitfind.reports.matrix import Cell, draw_cells
from circuitfind.reports.terminal import fact_table, listing

_MOST_VALUES = 12
_MOST_TEXT = 60


def families_tables(found: Families) -> Iterator[Table]:
    """Yield the families, what explains them, and the faithfulness of their circuits."""
    yield listing(
        ["family", "prompts", "edges", "edges that no other has", "prompt nearest to the centre"],
        [
            [
                each.name,
                str(len(each.prompts)),
                str(len(each.edges)),
                str(len(each.alone)),
                _cut(each.example),
            ]
            for each in found.families
        ],
    )
    if found.attributes:
        yield listing(
            ["prompts differ in", "values", "explains", "adjusted Rand index", "p"],
            [
                [escape(a.name), str(len(a.values)), f"{a.share:.3f}", f"{a.adjusted_rand:.3f}",
                 f"{a.p_value:.3g}"]
                for a in found.attributes
            ],
        )  # fmt: skip
        assert found.explanation is not None
        yield _values(found, found.explanation)
    columns = [*(each.name for each in found.families), "all"]
    yield listing(
        ["circuit", "edges", *(f"on {name}" for name in columns)],
        [
            [name, str(row[0].n_edges), *map(_share, row)]
            for name, row in _rows(found.shares).items()
        ],
    )
    silhouette = "-" if found.silhouette is None else f"{found.silhouette:.3f}"
    yield fact_table(
        {
            "verdict": escape(found.verdict),
            "cluster index": f"{found.index:.3f} of {found.tested}, p {found.p_value:.2g} of one "
            f"cluster, {found.gaussian_p_value:.2g} of one Gaussian",
            "silhouette": silhouette,
            "edges of every family": str(len(found.shared)),
            "measured on": f"{found.measured_on} prompts",
            "seconds": f"{found.seconds:.1f}",
        }
    )


def draw_shares(found: Families) -> Diagram:
    """Draw the faithfulness of each circuit, in rows, on each family and on all prompts."""
    rows = _rows(found.shares)
    cells = {
        (number, column): _cell(share)
        for number, row in enumerate(rows.values())
        for column, share in enumerate(row)
    }
    columns = [*(each.name for each in found.families), "all"]
    caption = [
        f"Faithfulness of circuits (rows) on {found.measured_on} prompts (columns).",
        f"Each is chosen to reach {found.target:g} on its own prompts of the search.",
    ]
    return draw_cells(list(rows), cells, caption, columns)


def draw_families(circuits: Sequence[Circuit]) -> Diagram:
    """Draw the circuits of the families as one: which edges which of them have."""
    if len(circuits) == 2:
        return draw_difference(*circuits, names=("family 1", "family 2"))
    frequencies = torch.stack([each.kept.cpu().double() for each in circuits]).mean(0)
    caption = [
        f"Circuits of families, {len(circuits)} in all; edges that all of them have are thick."
    ]
    return draw_frequencies(circuits[0].graph, frequencies, share=1.0, caption=caption)


def _rows(shares: Sequence[Share]) -> dict[str, list[Share]]:
    rows = dict[str, list[Share]]()
    for share in shares:
        rows.setdefault(share.circuit, []).append(share)
    return rows


def _values(found: Families, best: Attribute) -> Table:
    rows = sorted(zip(best.values, best.counts, strict=True), key=lambda row: -sum(row[1]))
    names = [each.name for each in found.families]
    shown = [[_cut(value), *map(str, counts)] for value, counts in rows[:_MOST_VALUES]]
    if (left := len(rows) - _MOST_VALUES) > 0:
        shown.append([f"and {left} more", *[""] * len(names)])
    return listing([escape(best.name), *names], shown)


def _cut(text: str) -> str:
    return escape(text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 3]}...")


def _share(each: Share) -> str:
    if each.faithfulness is None:
        return "-"
    ends = "" if each.low is None else f" ({each.low:.3f} to {each.high:.3f})"
    return f"{each.faithfulness + 0:.3f}{ends}"


def _cell(each: Share) -> Cell:
    tip = f"{each.circuit} on {each.on}: {_share(each)}"
    if each.faithfulness is None:
        return Cell(None, tip=tip)
    shade = min(1.0, max(0.0, each.faithfulness))
    return Cell(each.faithfulness, tip=tip, framed=each.circuit == each.on, shade=shade)
