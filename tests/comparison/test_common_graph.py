"""Circuits that tell different places apart are compared where both do, by names of places."""

from dataclasses import replace

import pytest
import torch

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.comparison.common_graph import (
    circuit_on,
    common_graph,
    how_compared,
    require_matchable,
)
from circuitfind.comparison.overlap import overlap
from circuitfind.errors import GraphError
from circuitfind.granularity import heads_and_mlps, with_units
from circuitfind.graph import Units
from tests.comparison.circuits import circuit, shape

GRAPH = heads_and_mlps(shape(has_mlp=False))
PLACED = GRAPH.at_places(["S1", "S2", "end"])


def placed(*edges: str, places=("S1", "S2", "end"), **others) -> Circuit:
    return circuit(GRAPH.at_places(places), *edges, **others)


LEFT = placed("embed->a0.h0.v@S1", "embed->a0.h0.v@S2", "a0.h0->a1.h1.k@S2", "a1.h1->logits@end")
"""Four edges at places, three without."""


def test_places_of_one_circuit_are_merged_if_the_other_has_none():
    whole = circuit(GRAPH, "embed->a0.h0.v", "a0.h0->a1.h1.k", "embed->a1.h1.q")
    both = ("embed->a0.h0.v", "a0.h0->a1.h1.k")
    found = overlap(LEFT, whole)
    assert found.edges.both == both
    assert (found.edges.left, found.edges.right) == (("a1.h1->logits",), ("embed->a1.h1.q",))
    assert found.edges.jaccard.value == pytest.approx(2 / 4)
    back = overlap(whole, LEFT).edges
    assert (back.both, back.left, back.right) == (both, found.edges.right, found.edges.left)


def test_places_in_another_order_are_matched_by_name():
    right = placed(
        "embed->a0.h0.v@S2",
        "a0.h0->a1.h1.k@S1",
        "a1.h1->logits@end",
        places=("end", "S1", "S2"),
    )
    found = overlap(LEFT, right).edges
    assert found.both == ("embed->a0.h0.v@S2", "a1.h1->logits@end")
    assert found.left == ("embed->a0.h0.v@S1", "a0.h0->a1.h1.k@S2")
    assert found.right == ("a0.h0->a1.h1.k@S1",)
    assert found.jaccard.value == pytest.approx(2 / 5)


def test_of_different_places_those_count_that_both_have():
    right = placed(
        "embed->a0.h0.v@S2", "embed->a0.h0.v@IO", "a1.h1->logits@IO", places=("IO", "S2")
    )
    found = overlap(LEFT, right).edges
    assert found.both == ("embed->a0.h0.v@S2",)
    assert found.left == ("a0.h0->a1.h1.k@S2",) and found.right == ()
    assert found.jaccard.value == pytest.approx(1 / 2)


def test_an_edge_has_the_sum_of_its_effects_at_places_where_these_are_merged():
    """Three edges, by rank: 5 = 2 + 3, 4, -1 on one side, and 1, 2, 3 on the other."""
    edges = ["embed->a0.h0.v", "embed->a0.h1.v", "embed->a0.h2.v"]
    at_places = scores(
        PLACED,
        {f"{edges[0]}@S1": 2, f"{edges[0]}@S2": 3, f"{edges[1]}@end": 4, f"{edges[2]}@S1": -1},
    )
    whole = scores(GRAPH, dict(zip(edges, (1, 2, 3), strict=True)) | {"embed->logits": 9})
    found = overlap(LEFT, circuit(GRAPH, "embed->logits"), effects=(at_places, whole))
    assert found.n_measured == 3
    assert found.correlation.value == pytest.approx(-1)


def test_circuits_without_a_common_place_or_model_are_refused():
    with pytest.raises(GraphError, match=r"tells other places apart: a, and S1, S2, end here"):
        overlap(LEFT, placed("embed->logits@a", places=("a",)))
    other = heads_and_mlps(shape(n_layers=3, has_mlp=False))
    with pytest.raises(GraphError, match="another model: n_layers is 3 and 2"):
        overlap(LEFT, circuit(other, "embed->logits"))


def scores(graph, values: dict[str, float]) -> EdgeScores:
    found = torch.full(graph.edge_mask.shape, torch.nan, dtype=torch.float64)
    for name, value in values.items():
        found[graph.index(name)] = value
    return EdgeScores(graph, found, "", "exact")


