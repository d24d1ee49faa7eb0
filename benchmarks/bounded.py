"""Time searches by KL divergence with and without bounds, in turns.

    python -m benchmarks.bounded [--tests N]

The first tests of ACDC on SmolLM2 (`circuitfind models get smollm2`), and on its shape with random
weights, on one thread; processor time. Both ways must decide alike. Results go to
docs/performance.md.
"""

import argparse
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch

import circuitfind as cf
from benchmarks.page import write_block
from benchmarks.setting import SMOLLM2, random_llama, random_pairs
from circuitfind.methods.acdc import AcdcOptions, search_with
from circuitfind.methods.base import Decision


class Searched(NamedTuple):
    """The tests of a search, and what they took.

    Attributes:
        tests: The decisions about edges that were tested.
        seconds: Processor time, the engine not counted.
    """

    tests: list[Decision]
    seconds: float


def main() -> None:
    """Measure, print, and write docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tests", type=int, default=3600)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        "| model | threshold | tests | settled by bounds | seconds | with bounds | ratio |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, problem, threshold, most in settings(given.tests):
        exact, bounded = (
            searched(problem, AcdcOptions(threshold, bounded=each), most) for each in (False, True)
        )
        assert [(t.edge, t.kept) for t in exact.tests] == [(t.edge, t.kept) for t in bounded.tests]
        settled = sum(test.error is not None for test in bounded.tests)
        n, ratio = len(exact.tests), bounded.seconds / exact.seconds
        cells = name, threshold, n, settled, f"{exact.seconds:.1f}", f"{bounded.seconds:.1f}"
        rows.append(f"| {' | '.join(map(str, cells))} | {ratio:.2f} |")
        print(rows[-1], flush=True)
    if given.tests == parser.get_default("tests"):
        write_block("bounded", "\n".join(rows))


def settings(most: int) -> Iterator[tuple[str, cf.Problem, float, int]]:
    """Yield a name, a problem, a threshold and a number of tests."""
    model = cf.load_model("smollm2")
    yield "SmolLM2, `ioi`", cf.make_problem(model, "ioi", metric="kl", n_prompts=16), 0.05, most
    random = cf.load_model(random_llama(SMOLLM2))
    problem = cf.make_problem(random, random_pairs(SMOLLM2), metric="kl")
    yield "random weights", problem, 0.0002, most // 6


def searched(problem: cf.Problem, options: AcdcOptions, most: int) -> Searched:
    """Search until so many edges are tested."""
    engine, tests = cf.IncrementalEngine(problem), list[Decision]()
    started = time.process_time()
    for progress in search_with(engine, options, engine.start()):
        tests += [each for each in progress.decisions if each.reason == "tested"]
        if len(tests) >= most:
            break
    return Searched(tests, time.process_time() - started)


if __name__ == "__main__":
    main()
