"""Tables for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from circuitfind.comparison.rule_checks import RuleChecks
from circuitfind.evaluation.scorecard import Measurement, Scorecard, shown
from circuitfind.graph import counted


def scorecard_table(card: Scorecard, search: Mapping[str, Any]) -> Table:
    """Return a circuit's figures as a table."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    if card.own is not None:
        table.add_row("the model itself", str(card.own))
    table.add_row("edges kept", _of(card.n_edges, card.n_edges_full))
    kept = _of(card.n_components, card.n_components_full)
    table.add_row(f"{counted(card.n_units_full)} kept", kept)
    if card.n_units_full:
        table.add_row("neurons and latents kept", _of(card.n_units, card.n_units_full))
    for row in card.measurements:
        table.add_row(*_measured(row.metric, row))
    if card.held_out is not None:
        table.add_row(*_measured(f"{card.held_out.metric}, held-out prompts", card.held_out))
    table.add_row("prompts", str(card.n_prompts))
    if search["dead_ends"]:
        done = "removed" if search["dead_ends_removed"] else "kept"
        n_edges = len(search["dead_ends"])
        table.add_row("dead ends", f"{n_edges} edge{'s' * (n_edges > 1)}, {done}")
    table.add_row("edges tested", str(search["edges_tested"]))
    table.add_row("seconds", _seconds(search))
    table.add_row("self-check", _checks(search))
    for note in card.notes:
        table.add_row("note", escape(note))
    for doubt in card.doubts:
        table.add_row("WARNING", escape(doubt))
    return table


def rule_table(found: RuleChecks) -> Table:
    """Return how well edge attribution ranks edges by each set of rules, a row for each."""
    drawn = f"{found.n_measured:,} of {found.n_edges:,} edges"
    if found.n_measured < found.n_edges:
        drawn += f", drawn with seed {found.seed}"
    rows = [("rules", f"rank correlation of {found.method} with the exact effects of {drawn}")]
    for name, value in found.correlations.items():
        rows.append((name, "undefined" if value is None else f"{value:.3f}"))
    rows += [(name, f"cannot be followed: {why}") for name, why in found.refused.items()]
    return pairs_table([(name, escape(text)) for name, text in rows])


def _seconds(search: Mapping[str, Any]) -> str:
    """Return how long a run took; of what, where it says so (version 0.1.0 did not)."""
    parts = [
        f"{name.removeprefix('seconds_')} {value:.1f}"
        for name, value in search.items()
        if name.startswith("seconds_")
    ]
    return f"{search['seconds']:.1f}" + (f" ({', '.join(parts)})" if parts else "")


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.1%})"


def _measured(name: str, row: Measurement) -> tuple[str, str]:
    values = (
        f"full {shown(row.full)}, circuit {shown(row.circuit)}, empty {shown(row.empty)} {row.unit}"
    )
    return name, f"{values}; faithfulness {share_text(row)}"


def share_text(row: Measurement) -> str:
    """Return a faithfulness with its interval."""
    if row.faithfulness is None:
        return "undefined"
    # Adding 0 turns -0 into 0, which rounding makes of small negative values.
    share, *ends = (
        f"{round(value, 3) + 0:.3f}"
        for value in (row.faithfulness, row.low, row.high)
        if value is not None
    )
    return f"{share} ({ends[0]} to {ends[1]})" if ends else share


def _checks(search: Mapping[str, Any]) -> str:
    parts = [f"full graph {search['full_graph_error']:.1e}"]
    if search["empty_graph_error"] is not None:
        parts.append(f"empty graph {search['empty_graph_error']:.1e}")
    checks = f"{', '.join(parts)} off the model"
    if search["drift"] is None:
        return checks
    drift = f"drift {search['drift']:.1e}"
    return f"{checks}; {drift_doubt(search) or drift}"


def drift_doubt(search: Mapping[str, Any]) -> str:
    """Return why a search's state cannot be trusted; nothing if it can, or has no such state."""
    drift, allowed = search["drift"], search.get("drift_allowed")
    if drift is None or allowed is None or drift <= allowed:
        return ""
    return (
        f"drift {drift:.1e}, more than the {allowed:.0e} that rounding explains: do not trust "
        "this circuit, search again with --dtype float64"
    )


def pairs_table(rows: Sequence[tuple[str, str]]) -> Table:
    """Return names and what belongs to them as a table."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for row in rows:
        table.add_row(*row)
    return table


def listing(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return rows of text as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, header in enumerate(headers):
        table.add_column(header, no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    return table


def fitted(table: Table, width: int) -> RenderableType:
    """Return a table as it is, or with the cells of each row below one another.

    The latter where its columns, each as wide as its longest word, need more than this width: else
    words would be cut, or whole columns vanish.
    """
    for column in table.columns:
        texts = [str(column.header), *map(str, column.cells)]
        column.min_width = max(
            len(part) for text in texts for part in ([text] if column.no_wrap else text.split())
        )
    gaps = 2 * (len(table.columns) - 1)
    if not table.show_header or sum(c.min_width or 0 for c in table.columns) + gaps <= width:
        return table
    return Group(*_stacked(table))


def _stacked(table: Table) -> Iterator[Table]:
    names = [str(column.header) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        row = Table(show_header=False, box=None, pad_edge=False)
        row.add_column(style="bold", no_wrap=True)
        row.add_column(overflow="fold")
        for name, cell in zip(names, cells, strict=True):
            row.add_row(name, cell)
        row.add_row()
        yield row


def filled_columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return rows as text, without the columns in which no row has anything."""
    names = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    return [{name: _text(row[name]) for name in names} for row in rows]


def fact_table(facts: Mapping[str, Any]) -> Table:
    """Return names and values as a table; what lies inside a value is named `outer.inner`."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in _flat(facts):
        table.add_row(name, value)
    return table


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _text(value)


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def sweep_view(
    finished: int, failed: int, total: int, running: Mapping[str, tuple[int, Sequence[str]]]
) -> Table:
    """Return how far a sweep is: the runs in all, and of those that run their decisions.

    Below each of these, how well its model does the task (`evaluation.trust.foreword`).
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    ended = f"[bold]{finished}[/] of {total} runs" + (f", {failed} failed" if failed else "")
    table.add_row(ended, ProgressBar(total=total, completed=finished + failed, width=30))
    for name, (decided, foreword) in running.items():
        table.add_row(escape(name), f"{decided} edges decided")
        for line in foreword:
            table.add_row("", escape(line))
    return table
