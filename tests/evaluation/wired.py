"""Models wired by hand as problems, whose circuits are known."""

from functools import cache

from circuitfind.circuit import Circuit
from circuitfind.evaluation.measured import Measured
from circuitfind.models.loading import load_model
from circuitfind.problem import Problem
from circuitfind.question import make_problem


@cache
def wired(name: str, ablation: str = "resample", task: str | None = None, seed: int = 0) -> Problem:
    """Return the problem of a model wired by hand."""
    model = load_model(name, dtype="float64")
    return make_problem(
        model,
        task or name,
        n_prompts=16,
        seed=seed,
        ablation=ablation,
    )


@cache
def measured_of(name: str, ablation: str = "resample", task: str | None = None) -> Measured:
    return Measured(wired(name, ablation, task))


def circuit_of(problem: Problem, *edges: str) -> Circuit:
    return Circuit(problem.graph, problem.graph.mask_of(edges))


def true_circuit(problem: Problem) -> Circuit:
    """Return the circuit that the model states for the problem's ablation."""
    return circuit_of(problem, *problem.model.sizes["truth"][problem.ablation.name])
