"""Bring circuits of one model to the token places that both tell apart.

Places are matched by name, whatever their order. Where one circuit alone tells places apart, those
of the other are merged: an edge is kept if it is kept at any place, and its effect is the sum of
its effects at the places where it was measured.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.circuit import Circuit, EdgeScores, require_same_graph
from circuitfind.graph import Graph


def common_graph(left: Graph, right: Graph) -> Graph | None:
    """Return the graph to which circuits of two graphs can be brought; None where there is none.

    It has the places whose names both graphs have, in the order of the left one.
    """
    if left == right:
        return left
    if left.merged != right.merged:
        return None
    if not (left.places and right.places):
        return left.merged
    names = [place for place in left.places if place in right.places]
    return left.merged.at_places(names) if names else None


def same_places(left: Graph, right: Graph) -> bool:
    """Return whether two graphs of one model have places of the same names, in any order."""
    return left.merged == right.merged and set(left.places) == set(right.places)


def on_common_graph(left: Circuit, right: Circuit) -> tuple[Circuit, Circuit]:
    """Return two circuits on the graph that `common_graph` returns.

    Raises:
        GraphError: There is none.
    """
    graph = common_graph(left.graph, right.graph)
    if graph is None:
        require_same_graph(left.graph, right.graph)
        graph = left.graph
    return circuit_on(graph, left), circuit_on(graph, right)


def circuit_on(graph: Graph, circuit: Circuit) -> Circuit:
    """Return a circuit on a graph with some of its places, in any order, or with none.

    Edges at other places are left out.
    """
    kept = _by_place(graph, circuit.graph, circuit.kept.double()) > 0
    effects = circuit.effects
    if effects is not None:
        effects = _by_place(graph, circuit.graph, effects)
    return replace(circuit, graph=graph, kept=kept, effects=effects)


def scores_on(graph: Graph, scores: EdgeScores) -> EdgeScores:
    """Return scores on a graph with some of their places, in any order, or with none."""
    values = _by_place(graph, scores.graph, scores.values)
    return replace(scores, graph=graph, values=values)


def _by_place(
    graph: Graph, known: Graph, values: Float[Tensor, "writer known_reader"]
) -> Float[Tensor, "writer reader"]:
    """Return values for the readers of another graph: chosen by place, or summed over all places.

    A sum leaves out what is NaN, and is NaN where all is.
    """
    if graph.places == known.places:
        return values
    found: Tensor = values.unflatten(1, (-1, known.n_places))
    if graph.places:
        return found[..., [known.places.index(place) for place in graph.places]].flatten(1)
    return found.nansum(-1).masked_fill(found.isnan().all(-1), torch.nan)
