"""Tables of a comparison."""

from collections.abc import Iterator

from rich.table import Table

from circuitfind.comparison.chance import EXCHANGED_HEADS, Statistic
from circuitfind.comparison.overlap import Overlap, Shared
from circuitfind.comparison.result import Comparison, Pair, Side
from circuitfind.comparison.roles import ROLES, Role
from circuitfind.graph import counted
from circuitfind.reports.matrix import likeness
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
            str(len(side.components)),
        )
        for side in found.circuits
    ]
    components = counted(max(side.n_units_full for side in found.circuits))
    return listing(("circuit", "task", "model", "method", "edges", components), rows)


def pairs_table(found: Comparison) -> Table:
    """Return what each two circuits share: found, expected by chance, and how probable by chance.

    A row per null hypothesis.
    """
    rows: list[Row] = []
    for pair in found.pairs:
        names = f"{found.circuits[pair.left].name} | {found.circuits[pair.right].name}"
        rows += _with_name(names, list(_pair_rows(found, pair)))
    return listing(("pair", "measure", "found", "null hypothesis", "expected", "p"), rows)


def summary_table(found: Comparison) -> Table:
    """Return a row for each two circuits: their edges, and how each does the other's task."""
    rows = []
    for pair in found.pairs:
        names = [found.circuits[number].name for number in (pair.left, pair.right)]
        statistic = likeness(pair)
        chance = statistic.chance.get(EXCHANGED_HEADS)
        moved = [_faithfulness(pair, number) for number in (pair.left, pair.right)]
        rows.append(
            (
                *names,
                "matched" if pair.matched else "by name",
                _number(statistic.value),
                "-" if chance is None else f"{chance.expected:.3f}",
                "-" if chance is None else p_text(chance.p_value),
                *moved,
            )
        )
    headers = (
        "left",
        "right",
        "edges",
        "Jaccard",
        "expected",
        "p",
        "left on right",
        "right on left",
    )
    return listing(headers, rows)


def _faithfulness(pair: Pair, circuit: int) -> str:
    return next(
        (_number(row.faithfulness.value) for row in pair.transfers if row.circuit == circuit), "-"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _with_name(names: str, rows: list[Row]) -> list[Row]:
    return [(names if number == 0 else "", *row) for number, row in enumerate(rows)]


def _pair_rows(found: Comparison, pair: Pair) -> Iterator[Row]:
    if pair.places is not None:
        yield "compared at places", ", ".join(pair.places) or "merged", "", "", ""
    if pair.overlap is not None:
        yield from _overlap_rows(pair.overlap)
    if pair.matched is not None:
        for what, part in (("edges", pair.matched.edges), ("components", pair.matched.components)):
            yield f"matched {what}: both, only left, only right", _counts(part), "", "", ""
            yield from _rows(f"matched {what}: Jaccard", part.jaccard)
    for moved in pair.transfers:
        names = found.circuits[moved.circuit].name, found.circuits[moved.on].name
        own = _number(moved.own)
        what = f"{names[0]} on the prompts of {names[1]} ({moved.metric}, own {own})"
        yield from _rows(f"faithfulness of {what}", moved.faithfulness)


def roles_table(found: Comparison) -> Table:
    """Return which heads play which role; in brackets those that the circuit does not use."""
    played = {_part(each) for side in found.circuits for each in side.roles or ()}
    parts = sorted(played, key=lambda part: (ROLES.index(part.partition(", ")[0]), part))
    rows = [
        (part, *(", ".join(_players(side, part)) or "-" for side in found.circuits))
        for part in parts
    ]
    return listing(("role", *(side.name for side in found.circuits)), rows)


def _part(each: Role) -> str:
    """Return a role; of heads that copy answers, also where they read them."""
    return f"{each.role}, {each.where}" if each.role.endswith("mover") else each.role


def _players(side: Side, part: str) -> list[str]:
    names = [each.component for each in side.roles or () if _part(each) == part]
    return [name if name in side.components else f"({name})" for name in names]


def _overlap_rows(found: Overlap) -> Iterator[Row]:
    for what, part in (("edges", found.edges), ("components", found.components)):
        yield f"{what}: both, only left, only right", _counts(part), "", "", ""
        yield from _rows(f"{what}: Jaccard", part.jaccard)
        yield from _rows(f"{what}: overlap of the smaller", part.coefficient)
    yield from _rows(f"rank correlation of {found.n_measured} effects", found.correlation)


def _counts(part: Shared) -> str:
    return f"{len(part.both)}, {len(part.left)}, {len(part.right)}"


def _rows(measure: str, statistic: Statistic) -> Iterator[Row]:
    value = _number(statistic.value)
    if not statistic.chance:
        yield measure, value, "", "", ""
    for number, (null, chance) in enumerate(statistic.chance.items()):
        first = (measure, value) if number == 0 else ("", "")
        yield *first, null, f"{chance.expected:.3f}", p_text(chance.p_value)


def p_text(p_value: float) -> str:
    """Return a probability as tables show it."""
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.0e}"
