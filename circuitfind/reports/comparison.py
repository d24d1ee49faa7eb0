"""Tables of a comparison."""

from collections.abc import Iterator

from rich.table import Table

from circuitfind.comparison.chance import Statistic
from circuitfind.comparison.overlap import Overlap, Shared
from circuitfind.comparison.result import Comparison
from circuitfind.reports.terminal import listing

Row = tuple[str, ...]


def circuits_table(found: Comparison) -> Table:
    """Return which circuits were compared."""
    rows = [
        (
            side.name,
            side.task or "-",
            side.model or "-",
            side.method or "-",
            f"{side.n_edges:,} of {side.n_edges_full:,}",
            str(side.n_components),
        )
        for side in found.circuits
    ]
    return listing(("circuit", "task", "model", "method", "edges", "components"), rows)


def pairs_table(found: Comparison) -> Table:
    """Return what each two circuits share: found, expected by chance, and how probable by chance.

    A row per null hypothesis.
    """
    rows: list[Row] = []
    for pair in found.pairs:
        names = f"{found.circuits[pair.left].name} | {found.circuits[pair.right].name}"
        rows += _with_name(names, list(_overlap_rows(pair.overlap)) if pair.overlap else [])
    return listing(("pair", "measure", "found", "null hypothesis", "expected", "p"), rows)


def _with_name(names: str, rows: list[Row]) -> list[Row]:
    return [(names if number == 0 else "", *row) for number, row in enumerate(rows)]


def _overlap_rows(found: Overlap) -> Iterator[Row]:
    for what, part in (("edges", found.edges), ("components", found.components)):
        yield f"{what}: both, only left, only right", _counts(part), "", "", ""
        yield from _rows(f"{what}: Jaccard", part.jaccard)
        yield from _rows(f"{what}: overlap of the smaller", part.coefficient)
    yield from _rows(f"rank correlation of {found.n_measured} effects", found.correlation)


def _counts(part: Shared) -> str:
    return f"{len(part.both)}, {len(part.left)}, {len(part.right)}"


def _rows(measure: str, statistic: Statistic) -> Iterator[Row]:
    value = "-" if statistic.value is None else f"{statistic.value:.3f}"
    if not statistic.chance:
        yield measure, value, "", "", ""
    for number, (null, chance) in enumerate(statistic.chance.items()):
        first = (measure, value) if number == 0 else ("", "")
        yield *first, null, f"{chance.expected:.3f}", p_text(chance.p_value)


def p_text(p_value: float) -> str:
    """Return a probability as tables show it."""
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.0e}"
