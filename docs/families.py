"""Write the figures of docs/families.md: families of IOI prompts in several models.

    python docs/families.py [PART ...] [--runs DIRECTORY]

The parts are `gpt-4l`, `ioi-small`, `smollm2`, which needs `circuitfind models get smollm2`,
`mixtures` and `shapes`; by default all. Text between markers is replaced. Runs are kept in a
directory, where an interrupted one is taken up and a finished one is read; the table has rows for
each model that has one there.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from figures import ROOT, replace_between
from smollm2 import circuitfind, table

import circuitfind as cf
from circuitfind.comparison.clusters import one_cluster_test, scaled
from circuitfind.comparison.families import Families
from circuitfind.directories.families import FamiliesConfig
from circuitfind.tasks import find_task

PAGE = "docs/families.md"
MODELS = {
    "gpt-4l": "",
    "ioi-small": "--threshold 0.05",
    "smollm2": "--method eap-ig --target-faithfulness 0.8",
}
MIXTURES = (("successor", "agreement"), ("ioi", "induction"), ("ioi", "greater-than"))
EACH = 32
"""Prompts of each task of a mixture."""

REPETITIONS, SIZES, EDGES = 2000, (16, 32, 64), 100


def main() -> None:
    """Search, look for families, and write down what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {"mixtures": mixtures, "shapes": shapes}
    parser.add_argument("parts", nargs="*", default=[*MODELS, *parts], help="by default all")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are")
    given = parser.parse_args()
    for name in set(MODELS) & set(given.parts):
        searched(name, given.runs)
    rows = [row for name in MODELS for row in of_model(name, given.runs)]
    headings = ("model", "cluster index", "p", "p, flat", "families", "prompts", "silhouette",
                "best attribute", "ARI, order", "ARI, wording")  # fmt: skip
    replace_between(PAGE, "models", table(headings, rows))
    for part in set(parts) & set(given.parts):
        replace_between(PAGE, part, parts[part]())


def searched(name: str, folder: Path) -> None:
    """Search a model for the circuit of IOI, unless that is done."""
    run = folder / f"families-{name}"
    if not (run / "circuit.json").is_file():
        circuitfind("discover", "ioi", "--model", name, *MODELS[name].split(), "--out", run)


def of_model(name: str, folder: Path) -> list[tuple[str, ...]]:
    """Return the rows of a model: what the test decides, and two families on demand."""
    run, rows = folder / f"families-{name}", []
    if not (run / "circuit.json").is_file():
        return []
    for wanted in (None, 2):
        if rows and len(rows[0][5].split()) > 1:
            break
        out = folder / f"families-{name}-{wanted}"
        found = cf.find_families(run, FamiliesConfig(families=wanted), out, tell=print).families
        rows.append(row_of(name, found))
        if name == "gpt-4l" and wanted is None:
            printed = circuitfind("families", run, "--out", out).splitlines()
            shown = [
                line.rstrip() for line in printed if not line.startswith((str(out), "seconds"))
            ]
            replace_between(PAGE, "printed", "\n".join(("```", *shown, "```")))
            shutil.copy(out / "faithfulness.svg", ROOT / "docs/images/families-gpt-4l.svg")
    return rows


def row_of(name: str, found: Families) -> tuple[str, ...]:
    """Return the families of a model's prompts as a row."""
    best = found.explanation
    indices = [
        "-" if (each := found.attribute(which)) is None else f"{each.adjusted_rand:.2f}"
        for which in ("order", "wording")
    ]
    return (
        f"`{name}`",
        f"{found.index:.3f}",
        f"{found.p_value:.2g}",
        f"{found.flat_p_value:.2g}",
        str(len(found.families)),
        " + ".join(str(len(each.prompts)) for each in found.families),
        "-" if found.silhouette is None else f"{found.silhouette:.2f}",
        "-" if best is None else f"{best.name}: {best.share:.0%}, p {best.p_value:.2g}",
        *indices,
    )


def mixtures() -> str:
    """Split mixtures of two tasks of gpt-4l again."""
    model, rows = cf.load_model("gpt-4l"), []
    for tasks in MIXTURES:
        pairs = [
            replace(pair, positions={}, template=number)
            for number, task in enumerate(tasks)
            for pair in find_task(task).write(model.vocabulary, EACH, 0)
        ]
        problem = cf.make_problem(model, cf.collate(pairs), metric="kl")
        found = cf.families(cf.discover(problem, "eap-ig", n_edges=40))
        by_task = found.attribute("template")
        rows.append(
            (
                " and ".join(f"`{task}`" for task in tasks),
                f"{found.index:.3f}",
                f"{found.p_value:.2g}",
                " + ".join(str(len(each.prompts)) for each in found.families),
                "-" if by_task is None else f"{by_task.share:.2f}",
                "-" if by_task is None else f"{by_task.adjusted_rand:.2f}",
            )
        )
    headings = ("tasks", "cluster index", "p", "families", "explained by task", "ARI, task")
    return table(headings, rows)


def shapes() -> str:
    """Count how often one cluster is ruled out where there is one, by its shape."""
    kinds = {
        "Gaussian": lambda draw, size: draw.standard_normal(size),
        "heavy tails (Student's t, 3 degrees of freedom)": lambda draw, size: draw.standard_t(
            3, size
        ),
        "skewed (exponential)": lambda draw, size: draw.exponential(size=size),
        "flat (uniform)": lambda draw, size: draw.uniform(-1, 1, size),
    }
    rows = []
    for name, kind in kinds.items():
        rates = [rate(kind, n) for n in SIZES]
        rows.append((name, *(f"{one:.1%}, {flat:.1%}" for one, flat in rates)))
    return table(("shape of the one cluster", *(f"{n} prompts" for n in SIZES)), rows)


def rate(kind: object, n: int) -> tuple[float, float]:
    """Return how often each p is below 0.05 for clusters of a shape."""
    found = []
    for seed in range(REPETITIONS):
        draw = np.random.default_rng(seed)
        mixed = draw.standard_normal((EDGES, EDGES)) * np.exp(-np.arange(EDGES) / 5)[:, None]
        scores = 10 * draw.standard_normal(EDGES) + kind(draw, (n, EDGES)) @ mixed
        tested = one_cluster_test(scaled(scores), seed, draws=999)
        found.append((tested.p_value < 0.05, tested.flat_p_value < 0.05))
    one, flat = np.mean(found, axis=0)
    return float(one), float(flat)


if __name__ == "__main__":
    main()
