"""Result of a sweep: the metric of every patched run, with named axes and both unpatched runs.

The effect of a patch is the share of the way from the base run to the source run that it makes the
metric go: 0 where it does nothing, 1 where it does as much as taking the whole source run. It can
be negative and exceed 1. As (patched - corrupted) / (clean - corrupted) it is the usual normalised
effect in denoising; in noising that is 1 minus the effect. Means are taken over prompts before
dividing, so that single prompts on which the runs hardly differ do no harm.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.errors import MethodError, MetricError, shortened
from circuitfind.limits import require
from circuitfind.notebook import Tabled, html_table

if TYPE_CHECKING:
    import pandas as pd

Mode = Literal["denoising", "noising", "interchange", "interchange-within"]
"""Clean activations into the corrupted run; corrupted ones into the clean run; those of each prompt
of a pair into the run of the other; those of another clean prompt into the clean run."""

MODES: tuple[Mode, ...] = get_args(Mode)

_SMALLEST_GAP = 1e-6
"""Of the metric's size: a smaller difference of the two runs says nothing."""

_AS_HEAD = {"kv_head": "head"}

DEFAULT_THRESHOLD = 0.05
_STANDARD_ERRORS = 1.96


class Row(NamedTuple):
    """One patch and what it did.

    Attributes:
        site: Name of the site.
        place: Its label on each of the site's axes.
        indices: The same in numbers.
        effect: Share of the way from the base run to the source run.
        error: Standard error of the effect over prompts; NaN with a single prompt.
        value: The mean metric of the patched run, in the metric's unit.
    """

    site: str
    place: Mapping[str, str]
    indices: tuple[int, ...]
    effect: float
    error: float
    value: float

    @property
    def is_real(self) -> bool:
        """Whether the effect lies outside its own noise (95 %), as far as that is known."""
        return not abs(self.effect) <= _STANDARD_ERRORS * self.error


