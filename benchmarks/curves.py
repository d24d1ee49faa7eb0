"""Measure how the cost of a test grows: with layers, heads, prompts, their length, the circuit.

    python -m benchmarks.curves

One size at a time is changed from the setting of `versus.py`. Of every search some tests are
measured (`circuitfind/methods/forecast.py`). Writes a table and a chart to docs/performance.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

import circuitfind as cf
from benchmarks.page import ROOT, write_block
from benchmarks.setting import Size, ioi_like, random_gpt2, random_pairs
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.memory import search_bytes
from circuitfind.methods.forecast import Forecast, assumed_circuit, forecast
from circuitfind.reports.chart import Axis, Series, colour_of_series, draw_lines
from circuitfind.reports.diagram import Diagram

CHART = ROOT / "docs" / "images" / "performance-curves.svg"
METRIC = "logit-difference"
SERIES = {
    "layers": ("n_layers", (4, 8, 12, 24)),
    "heads": ("n_heads", (6, 12, 24)),
    "prompts": ("n_prompts", (4, 16, 64)),
    "tokens": ("n_tokens", (8, 16, 32, 64)),
}
COMPONENTS = (10, 20, 40, 80)
ALLOWED = (600, 300)
"""Megabytes beside the model; with less than the setting takes, prompts come in chunks."""


class Row(NamedTuple):
    """One size."""

    series: str
    value: int
    edges: int
    found: Forecast
    memory: float


def main() -> None:
    """Measure all and write the page."""
    rows = list(measured())
    base = next(row for row in rows if (row.series, row.value) == ("layers", Size().n_layers))
    image = f"![Time per test against each size, on logarithmic axes](images/{CHART.name})"
    write_block("curves", "\n".join([*table(rows, base), "", *fits(rows), "", image]))
    CHART.write_text(chart(rows).svg())


def measured() -> Iterator[Row]:
    """Yield a row for every size."""
    for name, (field, values) in SERIES.items():
        for value in values:
            yield measure(name, value, replace(Size(), **{field: value}))
    for value in COMPONENTS:
        yield measure("components", value, Size(), n_components=value)
    for value in ALLOWED:
        yield measure("MB allowed", value, Size(), memory=value * 10**6)


def measure(
    name: str,
    value: int,
    size: Size,
    *,
    n_components: int | None = None,
    memory: int | None = None,
) -> Row:
    """Measure a few tests of a search at some size."""
    model = cf.load_model(random_gpt2(size))
    problem = cf.make_problem(model, random_pairs(size), metric=METRIC)
    graph = problem.graph
    circuit = (
        graph.mask_of(sorted(ioi_like(model.shape)))
        if n_components is None
        else assumed_circuit(graph, n_components)
    )
    found = forecast(IncrementalEngine(problem, memory), circuit)
    print(f"{value} {name}: {found}", flush=True)
    taken = search_bytes(graph, size.n_prompts, size.n_tokens)
    return Row(name, value, graph.n_edges, found, min(taken, memory or taken) / 1e6)


def table(rows: Sequence[Row], base: Row) -> list[str]:
    """Return the lines of a table, times as ratios to the setting that is varied."""
    lines = [
        "| | edges | tested | operations per test, of a full pass | time per test, of the "
        "setting's | whole search, of the setting's | memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        found = row.found
        share = found.operations / found.tests / found.operations_full_pass
        per_test = found.seconds_per_test / base.found.seconds_per_test
        whole = found.seconds / base.found.seconds
        lines.append(
            f"| {row.value} {row.series} | {row.edges} | {found.tests} | {share:.2%} "
            f"| {per_test:.2f} | {whole:.2f} | {row.memory:.0f} |"
        )
    return lines


def fits(rows: Sequence[Row]) -> Iterator[str]:
    """Yield, for every series, the power of the size that the cost of a test grows with."""
    for name in (*SERIES, "components"):
        own = [row for row in rows if row.series == name]
        powers = [
            slope([(row.value, cost) for row, cost in zip(own, costs, strict=True)])
            for costs in (
                [row.found.operations / row.found.tests for row in own],
                [row.found.seconds_per_test for row in own],
            )
        ]
        yield (
            f"With the number of {name}, operations per test grow with the power {powers[0]:.2f} "
            f"and time per test with the power {powers[1]:.2f}.  "
        )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the least-squares slope of points on logarithmic axes."""
    return float(np.polyfit(*np.log(np.array(points)).T, deg=1)[0])


def chart(rows: Sequence[Row]) -> Diagram:
    """Draw the time per test against the size, both relative to each series' first."""
    series = []
    for number, name in enumerate((*SERIES, "components")):
        own = [row for row in rows if row.series == name]
        first = own[0]
        points = tuple(
            (row.value / first.value, row.found.seconds_per_test / first.found.seconds_per_test)
            for row in own
        )
        colour, dashed = colour_of_series(number)
        series.append(Series(f"{name}, from {first.value}", points, colour, dashed=dashed))
    growth = Axis("times as many", 1.0, 16.0, (1, 2, 4, 8, 16), logarithmic=True)
    cost = Axis(
        "times the time per test", 0.25, 16.0, (0.25, 0.5, 1, 2, 4, 8, 16), logarithmic=True
    )
    line = Series("in proportion", ((1.0, 1.0), (16.0, 16.0)), "#999999", dots=False, dashed=True)
    return draw_lines("What a test costs", growth, cost, [*series, line])


if __name__ == "__main__":
    main()
