"""Write the figures of docs/families.md: families of IOI prompts in several models.

    python docs/families.py [PART ...] [--runs DIRECTORY]

The parts are `gpt-4l`, `ioi-small`, `smollm2`, which needs `circuitfind models get smollm2`,
`mixtures` and `shapes`; by default all. Text between markers is replaced. Runs are kept in a
directory, where an interrupted one is taken up and a finished one is read; the table has rows for
each model that has one there.
"""

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from figures import ROOT, replace_between
from smollm2 import circuitfind, table

import circuitfind as cf
from circuitfind.comparison.clusters import one_cluster_test
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

REPETITIONS, DRAWS, SIZES, EDGES, TEMPLATES = 200, 39, (16, 32), 100, 16


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
    headings = ("model", "cluster index", "p", "p, Gaussian", "families", "prompts", "silhouette",
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
        if name == "gpt-4l":
            _show(run, out, wanted)
    return rows


def _show(run: Path, out: Path, wanted: int | None) -> None:
    """Put what the command prints into the page, and the drawing of two families."""
    words = () if wanted is None else ("--families", wanted)
    printed = circuitfind("families", run, *words, "--out", out).splitlines()
    shown = [line.rstrip() for line in printed if not line.startswith((str(out), "seconds"))]
    part = "printed" if wanted is None else "printed-two"
    replace_between(PAGE, part, "\n".join(("```", *shown, "```")))
    if wanted is not None:
        shutil.copy(out / "faithfulness.svg", ROOT / "docs/images/families-gpt-4l.svg")


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
        f"{found.gaussian_p_value:.2g}",
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
                "-" if by_task is None else _counts(tasks, by_task.counts),
                "-" if by_task is None else f"{by_task.share:.2f}",
                "-" if by_task is None else f"{by_task.adjusted_rand:.2f}",
            )
        )
    headings = ("tasks", "cluster index", "p", "families", "prompts of each task in each",
                "explained by task", "ARI, task")  # fmt: skip
    return table(headings, rows)


def _counts(tasks: tuple[str, ...], counts: tuple[tuple[int, ...], ...]) -> str:
    return "; ".join(
        f"{task} {' + '.join(map(str, row))}" for task, row in zip(tasks, counts, strict=True)
    )


def shapes() -> str:
    """Count how often one cluster is ruled out, by its shape, and where there are two."""
    normal, heavy = np.random.Generator.standard_normal, partial(_student, 3)
    flat, skewed = (
        partial(np.random.Generator.uniform, low=-1, high=1),
        np.random.Generator.exponential,
    )
    kinds = {
        "Gaussian, mean 0": Shape(normal, mean=0),
        "Gaussian, mean 1": Shape(normal, mean=1),
        "Gaussian, mean 2": Shape(normal, mean=2),
        "Gaussian, mean 10": Shape(normal),
        "Gaussian, few directions, mean 0": Shape(normal, mean=0, decay=0.7),
        "Gaussian, few directions, mean 10": Shape(normal, decay=0.7),
        "Gaussian, prompts of different strength": Shape(normal, strength=1),
        "heavy tails (Student's t, 3 degrees of freedom)": Shape(heavy),
        "skewed (exponential)": Shape(skewed),
        "flat (uniform)": Shape(flat),
        "16 templates that differ, prompts of one nearly equal": Shape(normal, within=0.1),
        "16 templates that differ, prompts of one half as much": Shape(normal, within=0.5),
        "**two clusters**": Shape(normal, apart=2),
        "**two clusters, prompts of different strength**": Shape(normal, apart=2, strength=1),
        "**two clusters of templates**": Shape(normal, apart=2, within=0.5),
    }
    rows = [(name, *(_rates(kind, n) for n in SIZES)) for name, kind in kinds.items()]
    return table(("shape of the one cluster", *(f"{n} prompts" for n in SIZES)), rows)


@dataclass(frozen=True)
class Shape:
    """How made-up scores vary.

    Attributes:
        kind: Draws numbers.
        mean: Size of the mean, in units of the largest component's spread.
        decay: Every so many components the spread falls by a factor of e.
        strength: Spread of the logarithm of each prompt's strength.
        within: Spread within templates; None where prompts are independent.
        apart: How far apart two clusters are, in units of the root mean square distance from the
            centre.
    """

    kind: Callable[..., np.ndarray]
    mean: float = 10.0
    decay: float = 5.0
    strength: float = 0.0
    within: float | None = None
    apart: float = 0.0

    def draw(self, draw: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scores, and the unit of each prompt."""
        mixed = self._mixed(draw)
        units = np.arange(n) % (n if self.within is None else TEMPLATES)
        values = self.kind(draw, size=(units.max() + 1, EDGES)) @ mixed
        offset = draw.standard_normal(EDGES) @ mixed
        offset *= self.apart * np.linalg.norm(mixed) / np.linalg.norm(offset)
        scores = self.mean * draw.standard_normal(EDGES) + values[units]
        scores += (units % 2)[:, None] * offset
        if self.within is not None:
            scores += self.within * self.kind(draw, size=(n, EDGES)) @ self._mixed(draw)
        return scores * draw.lognormal(sigma=self.strength, size=(n, 1)), units

    def _mixed(self, draw: np.random.Generator) -> np.ndarray:
        sizes = np.exp(-np.arange(EDGES) / self.decay)
        return draw.standard_normal((EDGES, EDGES)) * sizes[:, None]


def _student(freedom: int, draw: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    return draw.standard_t(freedom, size)


def _rates(shape: Shape, n: int) -> str:
    """Return how often p, and that of a Gaussian, is at most 0.05."""
    if shape.within is not None and n <= TEMPLATES:
        return "-"
    found = []
    for seed in range(REPETITIONS):
        tested = one_cluster_test(*shape.draw(np.random.default_rng(seed), n), seed, DRAWS)
        found.append((tested.p_value <= 0.05, tested.gaussian_p_value <= 0.05))
    both, one = np.mean(found, axis=0)
    return f"{both:.1%}, {one:.1%}"


if __name__ == "__main__":
    main()
