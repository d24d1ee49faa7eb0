"""Known circuits to hold a found one against: a file, a program's own, or a published one."""

from pathlib import Path

from circuitfind.circuit import Circuit
from circuitfind.directories.directory import load_circuit_of
from circuitfind.errors import GraphError, MethodError, quoted
from circuitfind.evaluation.roc import Truth, truth_of
from circuitfind.graph import Graph
from circuitfind.models.base import ResidualModel
from circuitfind.problem import Problem
from circuitfind.tasks import find_task
from circuitfind.tasks.known.edges import known_components, known_edges

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
    return stated or published(task, problem.graph)


def _stated(model: ResidualModel, problem: Problem) -> Truth | None:
    """Return the circuit that a model wired by hand states for an ablation and a kind of graph."""
    graph = problem.graph
    kinds = {"crossing": graph.moves, "placed": graph.places, "units": graph.units}
    kind = next((kind for kind, told_apart in kinds.items() if told_apart), "truth")
    sizes, ablation = getattr(model, "sizes", {}), problem.ablation.name
    truth = sizes.get(kind, {}).get(ablation)
    if truth is None:
        return None
    name = "the program's own" + ", one of several" * (ablation in sizes.get("rivals", {}))
    try:
        return truth_of(Circuit(graph, graph.mask_of(truth)), name)
    except GraphError:
        # It is stated for other places, or other neurons.
        return None


def published(task: str, graph: Graph) -> Truth:
    """Return what is published for a task; of most circuits only the components are."""
    known = find_task(task).known_circuit
    if not known:
        raise MethodError(
            f"no circuit of the task {quoted(task)} is known; name a run directory or a circuit "
            "file (--against; in a suite, against = ...)"
        )
    if streams := [units.block for units in graph.units if units.whole == "stream"]:
        raise MethodError(
            f"what is published for {quoted(task)} are heads and MLPs with edges between them, and "
            f"no edge leads past the latents of {streams[0]}; name a run directory or a circuit "
            "file with the same latents (--against)"
        )
    name, components = f"{known['source']}, in {known['model']}", known_components(known, graph)
    # Whether this model has them at all comes first: edges between others would be unknown names.
    truth = Truth(name, graph, components)
    edges = known_edges(known, graph)
    return truth if edges is None else truth_of(Circuit(graph, graph.mask_of(edges)), name)
