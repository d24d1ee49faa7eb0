"""The leaderboard of a benchmark: methods by how well they rank edges, with time and memory.

Seeds are averaged first, so that every case counts once. A figure is the mean over the cases that a
method ranks, with Student's 95 % interval over them, cut off at what is possible, from 8 cases on.
Time and peak memory are those of the ranking over those of a plain pass forward and back
(`evaluation.cost`): medians over cases and seeds. What a method refuses is a dash with a note.

Everything is read from the directories of the rankings, so it is the same, but for the times,
however often the benchmark was interrupted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import torch

from circuitfind.directories.ranking import FIGURES, RankingResult
from circuitfind.evaluation.trust import mean_with_interval
from circuitfind.sweeps.suite import PlannedRanking
from circuitfind.sweeps.table import Row

_POSSIBLE = dict.fromkeys(("auroc", "steps", "precision", "recall", "acc_auc"), (0.0, 1.0))
"""The smallest and the largest value of figures that have both."""

_DASH = "–"


@dataclass(frozen=True)
class Mean:
    """A figure of a method.

    Attributes:
        by_case: Its mean over seeds, by case.
        mean: The mean of these.
        low: Lower end of the interval; None where there are too few cases.
        high: Its upper end.
    """

    by_case: Mapping[str, float]
    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Standing:
    """A method's row.

    Attributes:
        method: What the suite calls it.
        figures: By name; those without any value are left out.
        n_cases: The cases that it ranks.
        time: Its time over that of a plain pass; None where it ranks none.
        memory: Likewise its peak memory.
        refused: Why it ranks no edges in other cases, and in how many.
    """

    method: str
    figures: Mapping[str, Mean]
    n_cases: int
    time: float | None
    memory: float | None
    refused: Mapping[str, int]


@dataclass(frozen=True)
class Leaderboard:
    """What a benchmark found.

    Attributes:
        names: What the figures are called, by name; methods are sorted by the first.
        cases: Every case, and what is known of its circuit.
        standings: A row per method, the best first.
    """

    names: Mapping[str, str]
    cases: Mapping[str, RankingResult | None]
    standings: tuple[Standing, ...]

    def rows(self) -> list[Row]:
        """Return a row per method, as plain values."""
        return [_row(standing, self.names) for standing in self.standings]

    def notes(self) -> list[str]:
        """Return what methods refused, in the order of the numbers beside the dashes, and more."""
        refused = [
            f"{standing.method} ranks no edges in {n} of {len(self.cases)} cases: {reason}"
            for standing in self.standings
            for reason, n in standing.refused.items()
        ]
        seen = [case for case, about in self.cases.items() if about and about.held_out is False]
        note = (
            f"{len(seen)} of {len(self.cases)} cases are measured on the prompts that edges are "
            f"ranked on, since there are no others: {'; '.join(seen)}"
        )
        return [*refused, *([note] if seen else [])]

    def shown(self) -> list[dict[str, str]]:
        """Return the rows as a reader sees them."""
        number, rows = 0, []
        for standing in self.standings:
            marks = [str(number + each) for each in range(1, 1 + len(standing.refused))]
            number += len(marks)
            noted = f" [{', '.join(marks)}]" if marks else ""
            figures = {
                called: str(standing.figures[name]) if name in standing.figures else _DASH
                for name, called in self.names.items()
            }
            rows.append({
                "method": standing.method,
                **figures,
                "time": _times(standing.time),
                "memory": _times(standing.memory),
                "cases": f"{standing.n_cases} of {len(self.cases)}{noted}",
            })  # fmt: skip
        return rows

    def markdown(self) -> str:
        """Return the table, its notes, and the first figure case by case."""
        notes = "".join(f"{n}. {note}\n" for n, note in enumerate(self.notes(), 1))
        return f"{_table(self.shown())}\n{notes and notes + chr(10)}{_table(self.by_case())}"

    def by_case_and_method(self) -> list[Row]:
        """Return a row per case and method, as plain values."""
        return [
            {
                "case": case,
                "method": standing.method,
                "true edges": about and about.n_true,
                "edges": about and about.n_edges,
                **{
                    called: figure and figure.by_case.get(case)
                    for name, called in self.names.items()
                    for figure in [standing.figures.get(name)]
                },
            }
            for case, about in self.cases.items()
            for standing in self.standings
        ]

    def by_case(self) -> list[dict[str, str]]:
        """Return the first figure of every method, a row per case."""
        name, called = next(iter(self.names.items()))
        of_truth = any(about and about.n_true is not None for about in self.cases.values())
        rows = []
        for case, about in self.cases.items():
            row = {f"{called}, case": case}
            if of_truth:
                row["true edges"] = f"{about.n_true} of {about.n_edges}" if about else _DASH
                row["true first"] = f"{about.best:.2f}" if about else _DASH
            for standing in self.standings:
                figure = standing.figures.get(name)
                value = None if figure is None else figure.by_case.get(case)
                row[standing.method] = _DASH if value is None else f"{value:.2f}"
            rows.append(row)
        return rows


def leaderboard(
    runs: Sequence[PlannedRanking], results: Mapping[str, RankingResult]
) -> Leaderboard:
    """Return the leaderboard of finished rankings."""
    names = FIGURES[runs[0].config.measure]
    cases: dict[str, RankingResult | None] = {run.case: None for run in runs}
    for run in runs:
        cases[run.case] = cases[run.case] or results.get(run.name)
    labels = dict.fromkeys(run.label for run in runs)
    standings = [
        _standing(label, [run for run in runs if run.label == label], results) for label in labels
    ]
    first = next(iter(names))
    last = Mean({}, -torch.inf, None, None)
    order = sorted(standings, key=lambda each: -each.figures.get(first, last).mean)
    return Leaderboard(names, cases, tuple(order))


def _standing(
    label: str, runs: Sequence[PlannedRanking], results: Mapping[str, RankingResult]
) -> Standing:
    found = [(run.case, results[run.name]) for run in runs if run.name in results]
    ranked = [(case, result) for case, result in found if result.refused is None]
    figures = {}
    for name in FIGURES[runs[0].config.measure]:
        values: dict[str, list[float]] = {}
        for case, result in ranked:
            # A ranking that an earlier version measured lacks later figures.
            if (value := result.figures.get(name)) is not None:
                values.setdefault(case, []).append(value)
        if values:
            figures[name] = _mean(name, {case: fmean(each) for case, each in values.items()})
    costs = [result.cost for _, result in ranked if result.cost is not None]
    refused = {(case, result.refused) for case, result in found if result.refused is not None}
    return Standing(
        label,
        figures,
        len({case for case, _ in ranked}),
        _median(cost.seconds / cost.seconds_plain for cost in costs if cost.seconds_plain),
        _median(cost.bytes / cost.bytes_plain for cost in costs if cost.bytes and cost.bytes_plain),
        dict(sorted(Counter(reason for _, reason in refused).items())),
    )


def _mean(name: str, by_case: Mapping[str, float]) -> Mean:
    values = list(by_case.values())
    ends = mean_with_interval(torch.tensor(values, dtype=torch.float64))
    if ends is None:
        return Mean(by_case, fmean(values), None, None)
    lowest, highest = _POSSIBLE.get(name, (-torch.inf, torch.inf))
    return Mean(by_case, fmean(values), max(ends[0], lowest), min(ends[1], highest))


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return median(found) if found else None


def _row(standing: Standing, names: Iterable[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": standing.method}
    for name in names:
        figure = standing.figures.get(name)
        row[name] = figure and figure.mean
        row[f"{name}_low"] = figure and figure.low
        row[f"{name}_high"] = figure and figure.high
    costs = {"time": standing.time, "memory": standing.memory, "n_cases": standing.n_cases}
    return {**row, **costs, "refused": "; ".join(standing.refused) or None}


def _times(ratio: float | None) -> str:
    return _DASH if ratio is None else f"{ratio:,.1f}" if ratio < 100 else f"{ratio:,.0f}"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows as a table of Markdown, numbers to the right."""
    names = list(rows[0])
    lines = [names, ["---", *["--:"] * (len(names) - 1)], *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
