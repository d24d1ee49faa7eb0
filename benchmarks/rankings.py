"""Rankings of edges by MIB's protocol, on prompts that they were not made of.

    python -m benchmarks.rankings [--stories DIRECTORY] [--methods NAME ...] [--write]

Each method scores the edges on 64 pairs of prompts of one seed, by logit difference; CPR, CMD and
acc-AUC are measured on 64 pairs of another seed. Three seeds: the mean, and the lowest and highest
value. Time is processor time of the scoring on one thread. stories260k is measured where its
directory is given. `--write` puts the table into docs/methods.md.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import circuitfind as cf
from benchmarks.page import write_block
from circuitfind.evaluation.mib import MibResult, MibScores, mib, mib_problem
from circuitfind.methods import METHODS
from circuitfind.methods.base import ScoringMethod
from circuitfind.problem import Problem

CELLS = (("ioi-small", "ioi"), ("gpt-4l", "ioi"), ("llama-4l", "ioi"))
N_PROMPTS, SEEDS = 64, (0, 1, 2)
HELD_OUT = 1000
"""Added to a seed, that of the prompts on which its rankings are measured."""

ASKED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "random": ("random", {}),
    "eap": ("eap", {}),
    "eap-ig": ("eap-ig", {}),
    "eap-ig, 10 resamples": ("eap-ig", {"resamples": 10}),
    "exact": ("exact", {}),
    "edge-pruning": ("edge-pruning", {}),
    "ugs": ("ugs", {}),
    "mattr, log": ("mattr", {"schedule": "log"}),
    "mattr, uniform": ("mattr", {"schedule": "uniform"}),
}
FIGURES: Mapping[str, Callable[[MibResult], float | None]] = {
    "CPR": lambda found: found.cpr,
    "CMD": lambda found: found.cmd,
    "acc-AUC": lambda found: found.signed.acc_auc,
}


def main() -> None:
    """Measure, print, and write docs/methods.md if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stories", help="directory of the model stories260k")
    parser.add_argument("--methods", nargs="*", default=list(ASKED))
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [f"| model, task | method | {' | '.join(FIGURES)} | seconds |", f"|---|---{'|--:' * 4}|"]
    print("\n".join(rows))
    for name, task in models_and_tasks(asked.stories):
        model = cf.load_model(name)
        for method in asked.methods:
            rows.append(row_of(model, task, method))
            print(rows[-1], flush=True)
    if asked.write:
        write_block("rankings", "\n".join(rows), "methods.md")


def models_and_tasks(stories: str | None) -> list[tuple[str, str]]:
    """Return what is measured, stories260k too where its directory is given."""
    return [*CELLS, *([(stories, "pronoun")] if stories else [])]


def row_of(model: Any, task: str, method: str) -> str:
    """Return the row of a method on a task."""
    found, seconds = [], []
    for seed in SEEDS:
        train, test = (
            mib_problem(cf.make_problem(model, task, n_prompts=N_PROMPTS, seed=each))
            for each in (seed, seed + HELD_OUT)
        )
        begun = time.process_time()
        scores = scores_of(train, method, seed)
        seconds.append(time.process_time() - begun)
        found.append(mib(test, scores))
    cells = " | ".join(spread([figure(each) for each in found]) for figure in FIGURES.values())
    return (
        f"| {Path(model.name).name}, {task} | {method} | {cells} | {statistics.mean(seconds):.1f} |"
    )


def scores_of(problem: Problem, method: str, seed: int) -> MibScores:
    """Return a method's scores of all edges."""
    name, options = ASKED[method]
    entry = METHODS.find(name)
    assert isinstance(entry, ScoringMethod)
    drawn = {} if entry.option_for("seed") is None else {"seed": seed}
    given = entry.options(**options, **drawn)
    return MibScores(entry.scores(cf.IncrementalEngine(problem), given))


def spread(values: Sequence[float | None]) -> str:
    """Return the mean of some values, with the lowest and the highest."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "–"
    return f"{statistics.mean(known):.2f} ({min(known):.2f} to {max(known):.2f})"


if __name__ == "__main__":
    main()
