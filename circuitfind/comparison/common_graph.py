"""Bring circuits of one model to the places and the units that both tell apart.

Places are matched by name, whatever their order. Where one circuit alone tells places apart, those
of the other are merged: an edge is kept if it is kept at any place, and its effect is the sum of
its effects at the places where it was measured. Circuits with different neurons or latents are
compared with whole MLPs: an edge is kept if it is kept of any part of the MLP. Latents of attention
stand for no single head, and past those of the residual stream no edge leads, so both circuits must
have the same ones, or none.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.circuit import Circuit, EdgeScores, require_same_graph
from circuitfind.errors import GraphError, shortened
from circuitfind.granularity import with_units
from circuitfind.graph import PLACE_MARK, Graph, Units


def common_graph(left: Graph, right: Graph) -> Graph | None:
    """Return the graph to which circuits of two graphs can be brought; None where there is none.

    It has the places whose names both graphs have, in the order of the left one, units of MLPs
    where both have the same, and moves inside attention only where both graphs are the same.
    """
    if left == right:
        return left
    left, right = left.outer, right.outer
    if left.units != right.units:
        left, right = (with_units(graph, not_of_mlps(graph)) for graph in (left, right))
    if left.merged != right.merged:
        return None
    if not (left.places and right.places):
        return left.merged
    names = [place for place in left.places if place in right.places]
    return left.merged.at_places(names) if names else None


def not_of_mlps(graph: Graph) -> tuple[Units, ...]:
    """Return the units of a graph that do not add up to a component of another."""
    return tuple(units for units in graph.units if units.of != "mlp")


def _require_same_latents(left: Graph, right: Graph, names: str) -> None:
    """Refuse latents that stand for no component of the other graph.

    Raises:
        GraphError: One of two graphs of one model has some that the other has not.
    """
    if left.shape == right.shape and not_of_mlps(left) != not_of_mlps(right):
        raise GraphError(
            f"{names} have other latents of attention or of the residual stream, which stand for "
            "no component of the other, so their edges cannot be compared; search both on the "
            "same prompts with the same --latents and --shortlist"
        )


def require_matchable(name: str, circuit: Circuit) -> None:
    """Refuse a circuit whose edges have no counterparts in another model.

    Raises:
        GraphError: Latents take the residual stream apart.
    """
    if any(units.whole == "stream" for units in circuit.graph.units):
        raise GraphError(
            f"{name} has latents of the residual stream, past which no edge leads, so its edges "
            "have no counterparts in another model; compare circuits without them"
        )


def _without_moves(left: Graph, right: Graph, names: str) -> list[str]:
    """Return that moves inside attention are left out, if they are."""
    if left == right or left.shape != right.shape or not (left.moves or right.moves):
        return []
    return [
        f"{names} are compared without moves inside attention, as their graphs are not the same"
    ]


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
        require_same_graph(right.graph, left.graph)
        graph = left.graph
    return circuit_on(graph, left), circuit_on(graph, right)


def how_compared(left: tuple[str, Circuit], right: tuple[str, Circuit]) -> list[str]:
    """Return how circuits of one model are compared that tell different places or units apart.

    Args:
        left: A circuit and its name.
        right: Another one.

    Returns:
        What a user should know, in sentences; none where both have the same graph, and none where
        there is no common graph because the models differ.

    Raises:
        GraphError: They have no place in common, or one keeps no edge at those; or one has latents
            that stand for no component of the other.
    """
    (our_name, our), (their_name, their) = left, right
    names, ours, theirs = f"{our_name} and {their_name}", our.graph, their.graph
    remarks = _without_moves(ours, theirs, names)
    _require_same_latents(ours, theirs, names)
    if ours.units != theirs.units:
        ours, theirs = (with_units(graph, not_of_mlps(graph)) for graph in (ours, theirs))
        if ours.merged == theirs.merged:
            remarks.append(
                f"{names} are compared with whole MLPs, as they have other neurons or latents: an "
                "edge is kept if it is kept of any part of the MLP"
            )
    if ours.merged != theirs.merged or same_places(ours, theirs):
        return remarks
    graph = common_graph(ours, theirs)
    if graph is None:
        places = [shortened(", ".join(each.places))[:60] for each in (ours, theirs)]
        raise GraphError(
            f"{names} have no place in common ({places[0]}; {places[1]}), so that no edge is in "
            "both; search both with the same --places"
        )
    if not graph.places:
        merged = our_name if ours.places else their_name
        return [
            *remarks,
            f"{names} are compared with the places of {merged} merged: an edge is kept if it is "
            "kept at any place",
        ]
    common, lost = shortened(", ".join(graph.places))[:60], []
    for name, circuit in (left, right):
        n_left = circuit_on(graph, circuit).n_edges
        if not n_left:
            raise GraphError(
                f"{name} keeps no edge at the places that {names} have in common ({common}); "
                "search both with the same --places"
            )
        lost.append(circuit_on(circuit.graph.outer, circuit).n_edges - n_left)
    return [
        *remarks,
        f"{names} are compared at the places that both have ({common}), without {lost[0]:,} and "
        f"{lost[1]:,} edges at other places",
    ]


def circuit_on(graph: Graph, circuit: Circuit) -> Circuit:
    """Return a circuit on a graph with some of its places, in any order, or with none.

    Edges at other places are left out. The graph has the same units, or whole MLPs.
    """
    kept = _brought_to(graph, circuit.graph, circuit.kept.double()) > 0
    effects = circuit.effects
    if effects is not None:
        effects = _brought_to(graph, circuit.graph, effects)
    return replace(circuit, graph=graph, kept=kept, effects=effects)


def scores_on(graph: Graph, scores: EdgeScores) -> EdgeScores:
    """Return scores on a graph with some of their places, in any order, or with none."""
    values = _brought_to(graph, scores.graph, scores.values)
    return replace(scores, graph=graph, values=values)


def _brought_to(
    graph: Graph, known: Graph, values: Float[Tensor, "known_writer known_reader"]
) -> Float[Tensor, "writer reader"]:
    """Return values for the edges of another graph: chosen by place, or summed over all places.

    A sum leaves out what is NaN, and is NaN where all is.
    """
    if graph.moves != known.moves:
        n_writers, n_readers = known.n_outer
        return _brought_to(graph, known.outer, values[:n_writers, :n_readers])
    if graph.units != known.units:
        whole = with_units(known, not_of_mlps(known))
        return _brought_to(graph, whole, _of_whole_mlps(known, whole, values))
    if graph.places == known.places:
        return values
    found: Tensor = values.unflatten(1, (-1, known.n_places))
    if graph.places:
        return found[..., [known.places.index(place) for place in graph.places]].flatten(1)
    return found.nansum(-1).masked_fill(found.isnan().all(-1), torch.nan)


def _of_whole_mlps(
    known: Graph, whole: Graph, values: Float[Tensor, "known_writer known_reader"]
) -> Float[Tensor, "writer reader"]:
    """Return the sum of values over the parts of each MLP, as `_brought_to` does over places."""
    rows = [whole.writer_index[_whole_name(known, writer.name)] for writer in known.writers]
    columns = [whole.reader_index[_whole_name(known, reader.name)] for reader in known.readers]
    into = torch.tensor(rows)[:, None] * len(whole.readers) + torch.tensor(columns)
    sums = torch.zeros(whole.edge_mask.numel(), dtype=values.dtype)
    counts = torch.zeros_like(sums)
    sums.index_add_(0, into.flatten(), values.nan_to_num().flatten())
    counts.index_add_(0, into.flatten(), (~values.isnan()).to(sums.dtype).flatten())
    return sums.masked_fill(counts == 0, torch.nan).view(whole.edge_mask.shape)


def _whole_name(graph: Graph, end: str) -> str:
    """Return the name that a writer or a reader has where MLPs are whole."""
    component, mark, place = end.partition(PLACE_MARK)
    block = graph.block_of.get(component)
    if block is None or block.units is None or block.units.of != "mlp":
        return end
    return f"{block.name}{mark}{place}"
