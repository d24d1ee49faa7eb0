"""Compare all methods: faithfulness against size, and known circuits found; written into the docs.

    python docs/compare_methods.py [--stories DIRECTORY] [--compiled DIRECTORY]

Draws docs/images/methods.svg, a panel for ioi-small and one for stories260k where its directory is
or was given, and writes the tables between `<!-- NAME -->` and `<!-- /NAME -->` in docs/methods.md.
The compiled models, too, need their directory. Every figure is kept in docs/methods.json as soon
as it is measured, and what is there is not measured again: delete what is to be measured anew.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import learned_masks
from figures import replace_between
from known_circuits import TEXT as KNOWN_TEXT
from known_circuits import areas, known_models, scores_of, table_of

import circuitfind as cf
from circuitfind.methods import METHODS
from circuitfind.methods.learned import Learned
from circuitfind.methods.search import search
from circuitfind.methods.selection import share_of
from circuitfind.methods.settings import settled
from circuitfind.reports.canvas import Point
from circuitfind.reports.chart import Axis, Plane, Series, draw_panels

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs/methods.json"
FIGURE = ROOT / "docs/images/methods.svg"
QUESTIONS = (("ioi-small", "ioi"), ("stories260k", "pronoun"))
SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
LEARNED_SHARES = (0.05, 0.2)
"""Of which sizes masks are trained: each is a training of its own."""

THRESHOLDS = (3.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.005, 0.001)
N_PROMPTS, N_SEEDS, TABLE_SHARE = 32, 5, 0.05


def main() -> None:
    """Measure what is missing, and write everything down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stories", type=Path, help="directory of the model stories260k")
    parser.add_argument("--compiled", type=Path, help="directory of the compiled models")
    given = parser.parse_args()
    results = Results(KEPT)
    for name, value in (("stories260k", given.stories), ("the compiled models", given.compiled)):
        if value is None:
            print(f"{name}: no directory is given; only what was measured earlier is shown")
    results.need("learned", "eap-ig", learned_masks.asked)
    for name in learned_masks.LEARNED:
        for seed in learned_masks.SEEDS:
            training = lambda name=name, seed=seed: learned_masks.trained(name, seed)  # noqa: E731
            results.need("learned", f"{name} {seed}", training)
    models = {"ioi-small": ("ioi-small", "ioi")}
    if given.stories is not None:
        models["stories260k"] = (str(given.stories), "pronoun")
    for known in known_models(given.compiled):
        results.need("areas", known.name, lambda known=known: areas(known))
    write_page(results)
    for name, (model, task) in models.items():
        compare(results, name, model, task)
        write_page(results)


def write_page(results: "Results") -> None:
    """Write down what is measured whole; the rest of the page stays as it is."""
    if text := list(text_of(results)):
        replace_between("docs/methods.md", "comparison", "\n\n".join(text))
    if learned := results.values.get("learned"):
        text = f"{learned_masks.text_of(learned)}\n\n{rows_of(learned_masks.table_of(learned))}"
        replace_between("docs/methods.md", "learned", text)
    known = f"{KNOWN_TEXT}\n\n{rows_of(table_of(results.values['areas']))}"
    replace_between("docs/methods.md", "known-circuits", known)


class Results:
    """What was measured, by kind and name, written down as soon as it is known."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.values = json.loads(file.read_text()) if file.exists() else {}

    def need(self, kind: str, name: str, measure: Callable[[], object]) -> None:
        """Measure something unless that was done earlier."""
        if name in self.values.setdefault(kind, {}):
            return
        print(f"measuring {kind}: {name}", flush=True)
        self.values[kind][name] = measure()
        self._file.write_text(json.dumps(self.values, indent=1) + "\n")

    def curves(self, model: str) -> dict[str, list[Point]]:
        """Return all methods' points of a model."""
        points = self.values.get("points", {})
        found = {method.name: points.get(f"{model} {method.name}") for method in METHODS}
        return {name: [(x, y) for x, y in each] for name, each in found.items() if each}