def test_moves_that_one_graph_alone_has_are_left_out_and_said_so():
    every = tuple((a, b) for b in range(3) for a in range(b + 1))
    move, names = "a0.h0.v@S1->a0.h0@S2", [edge.name for edge in LEFT.edges]
    left = circuit(PLACED.crossing(every), *names, move)
    assert how_compared(("one", left), ("two", left)) == []
    assert overlap(left, LEFT).edges.left == ()
    (remark,) = how_compared(("one", left), ("two", LEFT))
    assert remark.startswith("one and two are compared without moves inside attention")
    # An edge at another place is counted, and a move is none.
    other = placed("embed->a0.h0.v@S2", places=("S2", "end"))
    last = how_compared(("one", left), ("two", other))[-1]
    assert last.endswith("without 1 and 0 edges at other places")


def test_circuits_with_other_neurons_are_compared_with_whole_mlps():
    """Of the parts of m0, two are kept on one side (effects 2 and 3) and one on the other."""
    plain = heads_and_mlps(shape(has_mlp=True))
    some = with_units(plain, [Units(0, "neuron", (1, 4))])
    others = with_units(plain, [Units(0, "neuron", (2,)), Units(1, "neuron", (0, 1))])
    left = circuit(some, "embed->m0", "m0.n1->logits", "m0.rest->logits", "m0.n4->a1.h0.q")
    right = circuit(others, "embed->m0", "m0.n2->logits", "embed->m1", "m1.n0->logits")
    found = overlap(left, right).edges
    assert found.both == ("embed->m0", "m0->logits")
    assert (found.left, found.right) == (("m0->a1.h0.q",), ("embed->m1", "m1->logits"))
    assert found.jaccard.value == pytest.approx(2 / 5)
    effects = torch.full(some.edge_mask.shape, torch.nan, dtype=torch.float64)
    for name, value in (("m0.n1->logits", 2.0), ("m0.rest->logits", 3.0), ("embed->m0", 7.0)):
        effects[some.index(name)] = value
    whole = circuit_on(plain, Circuit(some, left.kept, effects))
    assert (whole.effect("m0->logits"), whole.effect("embed->m0")) == (5.0, 7.0)
    assert whole.effect("m0->a1.h0.q") is None and whole.graph == plain


def test_latents_at_places_are_brought_to_whole_mlps_at_the_places_of_both():
    plain = heads_and_mlps(shape(has_mlp=True)).at_places(["S1", "end"])
    latents = Units(0, "latent", (3, 5), apart=True, error="fixed")
    fine = circuit(with_units(plain, [latents]), "embed->m0.f5@S1", "m0.f3->logits@end")
    found = overlap(fine, circuit(plain, "embed->m0@S1", "embed->m0@end")).edges
    assert found.both == ("embed->m0@S1",)
    assert (found.left, found.right) == (("m0->logits@end",), ("embed->m0@end",))


def test_latents_of_attention_are_compared_with_the_same_ones_only():
    plain = heads_and_mlps(shape(has_mlp=True))
    of_attention = Units(0, "latent", (3, 5), error="live", of="attention")
    some = with_units(plain, [of_attention, Units(0, "neuron", (1,))])
    other = with_units(plain, [of_attention])
    left = circuit(some, "embed->a0.h1.v", "a0.f3->m0", "m0.n1->logits")
    right = circuit(other, "embed->a0.h1.v", "a0.f3->m0", "a0.rest->logits", "m0->logits")
    found = overlap(left, right).edges
    assert found.both == ("embed->a0.h1.v", "a0.f3->m0", "m0->logits")
    assert (found.left, found.right) == ((), ("a0.rest->logits",))
    assert common_graph(some, plain) is None and common_graph(plain, other) is None
    with pytest.raises(GraphError, match="it has other neurons or latents"):
        overlap(left, circuit(plain, "a0.h1->m0", "m0->logits"))
    renumbered = with_units(plain, [replace(of_attention, numbers=(3, 6))])
    with pytest.raises(GraphError, match="of 2 latents of a0 not the same numbers"):
        overlap(right, circuit(renumbered, "a0.f3->m0"))


def test_past_latents_of_the_stream_no_edge_has_a_counterpart():
    plain = heads_and_mlps(shape(has_mlp=True))
    of_stream = Units(0, "latent", (3,), error="live", of="resid_post")
    apart = circuit(with_units(plain, [of_stream]), "embed->post0", "post0.f3->logits")
    whole = circuit(plain, "embed->logits")
    assert common_graph(apart.graph, plain) is None
    with pytest.raises(GraphError, match="other latents of attention or of the residual stream"):
        how_compared(("A", apart), ("B", whole))
    require_matchable("B", whole)
    with pytest.raises(GraphError, match="A has latents of the residual stream"):
        require_matchable("A", apart)
    with pytest.raises(GraphError, match=r"no edge 'embed->logits': latents take the stream apart"):
        apart.graph.edge("embed->logits")
