"""The report of a sweep: the two runs, how much is significant, in which layers, and where most.

Each effect is a share of the gap between the two runs. Where that gap may be chance, the report
warns that the effects mean nothing. Where it is known, the model's own result on the task comes
first: a model that does not do the task has no behaviour to patch.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from circuitfind.errors import require_kind
from circuitfind.evaluation.trust import (
    OwnResult,
    doubts_about_model,
    doubts_about_prompts,
    mean_with_interval,
    own_of,
    within_noise,
)
from circuitfind.patching.result import DEFAULT_THRESHOLD, PatchResult, Row
from circuitfind.problem import Problem

_MOST_LAYERS, _MOST_ROWS = 5, 10

_STREAM = ("resid_pre", "resid_mid", "resid_post")

_ENDS = {
    "denoising": ("corrupted prompts", "clean prompts"),
    "noising": ("clean prompts", "corrupted prompts"),
    "interchange": ("each prompt of a pair", "the other one"),
    "interchange-within": ("clean prompts", "other clean prompts"),
}
"""Prompts that the patched run and the other run read."""


@dataclass(frozen=True)
class SiteReport:
    """Results of a sweep at one site.

    Attributes:
        site: The site.
        n_significant: Patches that are significant.
        n: All patches.
        layers: The layers with the largest sum of significant effects, that one first; empty where
            the site has no layers. The stream only carries what earlier layers wrote, so for its
            sites these are the layers that change its effect most.
    """

    site: str
    n_significant: int
    n: int
    layers: tuple[str, ...]

    @property
    def share(self) -> float:
        return self.n_significant / self.n if self.n else 0.0


@dataclass(frozen=True)
class PatchReport:
    """Results of a sweep.

    Attributes:
        result: The measurements.
        threshold: From which size of effect on a patch is significant.
        sites: A report for each site.
        rows: The significant patches, largest first.
    """

    result: PatchResult
    threshold: float
    sites: tuple[SiteReport, ...]
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        result = self.result
        return {
            "mode": result.mode,
            "metric": result.metric,
            "unit": result.unit,
            "notes": [*result.notes],
            "n_prompts": result.n_prompts,
            "own": result.origin.get("own"),
            "base": float(result.base.mean()),
            "base_interval": mean_with_interval(result.independent(result.base)),
            "source": float(result.source.mean()),
            "source_interval": mean_with_interval(result.independent(result.source)),
            "warnings": list(self.warnings),
            "threshold": self.threshold,
            "sites": [
                {
                    "site": site.site,
                    "significant": site.n_significant,
                    "patches": site.n,
                    "share": site.share,
                    "top_layers": list(site.layers),
                }
                for site in self.sites
            ],
            "significant": [
                {
                    "site": row.site,
                    **row.place,
                    "value": row.value,
                    "effect": row.effect,
                    # JSON knows no NaN: with a single prompt there is no error.
                    "standard_error": None if row.error != row.error else row.error,
                }
                for row in self.rows
            ],
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the effects, a sentence each."""
        return (*map(str, self.result.origin.get("doubts", ())), *self.chance_gap)

    @property
    def chance_gap(self) -> tuple[str, ...]:
        """That the two runs may differ by chance alone, where they may."""
        result = self.result
        if not within_noise(result.independent(result.source), result.independent(result.base)):
            return ()
        gap = f"{result.gap:.3g} {result.unit}".strip()
        return (
            f"the two runs differ by {gap}, which may be chance, so effects, which are shares of "
            "that, mean nothing; give more prompts, or choose another task, model or metric",
        )

    def csv(self) -> str:
        """Return every patch, significant or not, as CSV; see `PatchResult.records`."""
        file, records = io.StringIO(), list(self.result.records())
        table = csv.DictWriter(file, list(records[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(records)
        return file.getvalue()

    def tables(self) -> list[Table]:
        """Return the report for a terminal: ends, sites, largest patches."""
        return [
            _table(("", ""), self._ends()),
            _table(("site", "significant", "share", "top layers"), self._site_rows()),
            _table(self._columns, self._largest()),
        ]

    @property
    def _columns(self) -> tuple[str, ...]:
        return "site", "where", self.result.metric, "effect", "standard error"

    def markdown(self) -> str:
        """Return the report as Markdown, with every significant patch."""
        parts = [
            "# Activation patching\n",
            "\n".join(f"- {name}: {value}" for name, value in self._ends()),
            "",
            _markdown_table(("site", "significant", "share", "top layers"), self._site_rows()),
            "",
            _markdown_table(self._columns, self._largest(most=None)),
        ]
        return "\n".join(parts) + "\n"

    def _ends(self) -> list[tuple[str, str]]:
        result = self.result
        mode, (base, source) = result.mode, _ENDS[result.mode]
        own = result.origin.get("own")
        return [
            *([("the model itself", own["summary"])] if own else []),
            ("mode", result.mode),
            *(("note", note) for note in result.notes),
            (
                f"{result.metric}, patched run ({base})",
                _mean(result.independent(result.base), result.unit),
            ),
            (
                f"{result.metric}, other run ({source})",
                _mean(result.independent(result.source), result.unit),
            ),
            ("prompts", f"{result.n_prompts}{' (pairs, both ways)' * (mode == 'interchange')}"),
            ("significant from", f"{self.threshold:g} of the difference on"),
            *(("warning", warning) for warning in self.warnings),
        ]

    def _site_rows(self) -> Iterator[tuple[str, ...]]:
        for site in self.sites:
            share = f"{site.share:.0%}"
            yield site.site, f"{site.n_significant} of {site.n}", share, " ".join(site.layers)

    def _largest(self, most: int | None = _MOST_ROWS) -> Iterator[tuple[str, ...]]:
        for row in self.rows[:most]:
            where = ", ".join(f"{axis.replace('_', ' ')} {at}" for axis, at in row.place.items())
            error = "-" if row.error != row.error else f"{row.error:.3f}"
            yield row.site, where, f"{row.value:.4g}", f"{row.effect:+.3f}", error


def _mean(values: Float[Tensor, " batch"], unit: str) -> str:
    ends = mean_with_interval(values)
    interval = "" if ends is None else f" ({ends[0]:.4g} to {ends[1]:.4g})"
    return f"{float(values.mean()):.4g}{interval} {unit}".strip()


def own_facts(own: OwnResult | None, problem: Problem) -> dict[str, Any]:
    """Return how well the model itself does a task, and reasons to doubt what is found about it.

    Plain JSON values: `own` is None where prompts have no answers; `doubts` holds sentences.
    """
    doubts = [*doubts_about_model(own), *doubts_about_prompts(problem)]
    return {"own": own and {"summary": str(own), **asdict(own)}, "doubts": doubts}


def patch_report(
    result: PatchResult,
    threshold: float = DEFAULT_THRESHOLD,
    *,
    problem: Problem | None = None,
) -> PatchReport:
    """Return the report of a sweep.

    Args:
        result: The measurements.
        threshold: From which size of effect on a patch is significant.
        problem: What was patched, in order to begin with the model's own result on it; results
            that the command line wrote hold that result.
    """
    require_kind(result, PatchResult, "a result of patching; give what `patch` returned")
    if problem is not None:
        result = replace(result, origin={**result.origin, **own_facts(own_of(problem), problem)})
    rows = result.significant(threshold)
    sites = tuple(
        SiteReport(
            site,
            sum(row.site == site for row in rows),
            sum(1 for _ in result.rows(site)),
            _top_layers(result, site, threshold),
        )
        for site in result.sites
    )
    return PatchReport(result, threshold, sites, tuple(rows))


def _top_layers(result: PatchResult, site: str, threshold: float) -> tuple[str, ...]:
    sums: dict[str, float] = {}
    shares = _changes(result, site) if site in _STREAM else _effects(result, site, threshold)
    for layer, size in shares:
        if size >= threshold:
            sums[layer] = sums.get(layer, 0.0) + size
    return tuple(sorted(sums, key=lambda layer: -sums[layer])[:_MOST_LAYERS])


def _effects(result: PatchResult, site: str, threshold: float) -> Iterator[tuple[str, float]]:
    for row in result.significant(threshold):
        if row.site == site and "layer" in row.place:
            yield row.place["layer"], abs(row.effect)


def _changes(result: PatchResult, site: str) -> Iterator[tuple[str, float]]:
    """Yield by how much each layer changes the effect of the stream, place by place."""
    # The stream that enters the next block is what this one has changed.
    labels = result.labels["layer"]
    changed_by = labels[:-1] if site == "resid_pre" else labels[1:]
    for layer, changes in zip(changed_by, result.effect(site).diff(dim=0).abs(), strict=True):
        for change in changes.flatten().tolist():
            yield layer, change


def _table(
    headers: Sequence[str], rows: Iterator[tuple[str, ...]] | list[tuple[str, str]]
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(headers))
    for number, header in enumerate(headers):
        table.add_column(header, no_wrap=number == 0, style=None if headers[0] else None)
    for row in rows:
        table.add_row(*row)
    return table


def _markdown_table(headers: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
