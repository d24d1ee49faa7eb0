"""Compare all methods: faithfulness against size, and known circuits found; written into the docs.

    python docs/compare_methods.py [--stories DIRECTORY] [--compiled DIRECTORY]

Draws docs/images/methods-MODEL.svg for ioi-small, and for stories260k where its directory is given,
and writes the tables between `<!-- comparison -->` and `<!-- /comparison -->` in docs/methods.md.
The table of known circuits needs the directory of the compiled models.
"""

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from figures import replace_between

import circuitfind as cf
from circuitfind.errors import MethodError
from circuitfind.evaluation.roc import step_area
from circuitfind.methods import METHODS, find_method
from circuitfind.methods.exact import effects
from circuitfind.methods.learned import Learned
from circuitfind.methods.scored import Scored
from circuitfind.methods.search import search
from circuitfind.methods.selection import share_of
from circuitfind.reports.line_chart import Axis, Point, Series, draw_lines

ROOT = Path(__file__).parents[1]
SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
LEARNED_SHARES = (0.05, 0.2)
"""Of which sizes masks are trained: each is a training of its own."""

THRESHOLDS = (3.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.005, 0.001)
ROC_THRESHOLDS = tuple(10.0**power for power in range(1, -10, -1))
N_PROMPTS, N_SEEDS, TABLE_SHARE = 32, 5, 0.05


def main() -> None:
    """Run everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=Path, help="directory of the model stories260k")
    parser.add_argument("--compiled", type=Path, help="directory of the compiled models")
    given = parser.parse_args()
    models = {"ioi-small": ("ioi-small", "ioi")}
    if given.stories is not None:
        models["stories260k"] = (str(given.stories), "pronoun")
    text = []
    for name, (model, task) in models.items():
        curves = compared(model, task)
        (ROOT / f"docs/images/methods-{name}.svg").write_text(drawn(curves, f"{name}, {task}"))
        text += [figure_text(name, task), table_of_sizes(curves)]
    if given.compiled is not None:
        text += [ROC_TEXT, table_of_circuits(sorted(given.compiled.glob("*.json")))]
    replace_between("docs/methods.md", "comparison", "\n\n".join(text))


# --------------------------------------------------------------- faithfulness against size


def compared(model_name: str, task: str) -> dict[str, list[Point]]:
    """Return each method's circuits as shares of edges left and faithfulness by KL divergence."""
    model = cf.load_model(model_name)
    comparison = Comparison(
        cf.IncrementalEngine(cf.make_problem(model, task, n_prompts=N_PROMPTS, metric="kl")),
        cf.IncrementalEngine(
            cf.make_problem(model, task, n_prompts=N_PROMPTS, metric="logit-difference")
        ),
    )
    return {method.name: sorted(comparison.points(method.name)) for method in METHODS}


@dataclass(frozen=True)
class Comparison:
    """One question, by KL divergence and by logit difference for methods that refuse the first."""

    kl: cf.IncrementalEngine
    margin: cf.IncrementalEngine

    def points(self, name: str) -> Iterable[Point]:
        """Return a method's circuits of many sizes."""
        method = find_method(name)
        if name in ("acdc", "hybrid"):
            for threshold in THRESHOLDS:
                yield self._point(search(self.kl, method, method.options(threshold=threshold)))
        elif name == "random":
            for share in SHARES:
                runs = [self._of(name, share, seed=seed) for seed in range(N_SEEDS)]
                yield tuple(sum(values) / N_SEEDS for values in zip(*runs, strict=True))
        elif isinstance(method, Learned):
            yield from (self._of(name, share) for share in LEARNED_SHARES)
        else:
            yield from self._ranked(name)

    def _ranked(self, name: str) -> Iterable[Point]:
        """Return circuits of the highest scores, which are computed once."""
        engine = self.margin if name in ("eap", "hisp") else self.kl
        scores = scores_of(engine, name, n_edges=0)
        for share in SHARES:
            n_edges = round(share * engine.graph.n_edges)
            yield self._measured(scores.top(n_edges).connected())

    def _of(self, name: str, share: float, **options: int) -> Point:
        method = find_method(name)
        n_edges = round(share * self.kl.graph.n_edges)
        return self._point(search(self.kl, method, method.options(n_edges=n_edges, **options)))

    def _point(self, found: cf.Found) -> Point:
        return self._measured(found.circuit)

    def _measured(self, circuit: cf.Circuit) -> Point:
        return circuit.n_edges / self.kl.graph.n_edges, share_of(self.kl, circuit)


def figure_text(name: str, task: str) -> str:
    """Return the figure with its caption."""
    return f"""![Faithfulness against size on {name}](images/methods-{name}.svg)

`{name}`, task `{task}`, {N_PROMPTS} prompts, resample ablation: faithfulness by KL divergence over
the share of edges that are left when dead ends are removed. All methods are given KL divergence,
`eap` and `hisp` the logit difference. `acdc` and `hybrid` are run with several thresholds, learned
masks are trained for each size, `random` is the mean of {N_SEEDS} seeds. The best faithfulness of
circuits of at most {TABLE_SHARE:.0%} of the edges:"""


