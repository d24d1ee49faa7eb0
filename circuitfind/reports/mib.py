"""A measurement by MIB's protocol as tables for the terminal and as a chart."""

from rich.table import Table

from circuitfind.evaluation.mib import MibResult
from circuitfind.evaluation.size_curve import SizeCurve
from circuitfind.reports.canvas import PALETTE
from circuitfind.reports.chart import Axis, Series, draw_lines
from circuitfind.reports.diagram import Diagram
from circuitfind.reports.terminal import listing, pairs_table


def mib_tables(found: MibResult) -> list[Table]:
    """Return the tables: what was measured, the areas, and f at every size."""
    about = [
        ("ranked", f"{found.n_ranked:,} {found.level}"),
        ("edges, ungrouped", f"{found.n_edges:,}"),
        ("pairs of prompts", f"{found.n_prompts}"),
        ("logit difference", f"{found.full:.4g} clean, {found.empty:.4g} corrupted"),
        ("CPR, ranked by value", _number(found.cpr)),
        ("CMD, ranked by size", _number(found.cmd)),
    ]
    if found.auroc is not None:
        about.append((f"AUROC against {found.against}", _number(found.auroc)))
    areas = [
        [name, _number(curve.cpr), _number(curve.cmd), _number(curve.acc_auc)]
        for name, curve in _curves(found).items()
    ]
    sizes = [
        [f"{signed.asked:.1%}", *(cell for point in (signed, absolute) for cell in (
            f"{point.n_edges:,}", _number(point.faithfulness), _number(point.positive)))]
        for signed, absolute in zip(found.signed.points, found.absolute.points, strict=True)
    ]  # fmt: skip
    headers = ["asked", *(f"{what}, {by}" for by in _curves(found) for what in _COLUMNS)]
    return [
        pairs_table(about),
        listing(["one ranking", "CPR", "CMD", "acc-AUC"], areas),
        listing(headers, sizes),
    ]


_COLUMNS = ("edges", "f", "ahead")


def _curves(found: MibResult) -> dict[str, SizeCurve]:
    return {"by value": found.signed, "by size": found.absolute}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def size_chart(found: MibResult) -> Diagram:
    """Draw f against the share that was asked for, on a logarithmic axis."""
    series = [
        Series(
            name,
            tuple((p.asked, p.faithfulness) for p in curve.points if p.faithfulness is not None),
            colour,
        )
        for (name, curve), colour in zip(_curves(found).items(), PALETTE, strict=False)
    ]
    x_axis = Axis(
        f"{found.level} asked for",
        0.001,
        1.0,
        (0.001, 0.01, 0.1, 1.0),
        logarithmic=True,
        percent=True,
    )
    y_axis = Axis("f", -0.1, 1.1, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    title = f"MIB: CPR {_number(found.cpr)}, CMD {_number(found.cmd)}"
    return draw_lines(title, x_axis, y_axis, series)
