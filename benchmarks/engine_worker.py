"""Time our engine on a setting: a whole ACDC search with fixed decisions, and brute force.

    python -m benchmarks.engine_worker FOLDER METRIC [--sample EDGE ...]

Prints one JSON object. Brute force is our own full pass of the whole model per edge.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import peak, resident
from benchmarks.setting import fixed_search, read_problem
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.methods.benchmark import matrix_rate
from circuitfind.problem import Problem

_BRUTE_FORCE = 5
"""How many full passes are timed."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("metric")
    parser.add_argument("--sample", nargs="*", default=[])
    parser.add_argument("--count", action="store_true", help="count operations, time nothing")
    given = parser.parse_args()
    problem = read_problem(given.folder, given.metric)
    if given.count:
        print(json.dumps(counted(problem)))
        return
    loaded = resident()
    started = time.perf_counter()
    engine = IncrementalEngine(problem)
    prepared = time.perf_counter() - started
    found = search(engine)
    found["peak_above_model"] = peak() - loaded
    found |= {
        "prepare_seconds": prepared,
        "edges": problem.graph.n_edges,
        "brute_force_seconds_per_edge": brute_force(engine),
        "matrix_rate": matrix_rate(
            problem.model.shape.d_model, problem.model.device, problem.model.dtype
        ),
        "effects": {name: effect(engine, name) for name in given.sample},
    }
    print(json.dumps(found))


def search(engine: IncrementalEngine) -> dict[str, float]:
    """Search with fixed decisions and return what it took."""
    evaluated = [0]
    original = engine.cut_nested

    def counted(state, reader, writers):
        evaluated[0] += len(writers)
        return original(state, reader, writers)

    engine.cut_nested = counted
    tests = kept_edges = 0
    drift = 0.0
    started = time.perf_counter()
    for progress in fixed_search(engine):
        tests += sum(decision.reason == "tested" for decision in progress.decisions)
        kept_edges += sum(decision.kept for decision in progress.decisions)
        drift = progress.drift or drift
    seconds = time.perf_counter() - started
    engine.cut_nested = original
    return {
        "seconds": seconds,
        "tests": tests,
        "evaluations": evaluated[0],
        "kept": kept_edges,
        "seconds_per_test": seconds / tests,
        "drift": drift,
    }


def counted(problem: Problem) -> dict[str, float]:
    """Return the operations of all matrix products of a search, and of a full pass."""
    engine = IncrementalEngine(problem)
    with FlopCounterMode(display=False) as whole:
        search(engine)
    with FlopCounterMode(display=False) as once:
        engine.readout.loss(engine.recomputed(engine.graph.edge_mask, "replaced"))
    return {"search": whole.get_total_flops(), "full_pass": once.get_total_flops()}


def brute_force(engine: IncrementalEngine) -> float:
    """Return the seconds of testing one edge by a full pass; the median of some."""
    kept = engine.graph.edge_mask
    times = []
    for _ in range(_BRUTE_FORCE):
        started = time.perf_counter()
        with torch.no_grad():
            engine.readout.loss(engine.recomputed(kept, "replaced"))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def effect(engine: IncrementalEngine, name: str) -> float:
    """Return the effect of one edge cut in the full graph."""
    edge, graph = engine.graph.edge(name), engine.graph
    writer, reader = graph.index(edge)
    state = engine.start()
    (after,) = engine.cut_each(state, reader, [writer]).losses()
    return after - engine.loss(state)


if __name__ == "__main__":
    main()
