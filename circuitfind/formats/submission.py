"""Submissions to the circuit track of the Mechanistic Interpretability Benchmark (MIB).

A folder per task and model, named `TASK_MODEL` (`ioi_gpt2`, `arc-easy_llama3`), holds either one
file with a score for every edge, or one file per size that marks the edges of a circuit of at most
so many percent of all edges, as https://github.com/hannamw/MIB-circuit-track describes it. Mueller
et al. 2025, arXiv 2504.13151.
"""

import json
from collections.abc import Sequence

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.errors import CircuitFileError
from circuitfind.formats.base import HEADER, every_edge
from circuitfind.formats.eap_ig import content_of, edge_names, require_expressible, write

PERCENTAGES: tuple[float, ...] = (0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
"""The sizes of circuits that a submission holds, in percent of all edges."""


def importances(circuit: Circuit) -> dict[str, str]:
    """Return the files of a folder with a score for every edge: `importances.json`.

    Raises:
        CircuitFileError: No edge has a score, or EAP-IG's graphs cannot express this one.
    """
    _require_scores(circuit)
    return {"importances.json": write(circuit)}


def circuits(circuit: Circuit, *, signed: bool = False) -> dict[str, str]:
    """Return the files of a folder with ten circuits: `0.json`, `0.1.json` and so on.

    Sizes are counted in EAP-IG's edges, so that a key that four query heads share counts four
    times. Edges without a score are in no circuit.

    Args:
        circuit: A circuit with the effects or scores of all edges that have one.
        signed: Take the highest scores instead of the largest.

    Raises:
        CircuitFileError: No edge has a score, or EAP-IG's graphs cannot express this one.
    """
    _require_scores(circuit)
    require_expressible(circuit.graph)
    return {
        f"{percentage:g}.json": _members(chosen)
        for percentage, chosen in zip(PERCENTAGES, selections(circuit, signed=signed), strict=True)
    }


def selections(circuit: Circuit, *, signed: bool = False) -> list[Circuit]:
    """Return the circuit of each size, the highest scores first."""
    graph = circuit.graph
    assert circuit.effects is not None
    scores = EdgeScores(graph, circuit.effects.cpu(), "", "")
    ranked = [edge for edge, _ in scores.ranked(signed=signed)]
    widths = [len(edge_names(edge, graph)) for edge in ranked]
    n_edges = sum(len(edge_names(edge, graph)) for edge in every_edge(graph))
    return [
        Circuit(
            graph,
            graph.mask_of(e.name for e in ranked[: _fitting(widths, n_edges * percentage / 100)]),
        )
        for percentage in PERCENTAGES
    ]


def _fitting(widths: Sequence[int], limit: float) -> int:
    total = 0
    for n, width in enumerate(widths):
        total += width
        if total > limit:
            return n
    return len(widths)


def _members(circuit: Circuit) -> str:
    content = content_of(circuit)
    del content[HEADER]
    content["edges"] = {
        name: {"in_graph": said["in_graph"]} for name, said in content["edges"].items()
    }
    return json.dumps(content) + "\n"


def _require_scores(circuit: Circuit) -> None:
    if circuit.effects is None or bool(circuit.effects.isnan().all()):
        raise CircuitFileError(
            "no edge has a score or an effect; export a run directory, whose decisions hold them"
        )
