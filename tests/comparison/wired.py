"""A model wired by hand in which one head copies the answer, another takes it back, a third steers.

It reads BOS and three symbols. a1.h0 says the first one if the third is x, otherwise the second;
a1.h1 looks where a1.h0 looks and takes half of it back; both know of the x through a0.h0 alone.
"""

from pathlib import Path

from circuitfind.models.copying import negative_copy
from circuitfind.models.loading import load_model
from circuitfind.problem import Problem
from circuitfind.prompts import Pair, collate
from circuitfind.question import make_problem


def copying_model(folder: Path):
    negative_copy().save(folder, "copying")
    return load_model(folder / "copying.json", dtype="float64")


def copying_problem(folder: Path) -> Problem:
    pairs = [
        Pair([0, first, second, 4], [0, first, second, 5], [[first]], [[second]])
        for first in (1, 2, 3)
        for second in (1, 2, 3)
        if first != second
    ]
    return make_problem(copying_model(folder), collate(pairs), metric="logit-difference")