@dataclass(frozen=True)
class PatchResult(Tabled):
    """Results of every patch of a sweep.

    Attributes:
        values: Metric of each patched run, by site: the site's axes, then the prompts.
        axes: The axes of each site's values, without that of the prompts.
        labels: The labels along each axis; `layer`, `head` and `kv_head` count from 0.
        base: Metric of each prompt in the run that is patched.
        source: Metric of each prompt in the run that the patches come from, by the base's answers.
        mode: Which run is patched with which.
        metric: Name of the metric.
        unit: Its unit.
        origin: Where the result comes from; plain JSON values.
        notes: What was measured in another way than usual, a phrase each.
        per: Whether each prompt has a metric of its own, or all of them one together, which then
            stands for every prompt.
    """

    values: Mapping[str, Float[Tensor, "*axes batch"]]
    axes: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, tuple[str, ...]]
    base: Float[Tensor, " batch"]
    source: Float[Tensor, " batch"]
    mode: Mode
    metric: str
    unit: str
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    per: Literal["prompt", "batch"] = "prompt"

    def __repr__(self) -> str:
        sites = ", ".join(f"{site} {self.values[site][..., 0].numel()}" for site in self.values)
        return (
            f"<PatchResult ({self.mode}): {shortened(self.metric)[:60]} on {self.n_prompts} "
            f"prompts; patches: {shortened(sites)[:120]}>"
        )

    def _repr_html_(self) -> str:
        """Return the significant patches as HTML, largest first; notebooks call this."""
        rows = (self._record(row) for row in self.significant())
        return html_table(rows, f"{self!r}, significant ones")

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of what was patched."""
        return tuple(self.values)

    @property
    def n_prompts(self) -> int:
        return len(self.base)

    @cached_property
    def gap(self) -> float:
        """The mean metric of the source run minus that of the base run."""
        return float(self.source.mean() - self.base.mean())

    def mean(self, site: str) -> Float[Tensor, "*axes"]:
        """Return the metric after each patch, averaged over prompts, in the metric's unit."""
        return self._of(site).mean(-1)

    def effect(self, site: str) -> Float[Tensor, "*axes"]:
        """Return the effect of each patch: 0 as the base, 1 as the source."""
        return (self._of(site) - self.base).mean(-1) / self.gap

    def error(self, site: str) -> Float[Tensor, "*axes"]:
        """Return the standard error of each effect over prompts; NaN for a single value."""
        changes = self.independent(self._of(site) - self.base)
        if changes.shape[-1] == 1:
            return torch.full_like(self.mean(site), torch.nan)
        spread = changes.std(-1) / changes.shape[-1] ** 0.5
        error: Tensor = spread / abs(self.gap)
        return error

    def independent(self, values: Float[Tensor, "*axes batch"]) -> Float[Tensor, "*axes some"]:
        """Return the values over which noise is counted: one per prompt, per pair, or per batch.

        An interchange measures each pair of prompts both ways, and the two belong together.
        """
        if self.per == "batch":
            return values[..., :1]
        if self.mode != "interchange":
            return values
        means: Tensor = values.unflatten(-1, (2, -1)).mean(-2)
        return means

    def _of(self, site: str) -> Float[Tensor, "*axes batch"]:
        if site not in self.values:
            raise MethodError(f"the sweep has no site {site!r}; it has {', '.join(self.values)}")
        return self.values[site]

    def rows(self, site: str | None = None) -> Iterator[Row]:
        """Yield every patch of one site, or of all; those that do not exist are left out."""
        for name in self.values if site is None else (site,):
            effect, error, mean = self.effect(name), self.error(name), self.mean(name)
            for flat in range(effect.numel()):
                index = _unraveled(flat, effect.shape)
                if effect[index].isnan():
                    continue
                place: dict[str, str] = {
                    axis: self.labels[axis][i]
                    for axis, i in zip(self.axes[name], index, strict=True)
                }
                numbers = (float(values[index]) for values in (effect, error, mean))
                yield Row(name, place, index, *numbers)

    def stacked(self) -> tuple[Float[Tensor, "site ..."], tuple[str, ...]]:
        """Return the mean metric of all sites as one tensor, with the names of its axes.

        As TransformerLens' `..._every` functions stack them, with a key/value head where others
        have a head; NaN where a site has fewer key/value heads than others have heads.

        Raises:
            MethodError: The sites have different axes.
        """
        alike = {tuple(_AS_HEAD.get(axis, axis) for axis in axes) for axes in self.axes.values()}
        if len(alike) != 1:
            raise MethodError(
                f"the sites {', '.join(self.values)} have different axes and cannot be stacked; "
                "patch those of one kind alone"
            )
        means = [self.mean(site) for site in self.values]
        size = [max(sizes) for sizes in zip(*(mean.shape for mean in means), strict=True)]
        whole = torch.full((len(means), *size), torch.nan, dtype=means[0].dtype)
        for row, mean in zip(whole, means, strict=True):
            row[tuple(map(slice, mean.shape))] = mean
        return whole, ("site", *alike.pop())

    def records(self) -> Iterator[dict[str, str | float]]:
        """Yield every patch as one row of a table: its site, its labels, and what was measured.

        Rows have the same names in the same order; an axis that a site does not have is empty.
        """
        return (self._record(row) for row in self.rows())

    def _record(self, row: Row) -> dict[str, str | float]:
        axes = dict.fromkeys(axis for site in self.values for axis in self.axes[site])
        labels = {axis: row.place.get(axis, "") for axis in axes}
        measured = {"value": row.value, "effect": row.effect, "standard_error": row.error}
        return {"site": row.site, **labels, **measured}

    def to_frame(self) -> "pd.DataFrame":
        """Return every patch as a row of a pandas frame (see `records`).

        Raises:
            ReportError: pandas is not installed.
        """
        frame = super().to_frame()
        frame.attrs.update(mode=self.mode, metric=self.metric, unit=self.unit)
        return frame

    def significant(self, threshold: float = DEFAULT_THRESHOLD) -> list[Row]:
        """Return the patches that matter, largest first.

        Those whose effect is at least the threshold in size and lies outside its own noise over
        prompts (1.96 standard errors; not asked where there is a single prompt).
        """
        require(patch_threshold=threshold)
        found = [row for row in self.rows() if abs(row.effect) >= threshold and row.is_real]
        return sorted(found, key=lambda row: -abs(row.effect))


def _unraveled(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index = []
    for size in reversed(shape):
        index.append(flat % size)
        flat //= size
    return tuple(reversed(index))


def require_gap(base: Float[Tensor, " batch"], source: Float[Tensor, " batch"]) -> None:
    """Refuse two runs that the metric cannot tell apart.

    Raises:
        MetricError: Their mean metrics agree, so that no patch has an effect to measure.
    """
    ours, theirs = float(base.mean()), float(source.mean())
    if not abs(theirs - ours) > _SMALLEST_GAP * max(abs(ours), abs(theirs), 1e-12):
        raise MetricError(
            f"the patched run and the one that patches come from have the same metric "
            f"({ours:.4g}), so there is no effect to measure; choose another metric or mode"
        )