def text_of(results: Results) -> Iterator[str]:
    """Draw the figure, and yield what the page says of it."""
    whole = {
        (name, task): curves
        for name, task in QUESTIONS
        if len(curves := results.curves(name)) == len(METHODS)
    }
    if whole:
        FIGURE.write_text(drawn(whole))
        yield figure_text(whole)
        yield table_of_sizes(whole)


# --------------------------------------------------------------- faithfulness against size


def compare(results: Results, name: str, model_name: str, task: str) -> None:
    """Measure each method's circuits: shares of edges left, and faithfulness by KL divergence."""
    model = cf.load_model(model_name)
    comparison = Comparison(
        *(
            cf.IncrementalEngine(cf.make_problem(model, task, n_prompts=N_PROMPTS, metric=metric))
            for metric in ("kl", "logit-difference")
        )
    )
    for method in METHODS:
        points = lambda method=method: sorted(comparison.points(method.name))  # noqa: E731
        results.need("points", f"{name} {method.name}", points)


@dataclass(frozen=True)
class Comparison:
    """One question, by KL divergence and by logit difference for methods that refuse the first."""

    kl: cf.IncrementalEngine
    margin: cf.IncrementalEngine

    def points(self, name: str) -> Iterable[Point]:
        """Return a method's circuits of many sizes."""
        method = METHODS.find(name)
        if name in ("acdc", "hybrid"):
            for threshold in THRESHOLDS:
                yield self._point(
                    search(self.kl, method, *settled(method, {"threshold": threshold}))
                )
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
        method = METHODS.find(name)
        n_edges = round(share * self.kl.graph.n_edges)
        return self._point(
            search(self.kl, method, *settled(method, {"n_edges": n_edges, **options}))
        )

    def _point(self, found: cf.Found) -> Point:
        return self._measured(found.circuit)

    def _measured(self, circuit: cf.Circuit) -> Point:
        return circuit.n_edges / self.kl.graph.n_edges, share_of(self.kl, circuit)


def figure_text(questions: Iterable[tuple[str, str]]) -> str:
    """Return the figure with its caption."""
    asked = " and ".join(f"`{name}`, task `{task}`" for name, task in questions)
    return f"""![Faithfulness against size of all methods](images/{FIGURE.name})

{asked}; {N_PROMPTS} prompts, resample ablation: faithfulness by KL divergence over
the share of edges that are left when dead ends are removed. All methods are given KL divergence,
`eap` and `hisp` the logit difference. `acdc` and `hybrid` are run with several thresholds, learned
masks are trained for each size, `random` is the mean of {N_SEEDS} seeds. The best faithfulness of
circuits of at most {TABLE_SHARE:.0%} of the edges:"""


def table_of_sizes(models: Mapping[tuple[str, str], Mapping[str, Sequence[Point]]]) -> str:
    """Return the best faithfulness of each method at one size, a row of Markdown for each model."""
    rows = [["", *(method.name for method in METHODS)]]
    for (name, _), curves in models.items():
        best = [
            max((share for size, share in points if round(size, 3) <= TABLE_SHARE), default=None)
            for points in curves.values()
        ]
        rows.append([f"`{name}`", *("-" if b is None else f"{b + 0.0:.2f}" for b in best)])
    return rows_of(rows)


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


def drawn(models: Mapping[tuple[str, str], Mapping[str, Sequence[Point]]]) -> str:
    """Return the figure: a panel for each model, a line and a dot per circuit for each method."""
    sizes = [x for curves in models.values() for points in curves.values() for x, _ in points]
    smallest = min(size for size in sizes if size > 0)
    ticks = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    return draw_panels(
        "Faithfulness against size",
        Axis("edges left", smallest, 1.0, (0.001, 0.01, 0.1, 1.0), logarithmic=True, percent=True),
        Axis("faithfulness (KL)", -0.1, 1.1, ticks),
        [
            Plane(
                tuple(
                    Series(name, tuple(point for point in points if point[0] > 0), COLOURS[name])
                    for name, points in curves.items()
                ),
                f"{model}, {task}",
            )
            for (model, task), curves in models.items()
        ],
    ).svg()


def rows_of(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


if __name__ == "__main__":
    main()
