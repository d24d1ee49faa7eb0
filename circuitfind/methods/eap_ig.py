"""Edge attribution patching with integrated gradients: the slope averaged along a path.

As `eap`, with another gradient. Variants:

- `inputs`: the mean of the gradients of the runs whose embedding is
  corrupted + (k/m) (clean - corrupted), k = 1..m. The authors' code for edges takes k = 0..m-1
  (`points="left"`).
- `activations`: for each writer in turn, the mean of the gradients of the runs in which its output
  alone is mixed so, k = 1..m, for its own edges. The authors' code adds each of these gradients to
  all edges.
- `clean-corrupted`: the mean of the gradients at the two ends of the first path.
- `ensemble`: the mean of the scores of eap, `inputs` and `activations` (arXiv 2510.06811).

"Corrupted" is what a cut edge of the embedding carries; under resample ablation that is the
embedding of the corrupted prompt. Along a fine path the scores of `inputs` over the edges out of
the embedding add up to the change of the loss from the clean to the corrupted embedding, and those
of `activations` over each writer's edges to the change of the loss when that writer is replaced.
Paper: Hanna et al. 2024, arXiv 2403.17806.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError, quoted
from circuitfind.graph import Graph
from circuitfind.methods.attribution import Place
from circuitfind.methods.eap import CLEAN, Attribution, EapOptions, along
from circuitfind.methods.slopes import require_slope
from circuitfind.progress import Checkpoint, State

Variant = Literal["inputs", "activations", "clean-corrupted", "ensemble"]
Points = Literal["right", "left"]
_IN_ENSEMBLE: tuple[Variant, ...] = ("inputs", "activations")
"""The variants whose mean with eap is the ensemble."""


@dataclass(frozen=True, kw_only=True)
class EapIgOptions(EapOptions):
    """Settings of edge attribution patching with integrated gradients.

    Attributes:
        variant: The path along which gradients are averaged; of `ensemble`, the mean of eap,
            `inputs` and `activations`.
        steps: Number m of gradients along the path; of no use to `clean-corrupted`.
        points: Whether each of the m parts of the path is seen at its end nearer to the clean run
            (`right`, k = 1..m) or at the other (`left`, k = 0..m-1).
    """

    variant: Variant = "inputs"
    steps: int = 5
    points: Points = "right"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, known in (
            ("variant", self.variant, get_args(Variant)),
            ("points", self.points, get_args(Points)),
        ):
            if value not in known:
                raise MethodError(f"no {name} named {value!r}; choose one of {', '.join(known)}")


class EapIg(Attribution):
    """Edge attribution with integrated gradients as an entry of the table of methods."""

    name = "eap-ig"
    summary = "estimate every edge's effect from gradients between the corrupted and the clean run"
    paper = "Hanna et al. 2024, arXiv 2403.17806"
    options = EapIgOptions

    def require_moves(self, options: Mapping[str, Any]) -> None:
        """Refuse a path on which one writer is varied at a time."""
        super().require_moves(options)
        if (variant := options.get("variant")) in ("activations", "ensemble"):
            raise MethodError(
                f"the variant {quoted(variant)} varies one writer at a time, and moves inside "
                "attention have none of their own; leave out crossing, or choose another variant"
            )

    def scoring(
        self, engine: IncrementalEngine, options: EapIgOptions, state: State | None = None
    ) -> Iterator[Checkpoint]:
        """Yield after each few gradients."""
        places = list(places_of(engine.graph, options))
        at_clean_only = all(place.share == 1 for place in places)
        require_slope(engine.problem.metric, self.name, at_clean_only=at_clean_only)
        yield from along(engine, places, options, state)


def places_of(graph: Graph, options: EapIgOptions) -> Iterator[Place]:
    """Yield where gradients are taken, the clean run first: it serves every writer."""
    if options.variant == "clean-corrupted":
        yield Place(share=1.0, weight=0.5)
        yield Place(share=0.0, weight=0.5)
        return
    if options.variant == "ensemble":
        yield from _ensemble(graph, options)
        return
    m = options.steps
    ks = range(m, 0, -1) if options.points == "right" else range(m - 1, -1, -1)
    shares = [k / m for k in ks]
    if shares[0] == 1:
        yield Place(share=1.0, weight=1 / m)
    writers = range(len(graph.writers)) if options.variant == "activations" else [None]
    for writer in writers:
        for share in shares:
            if share < 1:
                yield Place(share, 1 / m, writer)


def _ensemble(graph: Graph, options: EapIgOptions) -> Iterator[Place]:
    """Yield the places of three methods, each counting a third; the clean run once for all."""
    each = [
        [CLEAN],
        *(list(places_of(graph, replace(options, variant=name))) for name in _IN_ENSEMBLE),
    ]
    places = [replace(place, weight=place.weight / len(each)) for some in each for place in some]
    clean = [place for place in places if place.share == 1]
    yield replace(clean[0], weight=sum(place.weight for place in clean))
    yield from (place for place in places if place.share < 1)
