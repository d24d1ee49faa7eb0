"""Write the matrices of docs/dissociation.md: circuits of five tasks knocked out of one model.

    python docs/dissociation.py [MODEL ...] [--runs DIRECTORY]

SmolLM2 (`circuitfind models get smollm2`) takes an hour or two, the small model some minutes.
Text between markers such as `<!-- gpt-4l-circuits -->` is replaced. Runs are kept in a directory,
where an interrupted one is taken up and a finished one is read.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from pathlib import Path

from figures import ROOT, replace_between
from smollm2 import circuitfind, table

import circuitfind as cf
from circuitfind.directories.work import read_config
from circuitfind.evaluation.dissociation import Dissociation, Effect
from circuitfind.question import Models
from circuitfind.verbs.dissociate import DissociationConfig, dissociate_runs

PAGE = "docs/dissociation.md"
DRAWS = 20


@dataclass(frozen=True)
class Set:
    """Circuits that are knocked out of one model.

    Attributes:
        tasks: What they were searched for.
        options: Of each search, beside the task and the model.
        text: A file of unrelated text; None for prompts of `OTHERS`.
    """

    tasks: Sequence[str]
    options: Sequence[str] = ()
    text: Path | None = None


SETS = {
    "gpt-4l": Set(("ioi", "greater-than", "docstring", "induction", "successor")),
    "smollm2": Set(
        ("ioi", "pronoun", "docstring", "capitals", "greater-than"),
        ("--prompts", "16", "--method", "eap-ig", "--target-faithfulness", "0.8"),
        ROOT / "examples/text.txt",
    ),
}
OTHERS = ("pronoun", "agreement", "capitals", "arithmetic")
"""What the small model has read beside its five tasks: its unrelated text is of these."""


def main() -> None:
    """Search, knock out, and write down what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(SETS), help="by default all")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are")
    given = parser.parse_args()
    for model in given.models:
        write_down(model, given.runs / model)


def write_down(model: str, folder: Path) -> None:
    """Write both matrices of a model, and what the edges do that all circuits have."""
    folder.mkdir(parents=True, exist_ok=True)
    runs, text = searches(model, folder)
    for name, own in (("circuits", False), ("own-edges", True)):
        settings = DissociationConfig(str(text), own, DRAWS)
        out = folder / f"dissociation-{name}"
        found = dissociate_runs(runs, settings, out, tell=print).dissociation
        picture = f"images/dissociation-{model}-{name}.svg"
        shutil.copy(out / "dissociation.svg", ROOT / "docs" / picture)
        shown = f"![Effects of knocking circuits of {model} out]({picture})"
        replace_between(PAGE, f"{model}-{name}", "\n\n".join((matrix(found), shown, pairs(found))))
    replace_between(PAGE, f"{model}-core", core(runs))


def searches(name: str, folder: Path) -> tuple[Sequence[Path], Path]:
    """Search the model for the circuits of its tasks; return the runs and unrelated text."""
    asked = SETS[name]
    runs = [folder / task for task in asked.tasks]
    for run in runs:
        circuitfind("discover", run.name, "--model", name, *asked.options, "--out", run)
    if asked.text is not None:
        return runs, asked.text
    text, model = folder / "other-tasks.txt", cf.load_model(name)
    lines = [line for task in OTHERS for line in lines_of(model, task)]
    text.write_text("\n".join(lines) + "\n")
    return runs, text


def lines_of(model: object, task: str) -> list[str]:
    """Return 16 prompts of a task with their right answers."""
    prompts = cf.make_problem(model, task, n_prompts=16, seed=1).prompts
    rows = zip(prompts.clean, prompts.lengths, prompts.answers, strict=True)
    tokens = [[*clean[:length].tolist(), int(right[0, 0])] for clean, length, right in rows]
    return [model.vocabulary.decode(each) for each in tokens]


def core(runs: Sequence[Path]) -> str:
    """Return what cutting the edges that all circuits have does to each task."""
    circuits = [cf.load_circuit(run / "circuit.json") for run in runs]
    shared = reduce(and_, (circuit.kept for circuit in circuits))
    both = replace(circuits[0], kept=shared)
    configs = [read_config(cf.RunConfig, run) for run in runs]
    models = Models()
    problems = [config.held_out(models.of(config)) for config in configs]
    tasks = {each.task: (problem, both) for each, problem in zip(configs, problems, strict=True)}
    found = cf.dissociation(tasks, draws=DRAWS)
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
