"""What telling places apart costs and shows: IOI with named positions, on three models.

    python -m benchmarks.places [--small]

For each model: ACDC with and without places, on one thread, processor time per tested edge; and the
share of the top 1 % of edges by EAP (logit difference) that are others when the scores of an edge
at its places are taken by themselves (the sum of their sizes) than when positions are summed.
Results go to docs/positions.md. `--small` leaves out SmolLM2 and writes nothing.
"""

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

import circuitfind as cf
from benchmarks.page import write_block
from circuitfind.methods.acdc import AcdcOptions, search_with

SHARE = 0.01


class Setting(NamedTuple):
    """A model, what is asked of it, and from which effect on an edge is kept."""

    model: str
    n_prompts: int
    threshold: float


SETTINGS = (
    Setting("gpt-4l", 64, 0.01),
    Setting("ioi-small", 64, 0.01),
    Setting("smollm2", 8, 0.3),
)


def main() -> None:
    """Measure, print, and write docs/positions.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    torch.set_num_threads(1)
    rows = [
        "| model | edges | with places | tests | with places | ms a test | with places | ratio "
        "| other edges in the top 1 % |",
        f"|---{'|--:' * 8}|",
    ]
    for setting in SETTINGS[:2] if small else SETTINGS:
        rows.append(row_of(setting))
        print(rows[-1], flush=True)
    if not small:
        write_block("places", "\n".join(rows), page="positions.md")


def row_of(setting: Setting) -> str:
    """Measure one model."""
    model = cf.load_model(setting.model)
    problems = [
        cf.make_problem(
            model, "ioi", n_prompts=setting.n_prompts, metric="logit-difference", places=places
        )
        for places in (None, "named")
    ]
    edges = [f"{problem.graph.n_edges:,}" for problem in problems]
    counts, per_test = costs_of(problems, setting.threshold)
    cells = [
        setting.model,
        *edges,
        *(f"{n:,}" for n in counts),
        *(f"{each:.2f}" for each in per_test),
        f"{per_test[1] / per_test[0]:.2f}",
        f"{others_on_top(problems[1]):.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def costs_of(problems: Sequence[cf.Problem], threshold: float) -> tuple[list[int], list[float]]:
    """Return how many edges ACDC tests for each problem, and the milliseconds that one takes."""
    # In turns, and the faster of two runs each.
    rounds = [[searched(problem, threshold) for problem in problems] for _ in range(2)]
    counts = [n for n, _ in rounds[0]]
    times = [min(seconds for _, seconds in runs) for runs in zip(*rounds, strict=True)]
    return counts, [1000 * seconds / n for n, seconds in zip(counts, times, strict=True)]


def searched(problem: cf.Problem, threshold: float) -> tuple[int, float]:
    """Return how many edges ACDC tested, and the seconds of processor time that it took."""
    engine, n = cf.IncrementalEngine(problem), 0
    started = time.process_time()
    for progress in search_with(engine, AcdcOptions(threshold), engine.start()):
        n += sum(each.reason == "tested" for each in progress.decisions)
    return n, time.process_time() - started


def others_on_top(problem: cf.Problem) -> float:
    """Return the share of the top edges that are others when positions are summed."""
    scores = cf.discover(problem, "eap", n_edges=1).circuit.effects
    assert scores is not None
    by_place = scores.nan_to_num().unflatten(1, (-1, problem.graph.n_places))
    n = round(SHARE * problem.graph.merged.n_edges)
    apart, summed = (
        set(table.flatten().argsort(descending=True)[:n].tolist())
        for table in (by_place.abs().sum(-1), by_place.sum(-1).abs())
    )
    return 1 - len(apart & summed) / n


if __name__ == "__main__":
    main()
