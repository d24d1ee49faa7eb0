"""Known circuits to hold a found one against: a file, a program's own, or a published one."""

from pathlib import Path
from typing import Any

import torch

from circuitfind.circuit import Circuit
from circuitfind.errors import MethodError
from circuitfind.evaluation.roc import Truth, truth_of
from circuitfind.graph import Graph
from circuitfind.models.base import ResidualModel
from circuitfind.problem import Problem
from circuitfind.runs.directory import load_circuit_of
from circuitfind.tasks import find_task

KNOWN = "known"


def known_circuit(against: str, problem: Problem, task: str) -> Truth:
    """Return the circuit that is asked for.

    Args:
        against: `known`, for the circuit that the model states or that is published for the task;
            otherwise a run directory or a circuit file.
        problem: The problem of the found circuit.
        task: Its task.

    Raises:
        CircuitfindError: There is none, or it belongs to another model.
    """
    if against != KNOWN:
        return truth_of(load_circuit_of(Path(against), problem.graph), Path(against).name)
    stated = _stated(problem.model, problem)
    return stated or _published(task, problem.graph)


def _stated(model: ResidualModel, problem: Problem) -> Truth | None:
    """Return the circuit that a model wired by hand states for an ablation."""
    truth = getattr(model, "sizes", {}).get("truth", {}).get(problem.ablation)
    if truth is None:
        return None
    return truth_of(Circuit(problem.graph, problem.graph.mask_of(truth)), "the program's own")


def _published(task: str, graph: Graph) -> Truth:
    """Return what is published for a task; of most circuits only the components are."""
    known = find_task(task).known_circuit
    if not known:
        raise MethodError(
            f"no circuit of the task {task!r} is known; give --against a run directory or a "
            "circuit file"
        )
    components = {name for names in known.get("heads", {}).values() for name in names}
    mlps = known.get("mlps", ())
    components |= _mlps(graph) if mlps == "all" else set(mlps)
    edges = _edges(graph, known)
    return Truth(f"{known['source']}, in {known['model']}", graph, frozenset(components), edges)


def _mlps(graph: Graph) -> set[str]:
    return {writer.name for writer in graph.writers if writer.head is None and writer.stage > 0}


def _edges(graph: Graph, known: Any) -> torch.Tensor | None:
    return graph.mask_of(known["connections"]) if "connections" in known else None
