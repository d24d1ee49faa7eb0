"""Submissions to the circuit track of the Mechanistic Interpretability Benchmark (MIB).

A folder per task and model, named `TASK_MODEL` (`ioi_gpt2`, `arc-easy_llama3`), holds either one
file with a score for every edge, or one file per size that marks the edges of a circuit of at most
so many percent of all edges, as https://github.com/hannamw/MIB-circuit-track describes it. Mueller
et al. 2025, arXiv 2504.13151.

Others' files of scores are read as JSON, or as `.pt` in which there is nothing but tensors, numbers
and texts: nothing that could run code is unpickled.
"""

import json
import math
import pickle
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.errors import CircuitFileError, GraphError, quoted
from circuitfind.files import read_bytes
from circuitfind.formats.base import HEADER, as_object, every_edge
from circuitfind.formats.eap_ig import (
    content_of,
    edge_names,
    edge_rows,
    require_expressible,
    require_sizes,
    write,
)
from circuitfind.graph import Graph
from circuitfind.records import parse_json
from circuitfind.stored import MOST_TENSOR_BYTES, masks_from

SCORE_FILES = ("importances.json", "importances.pt")

PERCENTAGES: tuple[float, ...] = (0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
"""The sizes of circuits that a submission holds, in percent of all edges."""


class Importances(NamedTuple):
    """Scores that a file of a submission holds.

    Attributes:
        edges: Those of all edges; NaN where it says nothing.
        components: Those of the components that write, NaN for one without a score; None where the
            file has no scores of components.
    """

    edges: EdgeScores
    components: Float[Tensor, " writer"] | None


def read_importances(path: Path, graph: Graph) -> Importances:
    """Read the scores in a folder of a submission, or in one of its files.

    Args:
        path: A folder with `importances.json` or `importances.pt`, or such a file.
        graph: The graph of the model, with every query head's key and value apart.

    Raises:
        CircuitFileError: There is no such file, it cannot be trusted, or is of another model.
    """
    file = path
    if path.is_dir():
        found = [path / name for name in SCORE_FILES if (path / name).is_file()]
        if not found:
            raise CircuitFileError(
                f"{path} holds neither of {' and '.join(SCORE_FILES)}; give the folder of one task "
                "and model of a submission, or a run directory"
            )
        file = found[0]
    try:
        content = read_bytes(file, most=MOST_TENSOR_BYTES)
        said = _from_pt(content, graph) if file.suffix == ".pt" else _from_json(content)
        require_sizes(said.sizes, graph)
        values = masks_from(graph, edge_rows(said.edges, graph))[1]
        components = _components(said.nodes, graph)
    except OSError as error:
        raise CircuitFileError(f"cannot read {file}: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError, CircuitFileError, GraphError) as error:
        said_of = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CircuitFileError(
            f"{file} cannot be used as scores of this model: {said_of.splitlines()[0]}"
        ) from None
    return Importances(EdgeScores(graph, values, "", file.name), components)


class _Said(NamedTuple):
    """What a file of scores says: sizes of the model, and something of each edge and node."""

    sizes: Mapping[str, Any]
    edges: Mapping[str, Any]
    nodes: Mapping[str, Any]


def _from_json(content: bytes) -> _Said:
    # Nodes without a score are written as NaN, which JSON does not know.
    said = as_object(parse_json(content, finite=False), "it")
    nodes = as_object(said.get("nodes") or {}, "its nodes")
    scores = {name: node.get("score") for name, node in nodes.items() if isinstance(node, dict)}
    edges = as_object(said["edges"], "its edges")
    return _Said(as_object(said["cfg"], "its cfg"), edges, scores)


def _from_pt(content: bytes, graph: Graph) -> _Said:
    try:
        loaded = torch.load(BytesIO(content), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError:
        raise CircuitFileError(
            "it is damaged, or a pickle of more than tensors, numbers and texts, which can run "
            "code when it is read; give the same scores as importances.json"
        ) from None
    except (EOFError, LookupError, RuntimeError, TypeError, ValueError):
        raise CircuitFileError(
            "it is damaged, or was not written by torch.save; give the same scores as "
            "importances.json"
        ) from None
    said = as_object(loaded, "it")
    rows, columns = (
        {name: number for number, name in enumerate(said[which])}
        for which in ("src_nodes", "dst_nodes")
    )
    size = (len(rows), len(columns))
    scores, kept = (_listed(said, name, size) for name in ("edges_scores", "edges_in_graph"))
    edges = {}
    for name in (name for edge in every_edge(graph) for name in edge_names(edge, graph)):
        writer, reader = name.split("->")
        row, column = rows[writer], columns[reader]
        edges[name] = {"score": scores[row][column], "in_graph": bool(kept[row][column])}
    named = {}
    if said.get("nodes_scores") is not None:
        named = dict(zip(rows, _listed(said, "nodes_scores", size[:1]), strict=True))
    return _Said(as_object(said["cfg"], "its cfg"), edges, named)


def _listed(said: Mapping[str, Any], name: str, size: tuple[int, ...]) -> list[Any]:
    """Return the values of a tensor of a file, which must have this size."""
    tensor = said[name]
    if not isinstance(tensor, Tensor) or tensor.shape != size:
        is_there = f"of size {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else "no tensor"
        raise CircuitFileError(f"its {name} is {is_there}, and must be a tensor of size {size}")
    found: list[Any] = tensor.tolist()
    return found


def _components(nodes: Mapping[str, Any], graph: Graph) -> Float[Tensor, " writer"] | None:
    """Return the scores of nodes in the order of the graph's writers; None if there are none."""
    found = [nodes.get(name) for name in _node_names(graph)]
    wrong = [score for score in found if isinstance(score, bool | str | list | dict)]
    if wrong:
        raise CircuitFileError(f"the score of a node is {quoted(wrong[0])}, which is not a number")
    values = torch.tensor([float("nan") if score is None else score for score in found])
    return None if bool(values.isnan().all()) else values.double()


def _node_names(graph: Graph) -> list[str]:
    """Return what EAP-IG calls the components that write, in their order."""
    return ["input", *(writer.name for writer in graph.writers[1:])]


def importances(
    circuit: Circuit, components: Float[Tensor, " writer"] | None = None
) -> dict[str, str]:
    """Return the files of a folder with a score for every edge: `importances.json`.

    Args:
        circuit: A circuit with the effects or scores of its edges.
        components: The scores of the components that write, NaN for one without a score; None
            where only edges have scores.

    Raises:
        CircuitFileError: Nothing has a score, or EAP-IG's graphs cannot express this one.
    """
    if components is None:
        _require_scores(circuit)
        return {SCORE_FILES[0]: write(circuit)}
    content = content_of(circuit)
    for name, score in zip(_node_names(circuit.graph), components.tolist(), strict=True):
        if not math.isnan(score):
            content["nodes"][name]["score"] = score
    return {SCORE_FILES[0]: json.dumps(content, allow_nan=False) + "\n"}


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
