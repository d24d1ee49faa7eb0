"""A model wired by hand in which one head copies the answer, another takes it back, a third steers.

It reads BOS and three symbols. a1.h0 says the first one if the third is x, otherwise the second;
a1.h1 looks where a1.h0 looks and takes half of it back; both know of the x through a0.h0 alone.
"""

from pathlib import Path

import torch

from circuitfind.models.loading import load_model
from circuitfind.models.wiring import SHARP, Wiring, column, one, sizes_of
from circuitfind.problem import Problem
from circuitfind.prompts import Pair, collate
from circuitfind.question import make_problem

SYMBOLS = ("a", "b", "c", "x", "y")


def copying_model(folder: Path):
    n = len(SYMBOLS) + 1
    sizes = sizes_of(
        SYMBOLS, ("BOS", *SYMBOLS), length=3, n_layers=2, n_heads=2, d_head=n, d_mlp=0,
        attention="causal",
    )  # fmt: skip
    wiring = Wiring(sizes, {"token": n, "position": 4, "flag": 1, "output": n})
    wiring.head(
        0, 0, query={"position": SHARP * torch.eye(4)}, key={"position": torch.eye(4)},
        value={"token": column(one(n, 4))}, output={"flag": torch.ones(1, 1)},
    )  # fmt: skip
    places = torch.zeros(4, 2)
    places[1, 0] = places[2, 1] = 1.0
    for head, share in ((0, 1.0), (1, -0.5)):
        wiring.head(
            1, head, query={"flag": torch.tensor([[2 * SHARP, 0.0]])}, query_bias=[0.0, SHARP],
            key={"position": places}, value={"token": torch.eye(n)},
            output={"output": share * torch.eye(n)},
        )  # fmt: skip
    wiring.save(folder, "copying")
    return load_model(folder / "copying.json", dtype="float64")


def copying_problem(folder: Path) -> Problem:
    pairs = [
        Pair([0, first, second, 4], [0, first, second, 5], [[first]], [[second]])
        for first in (1, 2, 3)
        for second in (1, 2, 3)
        if first != second
    ]
    return make_problem(copying_model(folder), collate(pairs), metric="logit-difference")
