"""Patch every site of a kind in turn and measure what each patch does to the metric.

The sites are those of `transformer_lens.patching`. Instead of one whole run per patch, both runs
are recorded once, each patch is reduced to the stream after the component that it changes, and the
streams of many patches go on to the logits together. Sites that enter at the same point share
these batches.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from circuitfind.errors import MethodError
from circuitfind.graph import ModelShape
from circuitfind.patching.pairs import posed
from circuitfind.patching.patched_runs import Patch, PatchedRuns, default_rows
from circuitfind.patching.places import Place, default_places, places
from circuitfind.patching.result import Mode, PatchResult, require_gap
from circuitfind.patching.sites import Site, find_sites
from circuitfind.problem import Problem


@dataclass(frozen=True)
class Swept:
    """How far a sweep is.

    Attributes:
        done: Patches measured.
        total: Patches to measure.
    """

    done: int
    total: int


def patch(
    problem: Problem,
    sites: str = "block",
    *,
    mode: Mode = "denoising",
    positions: str | None = None,
    partners: Sequence[int] | None = None,
    rows: int | None = None,
    on_progress: Callable[[Swept], None] = lambda swept: None,
) -> PatchResult:
    """Patch activations of one run into another, each in turn, and measure the metric.

    Args:
        problem: Gives the model, the pairs of prompts and the metric.
        sites: What to patch: names of `SITES` or `GROUPS`, separated by commas.
        mode: Clean activations into the corrupted run (`denoising`), corrupted ones into the clean
            run (`noising`), or those of another clean prompt into the clean run (`interchange`).
        positions: `each`, `all` (at once), `last`, `named`, or names and indices separated by
            commas; by default `named` where the prompts name positions, otherwise `each`.
        partners: For `interchange`, the number of the prompt that each prompt is patched from; by
            default the next one like it (`partners_of`).
        rows: How many prompts, all patches' together, run through the model at once. No result
            depends on it.
        on_progress: Called as the sweep proceeds.

    Raises:
        MethodError: A site or the mode does not exist, or the model has none of it.
        PromptError: A position does not exist.
        MetricError: The two runs have the same metric, so there is no effect to measure.
    """
    posed_problem = posed(problem, mode, partners)
    sweep = _Sweep(
        posed_problem,
        find_sites(sites, problem.model.shape),
        places(
            problem.prompts,
            positions or default_places(problem.prompts),
            problem.model.vocabulary,
        ),
        mode,
        default_rows(problem) if rows is None else rows,
    )
    return sweep.run(on_progress)


class _Sweep:
    """The sites and places of one sweep."""

    def __init__(
        self,
        problem: Problem,
        sites: tuple[Site, ...],
        chosen: tuple[Place, ...],
        mode: Mode,
        rows: int,
    ) -> None:
        if rows < 1:
            raise MethodError(f"{rows} rows cannot be run at once; give at least 1")
        self._problem, self._sites, self._places = problem, sites, chosen
        self._mode, self._rows = mode, rows
        names = tuple(place.name for place in chosen)
        self._labels = {
            **_numbers(problem.model.shape),
            "position": names,
            "source_position": names,
        }

    def run(self, on_progress: Callable[[Swept], None]) -> PatchResult:
        """Sweep over as many prompts at a time as rows allow."""
        n = len(self._problem.prompts)
        parts = [slice(first, first + self._rows) for first in range(0, n, self._rows)]
        total = len(parts) * sum(map(self._n_patches, self._sites))
        done = 0
        found: list[_Part] = []
        for part in parts:
            runs = PatchedRuns(self._part(part), self._mode, self._rows)
            values = {
                site.name: runs.base_values.expand(*self._sizes(site), -1).clone()
                for site in self._sites
            }
            for (site, index), value in runs.measured(self._patches(runs, part)):
                values[site][index] = value
                done += 1
                on_progress(Swept(done, total))
            found.append((runs.base_values, runs.source_values, values))
        return self._result(found)

    def _part(self, part: slice) -> Problem:
        return replace(self._problem, prompts=self._problem.prompts.select(part))

    def _n_patches(self, site: Site) -> int:
        return torch.Size(self._sizes(site)).numel()

    def _sizes(self, site: Site) -> list[int]:
        return [len(self._labels[axis]) for axis in site.axes]

    def _patches(self, runs: PatchedRuns, part: slice) -> Iterator[Patch]:
        """Make all patches, those that enter at one point behind one another."""
        width = runs.problem.prompts.clean.shape[1]
        masks = [place.mask[part, :width] for place in self._places]
        by_entry = sorted(self._sites, key=lambda site: site.enters)
        for layer in range(self._problem.model.shape.n_layers):
            for site in by_entry:
                make = getattr(runs.exchange, site.name)
                for at in product(range(len(masks)), repeat=site.n_places):
                    patched = make(layer, *(masks[place] for place in at))
                    n_candidates = len(patched.streams)
                    keys = ((site.name, site.index(layer, at, i)) for i in range(n_candidates))
                    yield Patch(tuple(keys), patched)

    def _result(self, found: "list[_Part]") -> PatchResult:
        base = torch.cat([values for values, _, _ in found])
        source = torch.cat([values for _, values, _ in found])
        require_gap(base, source)
        problem = self._problem
        return PatchResult(
            values={
                site.name: torch.cat([values[site.name] for _, _, values in found], dim=-1)
                for site in self._sites
            },
            axes={site.name: site.axes for site in self._sites},
            labels={axis: self._labels[axis] for site in self._sites for axis in site.axes},
            base=base,
            source=source,
            mode=self._mode,
            metric=problem.metric.name,
            unit=problem.metric.unit,
        )


_Part = tuple[Tensor, Tensor, dict[str, Tensor]]
"""Base and source values of some prompts, and those of their patches by site."""


def _numbers(shape: ModelShape) -> dict[str, tuple[str, ...]]:
    sizes = {"layer": shape.n_layers, "head": shape.n_heads, "kv_head": shape.n_kv_heads}
    return {axis: tuple(map(str, range(size))) for axis, size in sizes.items()}
