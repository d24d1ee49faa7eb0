"""The report of a sweep: how much of it is significant, in which layers, and where most."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from circuitfind.patching.result import PatchResult, Row

_MOST_LAYERS, _MOST_ROWS = 3, 10


@dataclass(frozen=True)
class SiteReport:
    """What a sweep found at one site.

    Attributes:
        site: The site.
        n_significant: Patches that are significant.
        n: All patches.
        layers: The layers with the largest sum of significant effects, that one first; empty where
            the site has no layers.
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
    """What a sweep found.

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
            "n_prompts": result.n_prompts,
            "base": float(result.base.mean()),
            "source": float(result.source.mean()),
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
                    "effect": row.effect,
                    # JSON knows no NaN: with a single prompt there is no error.
                    "standard_error": None if row.error != row.error else row.error,
                }
                for row in self.rows
            ],
        }

    def tables(self) -> list[Table]:
        """Return the report for a terminal: ends, sites, largest patches."""
        return [
            _table(("", ""), self._ends()),
            _table(("site", "significant", "share", "top layers"), self._site_rows()),
            _table(("site", "where", "effect", "standard error"), self._largest()),
        ]

    def markdown(self) -> str:
        """Return the report as Markdown, with every significant patch."""
        parts = [
            "# Activation patching\n",
            "\n".join(f"- {name}: {value}" for name, value in self._ends()),
            "",
            _markdown_table(("site", "significant", "share", "top layers"), self._site_rows()),
            "",
            _markdown_table(
                ("site", "where", "effect", "standard error"), self._largest(most=None)
            ),
        ]
        return "\n".join(parts) + "\n"

    def _ends(self) -> list[tuple[str, str]]:
        result = self.result
        unit = f" {result.unit}" if result.unit else ""
        return [
            ("mode", result.mode),
            (f"{result.metric}, patched run", f"{float(result.base.mean()):.4g}{unit}"),
            (f"{result.metric}, other run", f"{float(result.source.mean()):.4g}{unit}"),
            ("prompts", str(result.n_prompts)),
            ("significant from", f"{self.threshold:g} of the difference on"),
        ]

    def _site_rows(self) -> Iterator[tuple[str, ...]]:
        for site in self.sites:
            share = f"{site.share:.0%}"
            yield site.site, f"{site.n_significant} of {site.n}", share, " ".join(site.layers)

    def _largest(self, most: int | None = _MOST_ROWS) -> Iterator[tuple[str, ...]]:
        for row in self.rows[:most]:
            where = ", ".join(f"{axis.replace('_', ' ')} {at}" for axis, at in row.place.items())
            error = "-" if row.error != row.error else f"{row.error:.3f}"
            yield row.site, where, f"{row.effect:+.3f}", error


def report(result: PatchResult, threshold: float) -> PatchReport:
    """Say what a sweep found."""
    rows = result.significant(threshold)
    sites = tuple(
        SiteReport(
            site,
            sum(row.site == site for row in rows),
            sum(1 for _ in result.rows(site)),
            _top_layers([row for row in rows if row.site == site]),
        )
        for site in result.sites
    )
    return PatchReport(result, threshold, sites, tuple(rows))


def _top_layers(rows: Sequence[Row]) -> tuple[str, ...]:
    sums: dict[str, float] = {}
    for row in rows:
        if "layer" in row.place:
            layer = row.place["layer"]
            sums[layer] = sums.get(layer, 0.0) + abs(row.effect)
    return tuple(sorted(sums, key=lambda layer: -sums[layer])[:_MOST_LAYERS])


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
