"""Forecast of a search's time on this machine, beside brute force: `circuitfind bench`."""

import statistics
import time
from typing import Any

import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.memory import search_bytes
from circuitfind.methods.forecast import assumed_circuit, forecast
from circuitfind.problem import Problem

_COMPONENTS = 30
"""Heads and MLPs that are assumed if none are given and the model has twice as many."""


def benchmarked(
    problem: Problem, n_components: int | None = None, memory: int | None = None
) -> dict[str, Any]:
    """Measure a few tests of an ACDC search, and a full pass, which brute force needs per edge.

    Args:
        problem: The question.
        n_components: Heads and MLPs of the circuit that the search is assumed to end at; by default
            30, or half of the model's where those are fewer.
        memory: How many bytes the search may take beside the model.

    Raises:
        MethodError: The model has fewer components, or the memory is too small.
    """
    if n_components is None:
        n_components = max(1, min(_COMPONENTS, len(problem.graph.heads_and_mlps) // 2))
    circuit = assumed_circuit(problem.graph, n_components)
    engine = IncrementalEngine(problem, memory)
    found = forecast(engine, circuit)
    (n_prompts, length), d_model = problem.prompts.clean.shape, problem.graph.shape.d_model
    rate = matrix_rate(d_model, problem.model.device, problem.model.dtype)
    whole = found.seconds_full_pass * problem.graph.n_edges
    taken = search_bytes(problem.graph, n_prompts, length, problem.model.dtype.itemsize)
    return {
        "model": problem.model.name,
        "metric": problem.metric.name,
        "prompts": f"{n_prompts} pairs of {length} tokens",
        "assumed circuit": f"{n_components} heads and MLPs, {int(circuit.sum())} edges",
        "edges": problem.graph.n_edges,
        "edges tested": found.tests,
        "cuts evaluated": found.evaluations,
        "operations": found.operations,
        "operations, in full passes": found.operations / found.operations_full_pass,
        "seconds of the search": found.seconds,
        "seconds per tested edge": found.seconds_per_test,
        "share of matrix products": found.operations / rate / found.seconds,
        "seconds of a full pass": found.seconds_full_pass,
        "brute force, per tested edge": found.seconds_full_pass / found.seconds_per_test,
        "brute force, whole search": whole / found.seconds,
        "memory beside the model, MB": round(min(taken, memory or taken) / 1e6),
        "chunks of prompts": len(engine.chunks),
    }


def matrix_rate(d_model: int, device: torch.device, dtype: torch.dtype) -> float:
    """Return how many operations a second the machine does in an MLP's larger products."""
    left = torch.randn(512, d_model, device=device, dtype=dtype)
    right = torch.randn(d_model, 4 * d_model, device=device, dtype=dtype)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        # Reading a number waits for an accelerator to finish.
        (left @ right)[0, 0].item()
        times.append(time.perf_counter() - started)
    return 2 * 512 * d_model * 4 * d_model / statistics.median(times)
