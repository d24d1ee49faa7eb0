"""Patch every site of a kind in turn and measure what each patch does to the metric.

The sites are those of `transformer_lens.patching`. Instead of one whole run per patch, both runs
are recorded once, each patch is reduced to the stream after the component that it changes, and the
streams of many patches go on to the logits together. Sites that enter at the same point share
these batches. Activations that are patched by their name, or by a function of the user's, take
whole runs (`named.py`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, product

from circuitfind.choice import chosen
from circuitfind.graph import Graph
from circuitfind.models.forward import graph_of
from circuitfind.notebook import observer
from circuitfind.patching.exchange import Mask
from circuitfind.patching.measurement import Batch, Measurement, Part
from circuitfind.patching.named import Index, NamedRuns, Setter, Wanted, exchanged
from circuitfind.patching.pairs import posed
from circuitfind.patching.patched_runs import Patch, PatchedRuns
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
    setter: Setter | None = None,
    partners: Sequence[int] | None = None,
    rows: int | None = None,
    memory: int | str | None = None,
    progress: bool = False,
    on_progress: Callable[[Checkpoint], None] | None = None,
) -> PatchResult:
    """Patch activations of one run into another, each in turn, and measure the metric.

    Args:
        asked: The problem, or what a search for its circuit found; gives
            the model, the pairs of prompts and the metric.
        sites: What to patch: names of `SITES` or `GROUPS`, or any activation of the model by its
            TransformerLens name (`post`, `attn_scores`, `blocks.3.hook_resid_mid`), separated by
            commas.
        mode: Clean activations into the corrupted run (`denoising`), corrupted ones into the clean
            run (`noising`), those of each prompt of a pair into the run of the other
            (`interchange`), or those of another clean prompt into the clean run
            (`interchange-within`).
        positions: `each`, `all` (at once), `last`, `named`, or names and indices separated by
            commas; by default `named` where the prompts name positions, otherwise `each`.
        layers: Which blocks, as numbers from 0 or as text such as `3-5,8`; all unless given.
        heads: Which heads, likewise; of keys and values those that these heads read.
        setter: How to patch, in place of taking what the source run has: a function of the
            activation, the same of the source run, and an `Index` (layer, mask over prompts and
            positions, head), which returns the changed activation. All sites are then patched by
            the names of their activations.
        partners: For `interchange-within`, the number of the prompt that each prompt is patched
            from, or -1 to leave it out; by default the next one like it (`partners_of`).
        rows: How many prompts, all patches' together, run through the model at once; by default as
            many as the memory allows. No result depends on it.
        memory: How many bytes may be taken beside the model, also as text like `2GB`; by default
            what is fast.
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
        setter=setter,
        partners=partners,
        rows=rows,
        memory=memory,
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
        setter: Setter | None = None,
        partners: Sequence[int] | None = None,
        rows: int | None = None,
        memory: int | str | None = None,
    ) -> None:
        super().__init__(posed(problem, mode, partners), mode, rows, memory)
        prompts = self.problem.prompts
        self._sites = find_sites(sites, problem.model, by_name=setter is not None)
        self._setter = setter
        if setter is not None:
            self.notes = (f"activations are set by the function {_name_of(setter)}",)
        self._places = places(
            prompts, positions or default_places(prompts), problem.model.vocabulary
        )
        names = tuple(place.name for place in self._places)
        self._numbers = _numbers(graph_of(problem.model.shape), layers, heads)
        numbers = {axis: tuple(map(str, each)) for axis, each in self._numbers.items()}
        known = {**numbers, "position": names, "source_position": names}
        self.axes = {site.name: site.axes for site in self._sites}
        self.labels = {axis: known[axis] for axes in self.axes.values() for axis in axes}
        self.n_patches = sum(
            math.prod(len(self.labels[axis]) for axis in axes) for axes in self.axes.values()
        )

    def part(self, problem: Problem, prompts: slice) -> Part:
        runs = PatchedRuns(problem, self.mode, self.rows)
        width = problem.prompts.clean.shape[1]
        masks = [place.mask[prompts, :width] for place in self._places]
        part = runs.part(self._patches(runs, masks))
        return replace(part, batches=chain(part.batches, self._by_name(runs, masks)))

    def _patches(self, runs: PatchedRuns, masks: Sequence[Mask]) -> Iterator[Patch]:
        """Make all patches, those that enter at one point behind one another."""
        of_table = (site for site in self._sites if site.activation is None)
        by_entry = sorted(of_table, key=lambda site: site.enters)
        for along, layer in enumerate(self._numbers["layer"]):
            for site in by_entry:
                make = getattr(runs.exchange, site.name)
                for at in product(range(len(masks)), repeat=site.n_places):
                    patched = make(layer, *(masks[place] for place in at))
                    heads = self._heads(site)
                    streams = patched.streams if heads is None else patched.streams[list(heads)]
                    keys = ((site.name, site.index(along, at, i)) for i in range(len(streams)))
                    yield Patch(tuple(keys), patched._replace(streams=streams))

    def _by_name(self, runs: PatchedRuns, masks: Sequence[Mask]) -> Iterator[Batch]:
        """Make the patches of activations that are patched by their name, point by point."""
        for site in self._sites:
            if site.activation is None:
                continue
            named = NamedRuns(runs, runs.problem.model.hooks)  # type: ignore[attr-defined]
            setter = self._setter or partial(exchanged, site.activation.head_axis)
            heads = self._heads(site) or (None,)
            layers = self._numbers["layer"] if site.activation.by_layer else (None,)
            for along, layer in enumerate(layers):
                wanted = [
                    Wanted((site.name, site.index(along, (at,), i)), Index(layer, mask, head))
                    for (at, mask), (i, head) in product(enumerate(masks), enumerate(heads))
                ]
                yield from named.batches(site.activation.points[layer or 0], wanted, setter)

    def _heads(self, site: Site) -> tuple[int, ...] | None:
        """Return which of a site's heads are patched; None where it has no heads."""
        axes = [axis for axis in ("head", "kv_head") if axis in site.axes]
        return self._numbers[axes[0]] if axes else None


def _name_of(setter: Setter) -> str:
    return getattr(setter, "__name__", type(setter).__name__)


def _numbers(
    graph: Graph, layers: str | Sequence[int] | None, heads: str | Sequence[int] | None
) -> dict[str, tuple[int, ...]]:
    """Return the numbers of the layers, heads and key/value heads that are patched."""
    # Where layers have different numbers of heads, no site has heads (see `sites`).
    fewest = min(graph.attention.values(), key=lambda block: len(block.writers))
    of_heads = chosen(heads, len(fewest.writers), "head")
    read = sorted({head // len(fewest.exchangeable[0]) for head in of_heads})
    of_layers = chosen(layers, len(graph.attention), "layer")
    return {"layer": of_layers, "head": of_heads, "kv_head": tuple(read)}
