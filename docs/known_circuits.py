"""How well each method finds circuits that are known: the area under its ROC curve over edges."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import circuitfind as cf
from circuitfind.errors import MethodError
from circuitfind.evaluation.roc import step_area
from circuitfind.methods import METHODS
from circuitfind.methods.base import ScoringMethod, StepwiseMethod
from circuitfind.methods.search import search
from circuitfind.methods.settings import settled
from circuitfind.models.zoo import HANDMADE

N_PROMPTS = 16
THRESHOLDS = tuple(10.0**power for power in range(1, -10, -1))
REFUSING = ("eap", "hisp")

TEXT = f"""**Known circuits.** Area under the ROC curve over edges on models wired by hand and on
compiled programs (metric `l2`, {N_PROMPTS} prompts, float64), with the pessimistic steps of Conmy
et al. 2023: from a point the curve stays level until the next. Of the models wired by hand the true
circuit follows from how they are wired; in a compiled program an edge is in it if its weights
compose and the output changes when it is cut in the circuit of all edges that compose. Both depend
on the ablation. `acdc` and `hybrid` give a point per threshold, all others a point per score;
learned masks are trained for the size of the true circuit, and `hybrid` hands half of all edges on.
`exact` cuts every edge alone, so it is blind to edges that stand in for one another
(`backup-head`). Under zero ablation that model has two circuits of three edges that say all it
says, one through each head; the first head's counts as true, and `edge-pruning` finds the backup's.
`eap` and `hisp` refuse squared distance: its gradient at the clean run is zero."""


@dataclass(frozen=True)
class Known:
    """A model with a known circuit.

    Attributes:
        name: What the table calls it.
        build: Poses the question.
        truth: Says which edges are in the circuit.
    """

    name: str
    build: Callable[[], cf.IncrementalEngine]
    truth: Callable[[cf.IncrementalEngine], torch.Tensor]


def known_models(compiled: Path | None) -> Iterator[Known]:
    """Yield every model with one known circuit, those wired by hand first."""
    for name in (name for name in HANDMADE if name != "two-circuits"):
        for ablation in ("zero", "resample"):
            yield Known(f"{name}, {ablation}", _posed(name, name, ablation), _stated(ablation))
    for file in sorted(compiled.glob("*.json")) if compiled else ():
        composing = json.loads(file.read_text())["composition_edges"]
        for ablation in ("zero", "resample"):
            name = f"{file.stem} (compiled), {ablation}"
            yield Known(name, _posed(str(file), "program", ablation), _needed(composing))


def _posed(model: str, task: str, ablation: str) -> Callable[[], cf.IncrementalEngine]:
    def build() -> cf.IncrementalEngine:
        loaded = cf.load_model(model, dtype="float64")
        problem = cf.make_problem(loaded, task, n_prompts=N_PROMPTS, metric="l2", ablation=ablation)
        return cf.IncrementalEngine(problem)

    return build


def _stated(ablation: str) -> Callable[[cf.IncrementalEngine], torch.Tensor]:
    def truth(engine: cf.IncrementalEngine) -> torch.Tensor:
        return engine.graph.mask_of(engine.problem.model.sizes["truth"][ablation])

    return truth


def _needed(composing: Sequence[str]) -> Callable[[cf.IncrementalEngine], torch.Tensor]:
    """Say which edges change the output when cut among those that compose."""

    def truth(engine: cf.IncrementalEngine) -> torch.Tensor:
        whole = engine.graph.mask_of(composing)
        start = engine.readout.loss(engine.recomputed(whole))
        return engine.graph.mask_of(
            name
            for name in composing
            if engine.readout.loss(engine.recomputed(whole & ~engine.graph.mask_of([name])))
            > start + 1e-9
        )

    return truth


def areas(known: Known) -> dict[str, float | str | None]:
    """Return the size of the true circuit, and every method's area, None where it refuses."""
    engine = known.build()
    truth = known.truth(engine)
    found: dict[str, float | str | None] = {"size": f"{int(truth.sum())} of {engine.graph.n_edges}"}
    for method in METHODS:
        found[method.name] = area(engine, method.name, truth)
    return found


def area(engine: cf.IncrementalEngine, name: str, truth: torch.Tensor) -> float | None:
    """Return the pessimistic area under a method's ROC curve; None if it refuses the metric."""
    method, graph = METHODS.find(name), engine.graph
    half = {"share": 0.5} if name == "hybrid" else {}
    try:
        if isinstance(method, StepwiseMethod):
            kept = [
                search(engine, method, method.options(threshold=t, **half)).circuit.kept
                for t in THRESHOLDS
            ]
        else:
            kept = _above_each_score(_sizes_of_scores(engine, name, int(truth.sum())))
    except MethodError:
        return None
    negatives = graph.edge_mask & ~truth
    points = [
        (
            float((mask & negatives).sum() / negatives.sum()),
            float((mask & truth).sum() / truth.sum()),
        )
        for mask in kept
    ]
    return step_area(points)


def _sizes_of_scores(engine: cf.IncrementalEngine, name: str, n_edges: int) -> torch.Tensor:
    scores = scores_of(engine, name, n_edges=n_edges)
    return scores.values.abs().masked_fill(~engine.graph.edge_mask, 0)


def scores_of(engine: cf.IncrementalEngine, name: str, **options: float) -> cf.EdgeScores:
    """Return the scores of a method that ranks edges, or the effects that `exact` measures."""
    method = METHODS.find(name)
    assert isinstance(method, ScoringMethod)
    own, selection = settled(method, options)
    return method.scores(engine, method.adapted(own, selection, engine.graph))


def _above_each_score(values: torch.Tensor) -> list[torch.Tensor]:
    """Return the masks of all edges of at least each score; a score of 0 says nothing."""
    return [values >= value for value in values[values > 0].unique()]


def table_of(measured: Mapping[str, Mapping[str, float | str | None]]) -> list[list[str]]:
    """Return the areas of all models as rows of cells."""
    methods = [method.name for method in METHODS if method.name not in REFUSING]
    rows = [["model, ablation", "true edges", *methods]]
    for name, found in measured.items():
        cells = ["-" if found[method] is None else f"{found[method]:.2f}" for method in methods]
        rows.append([name, str(found["size"]), *cells])
    return rows