def table_of_sizes(curves: Mapping[str, Sequence[Point]]) -> str:
    """Return the best faithfulness of each method at one size as a row of Markdown."""
    best = {
        name: max(
            (share for size, share in points if round(size, 3) <= TABLE_SHARE), default=math.nan
        )
        for name, points in curves.items()
    }
    cells = ["-" if math.isnan(value) else f"{value + 0.0:.2f}" for value in best.values()]
    return rows_of([list(best), cells])


COLOURS = {
    "acdc": "#000000",
    "exact": "#7f7f7f",
    "eap": "#ff7f0e",
    "eap-ig": "#d62728",
    "hisp": "#8c564b",
    "information-flow": "#bcbd22",
    "subnetwork-probing": "#9467bd",
    "edge-pruning": "#1f77b4",
    "hybrid": "#2ca02c",
    "random": "#c7c7c7",
}


def drawn(curves: Mapping[str, Sequence[Point]], title: str) -> str:
    """Return the figure: a line and a dot per circuit for each method."""
    smallest = min(size for points in curves.values() for size, _ in points if size > 0)
    ticks = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    return draw_lines(
        f"Faithfulness against size: {title}",
        Axis("edges left", smallest, 1.0, (0.001, 0.01, 0.1, 1.0), logarithmic=True, percent=True),
        Axis("faithfulness (KL)", -0.1, 1.1, ticks),
        [
            Series(name, tuple(point for point in points if point[0] > 0), COLOURS[name])
            for name, points in curves.items()
        ],
    )


# --------------------------------------------------------------- known circuits

ROC_TEXT = """**Known circuits.** Area under the ROC curve over edges on compiled programs (metric
`l2`, 32 prompts), with the pessimistic steps of Conmy et al. 2023: from a point the curve stays
level until the next. An edge is in the true circuit if its weights compose and the program's output
changes when it is cut in the circuit of all edges that compose, which depends on the ablation.
`acdc` and `hybrid` give a point per threshold, all others a point per score; learned masks are
trained for the size of the true circuit, and `hybrid` hands half of all edges on. `eap` and `hisp`
refuse squared distance, whose gradient at the clean run is zero."""


def table_of_circuits(files: Sequence[Path]) -> str:
    """Return the area of every method on every program as a table of Markdown."""
    header = ["method"]
    columns = []
    for file in files:
        for ablation in ("zero", "resample"):
            engine = cf.IncrementalEngine(
                cf.make_problem(
                    cf.load_model(file, dtype="float64"), "program", n_prompts=32, ablation=ablation
                )
            )
            truth = true_circuit(engine, json.loads(file.read_text())["composition_edges"])
            n_edges = engine.graph.n_edges
            header.append(f"{file.stem}, {ablation} ({int(truth.sum())} of {n_edges})")
            columns.append([area(engine, method.name, truth) for method in METHODS])
    rows = [
        [method.name, *("refused" if c[i] is None else f"{c[i]:.2f}" for c in columns)]
        for i, method in enumerate(METHODS)
    ]
    return rows_of([header, *rows])


def true_circuit(engine: cf.IncrementalEngine, composing: Sequence[str]) -> torch.Tensor:
    """Return the edges that change the program's output when cut among those that compose."""
    whole = engine.graph.mask_of(composing)
    start = engine.readout.loss(engine.recomputed(whole))
    return engine.graph.mask_of(
        name
        for name in composing
        if engine.readout.loss(engine.recomputed(whole & ~engine.graph.mask_of([name]))) - start
        > 1e-9
    )


def area(engine: cf.IncrementalEngine, name: str, truth: torch.Tensor) -> float | None:
    """Return the pessimistic area under a method's ROC curve; None if it refuses the metric."""
    method, graph = find_method(name), engine.graph
    half = {"share": 0.5} if name == "hybrid" else {}
    try:
        if name in ("acdc", "hybrid"):
            kept = [
                search(engine, method, method.options(threshold=t, **half)).circuit.kept
                for t in ROC_THRESHOLDS
            ]
        else:
            kept = above_each_score(values_of(engine, name, int(truth.sum())))
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


def values_of(engine: cf.IncrementalEngine, name: str, n_edges: int) -> torch.Tensor:
    """Return the size of every edge's score."""
    scores = scores_of(engine, name, n_edges=n_edges)
    return scores.values.abs().masked_fill(~engine.graph.edge_mask, 0)


def scores_of(engine: cf.IncrementalEngine, name: str, **options: float) -> cf.EdgeScores:
    """Return the scores of a method that ranks edges, or the effects that `exact` measures."""
    method = find_method(name)
    if isinstance(method, Scored):
        return method.scores(engine, method.options(**options))
    found = search(engine, method, method.options(**options))
    return effects(found.circuit, engine.problem.metric.unit)


def above_each_score(values: torch.Tensor) -> list[torch.Tensor]:
    """Return the masks of all edges of at least each score; a score of 0 says nothing."""
    return [values >= value for value in values[values > 0].unique()]


def rows_of(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


if __name__ == "__main__":
    main()
