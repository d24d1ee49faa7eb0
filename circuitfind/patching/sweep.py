"""Patch every site of a kind in turn and measure what each patch does to the metric.

The sites are those of `transformer_lens.patching`. Instead of one whole run per patch, both runs
are recorded once, each patch is reduced to the stream after the component that it changes, and the
streams of many patches go on to the logits together. Sites that enter at the same point share
these batches.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product

from circuitfind.graph import ModelShape
from circuitfind.notebook import observer
from circuitfind.patching.choice import chosen
from circuitfind.patching.measurement import Measurement, Part
from circuitfind.patching.pairs import posed
from circuitfind.patching.patched_runs import Patch, PatchedRuns, default_rows
from circuitfind.patching.places import default_places, places
from circuitfind.patching.result import Mode, PatchResult
from circuitfind.patching.sites import Site, find_sites
from circuitfind.problem import HasProblem, Problem, as_problem
from circuitfind.progress import Checkpoint


def patch(
    asked: HasProblem,
    sites: str = "block",
    *,
    mode: Mode = "denoising",
    positions: str | None = None,
    layers: str | Sequence[int] | None = None,
    heads: str | Sequence[int] | None = None,
    partners: Sequence[int] | None = None,
    rows: int | None = None,
    progress: bool = False,
    on_progress: Callable[[Checkpoint], None] | None = None,
) -> PatchResult:
    """Patch activations of one run into another, each in turn, and measure the metric.

    Args:
        asked: The problem, or what a search for its circuit found; gives
            the model, the pairs of prompts and the metric.
        sites: What to patch: names of `SITES` or `GROUPS`, separated by commas.
        mode: Clean activations into the corrupted run (`denoising`), corrupted ones into the clean
            run (`noising`), those of each prompt of a pair into the run of the other
            (`interchange`), or those of another clean prompt into the clean run
            (`interchange-within`).
        positions: `each`, `all` (at once), `last`, `named`, or names and indices separated by
            commas; by default `named` where the prompts name positions, otherwise `each`.
        layers: Which blocks, as numbers from 0 or as text such as `3-5,8`; all unless given.
        heads: Which heads, likewise; of keys and values those that these heads read.
        partners: For `interchange-within`, the number of the prompt that each prompt is patched
            from, or -1 to leave it out; by default the next one like it (`partners_of`).
        rows: How many prompts, all patches' together, run through the model at once. No result
            depends on it.
        progress: Show how far the sweep is, on one line of stderr; also in notebooks.
        on_progress: Called as the sweep proceeds, in place of that line.

    Raises:
        MethodError: A site, layer, head or mode does not exist, or the model has none of it.
        PromptError: A position does not exist.
        MetricError: The two runs have the same metric, so there is no effect to measure.
    """
    sweep = Sweep(
        as_problem(asked),
        sites,
        mode,
        positions=positions,
        layers=layers,
        heads=heads,
        partners=partners,
        rows=rows,
    )
    return sweep.finished(observer(progress=progress, on_progress=on_progress))


class Sweep(Measurement):
    """All patches of some sites at some places; the arguments are those of `patch`."""

    def __init__(
        self,
        problem: Problem,
        sites: str = "block",
        mode: Mode = "denoising",
        *,
        positions: str | None = None,
        layers: str | Sequence[int] | None = None,
        heads: str | Sequence[int] | None = None,
        partners: Sequence[int] | None = None,
        rows: int | None = None,
    ) -> None:
        super().__init__(
            posed(problem, mode, partners), mode, default_rows(problem) if rows is None else rows
        )
        prompts, shape = self.problem.prompts, problem.model.shape
        self._sites = find_sites(sites, shape)
        self._places = places(
            prompts, positions or default_places(prompts), problem.model.vocabulary
        )
        names = tuple(place.name for place in self._places)
        self._numbers = _numbers(shape, layers, heads)
        numbers = {axis: tuple(map(str, each)) for axis, each in self._numbers.items()}
        known = {**numbers, "position": names, "source_position": names}
        self.axes = {site.name: site.axes for site in self._sites}
        self.labels = {axis: known[axis] for axes in self.axes.values() for axis in axes}
        self.n_patches = sum(
            math.prod(len(self.labels[axis]) for axis in axes) for axes in self.axes.values()
        )

    def part(self, problem: Problem, prompts: slice) -> Part:
        runs = PatchedRuns(problem, self.mode, self.rows)
        return runs.part(self._patches(runs, prompts))

    def _patches(self, runs: PatchedRuns, prompts: slice) -> Iterator[Patch]:
        """Make all patches, those that enter at one point behind one another."""
        width = runs.problem.prompts.clean.shape[1]
        masks = [place.mask[prompts, :width] for place in self._places]
        by_entry = sorted(self._sites, key=lambda site: site.enters)
        for along, layer in enumerate(self._numbers["layer"]):
            for site in by_entry:
                make = getattr(runs.exchange, site.name)
                for at in product(range(len(masks)), repeat=site.n_places):
                    patched = make(layer, *(masks[place] for place in at))
                    heads = self._heads(site)
                    streams = patched.streams if heads is None else patched.streams[list(heads)]
                    keys = ((site.name, site.index(along, at, i)) for i in range(len(streams)))
                    yield Patch(tuple(keys), patched._replace(streams=streams))

    def _heads(self, site: Site) -> tuple[int, ...] | None:
        """Return which of a site's heads are patched; None where it has no heads."""
        axes = [axis for axis in ("head", "kv_head") if axis in site.axes]
        return self._numbers[axes[0]] if axes else None


def _numbers(
    shape: ModelShape, layers: str | Sequence[int] | None, heads: str | Sequence[int] | None
) -> dict[str, tuple[int, ...]]:
    """Return the numbers of the layers, heads and key/value heads that are patched."""
    # Where layers have different numbers of heads, no site has heads (see `sites`).
    least = min(shape.layers)
    of_heads = chosen(heads, least.n_heads, "head")
    read = sorted({head // least.heads_per_kv_head for head in of_heads})
    of_layers = chosen(layers, shape.n_layers, "layer")
    return {"layer": of_layers, "head": of_heads, "kv_head": tuple(read)}
