"""Write the matrices of docs/dissociation.md: circuits of five tasks knocked out of one model.

    python docs/dissociation.py [PART ...] [--runs DIRECTORY]

The parts are `gpt-4l`, and `smollm2`, which needs `circuitfind models get smollm2`; by default the
first alone. Text between markers such as `<!-- PART-circuits -->` is replaced. Runs are kept in a
directory, where an interrupted one is taken up and a finished one is read.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import and_
from pathlib import Path

from figures import ROOT, replace_between
from smollm2 import EAP_IG, circuitfind, ran, table

import circuitfind as cf
from circuitfind.directories.work import read_config
from circuitfind.evaluation.dissociation import Dissociation, Effect
from circuitfind.question import Models
from circuitfind.verbs.dissociate import DissociationConfig, dissociate_runs

PAGE = "docs/dissociation.md"
TASKS = {
    "gpt-4l": ("ioi", "greater-than", "docstring", "induction", "successor"),
    "smollm2": ("ioi", "pronoun", "capitals", "docstring", "greater-than"),
}
DRAWS = {"gpt-4l": 20, "smollm2": 5}
OTHERS = ("pronoun", "agreement", "capitals", "arithmetic")
"""What the small model has read beside the five tasks: the unrelated text is of these."""


def main() -> None:
    """Search, knock out, and write down what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["gpt-4l"], help="by default gpt-4l")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are")
    given = parser.parse_args()
    for part in given.parts:
        searches = {"gpt-4l": of_the_zoo, "smollm2": of_smollm2}[part]
        folder = given.runs / part
        folder.mkdir(parents=True, exist_ok=True)
        runs, text = searches(folder)
        for name, own in (("circuits", False), ("own-edges", True)):
            settings = DissociationConfig(str(text), own, DRAWS[part])
            out = folder / f"dissociation-{name}"
            found = dissociate_runs(runs, settings, out, tell=print).dissociation
            picture = f"images/dissociation-{part}-{name}.svg"
            shutil.copy(out / "dissociation.svg", ROOT / "docs" / picture)
            shown = f"![Effects of knocking circuits of {part} out]({picture})"
            text_of = "\n\n".join((matrix(found), shown, pairs(found)))
            replace_between(PAGE, f"{part}-{name}", text_of)
        replace_between(PAGE, f"{part}-core", core(runs))


def of_the_zoo(folder: Path) -> tuple[Sequence[Path], Path]:
    """Search gpt-4l for the circuits of five tasks, and write text of its other tasks."""
    runs = [folder / task for task in TASKS["gpt-4l"]]
    for run in runs:
        circuitfind("discover", run.name, "--model", "gpt-4l", "--out", run)
    text, model = folder / "other-tasks.txt", cf.load_model("gpt-4l")
    lines = [line for task in OTHERS for line in lines_of(model, task)]
    text.write_text("\n".join(lines) + "\n")
    return runs, text


def lines_of(model: object, task: str) -> list[str]:
    """Return 16 prompts of a task with their right answers."""
    prompts = cf.make_problem(model, task, n_prompts=16, seed=1).prompts
    rows = zip(prompts.clean, prompts.lengths, prompts.answers, strict=True)
    tokens = [[*clean[:length].tolist(), int(right[0, 0])] for clean, length, right in rows]
    return [model.vocabulary.decode(each) for each in tokens]


def of_smollm2(folder: Path) -> tuple[Sequence[Path], Path]:
    """Search SmolLM2 for the circuits of five tasks; the text is a page of this documentation."""
    runs = [ran(folder, f"{task} {EAP_IG}") for task in TASKS["smollm2"]]
    return runs, ROOT / "docs/how-it-works.md"


def core(runs: Sequence[Path]) -> str:
    """Return what cutting the edges that all circuits have does to each task."""
    circuits = [cf.load_circuit(run / "circuit.json") for run in runs]
    shared = reduce(and_, (circuit.kept for circuit in circuits))
    both = replace(circuits[0], kept=shared)
    configs = [read_config(cf.RunConfig, run) for run in runs]
    models = Models()
    problems = [config.held_out(models.of(config)) for config in configs]
    tasks = {each.task: (problem, both) for each, problem in zip(configs, problems, strict=True)}
    found = cf.dissociation(tasks, draws=20)
    first = found.circuits[0].name
    rows = [[f"all of them ({both.n_edges} edges)", *(cell(found.of(first, on)) for on in tasks)]]
    named = ", ".join(f"`{edge.name}`" for edge in both.edges)
    heading = ("edges cut that are in", *(f"effect on {on}" for on in tasks))
    return f"{table(heading, rows)}\n\nThey are {named}."


def matrix(found: Dissociation) -> str:
    """Return the effects as a table."""
    names = [column.name for column in found.columns]
    rows = [
        (f"{each.name} ({each.n_edges} edges)", *(cell(found.of(each.name, on)) for on in names))
        for each in found.circuits
    ]
    return table(("edges cut of", *(f"effect on {name}" for name in names)), rows)


def cell(each: Effect) -> str:
    """Return an effect with its interval and that of random circuits."""
    ends = "" if each.low is None else f" ({each.low:.3f} to {each.high:.3f})"
    return f"**{each.effect:.3f}**{ends}; {each.random:.2f}"


def pairs(found: Dissociation) -> str:
    """Return the tests of each two circuits as a table."""
    rows = []
    for pair in found.pairs:
        differences = [
            f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for each in pair.differences
        ]
        rows.append((" and ".join(pair.circuits), str(pair.n_shared), *differences, pair.verdict))
    heading = ("circuits", "edges in both", "first: own - other", "second: own - other", "verdict")
    return table(heading, rows)


if __name__ == "__main__":
    main()
