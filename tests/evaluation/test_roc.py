"""ROC curves: the ACDC paper's areas from its own sweeps, and curves counted by hand."""

import json

import numpy as np
import pytest
import torch

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.errors import GraphError, MethodError
from circuitfind.evaluation.roc import (
    Truth,
    ranked_points,
    roc_curves,
    step_area,
    truth_of,
    writing_components,
)
from circuitfind.granularity import heads_and_mlps
from circuitfind.shape import ModelShape

SHAPE = {"n_heads": 2, "d_model": 4, "d_head": 2, "d_vocab": 5}
GRAPH = heads_and_mlps(ModelShape(n_layers=1, n_kv_heads=2, has_mlp=False, **SHAPE))
"""Heads a0.h0 and a0.h1 with three ports each, fed by the embedding; 9 edges."""

LEFT_OUT = {"zero_ablation kl_div greaterthan", "random_ablation l2 tracr-proportion"}
"""Whose published raw data are not those of the paper's table."""


def test_the_papers_areas_follow_from_its_published_sweeps(shared):
    data = json.loads((shared / "reference" / "acdc_sweeps.json").read_text())
    compared = 0
    for sweep in data["sweeps"]:
        name = f"{sweep['ablation']} {sweep['metric']} {sweep['task']}"
        if name in data["paper_auc"] and name not in LEFT_OUT:
            for level, area in zip(("edge", "node"), data["paper_auc"][name], strict=True):
                points = zip(sweep[f"{level}_fpr"], sweep[f"{level}_tpr"], strict=True)
                assert step_area(points) == pytest.approx(area, abs=5.1e-4), (name, level)
                compared += 1
    assert compared == 14


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0.0),
        ([(0.0, 1.0)], 1.0),
        ([(0.25, 0.5)], 0.75 * 0.5),
        ([(0.5, 0.5), (0.25, 0.5)], 0.75 * 0.5),
        ([(0.2, 0.4), (0.6, 0.9)], 0.4 * 0.4 + 0.4 * 0.9),
        # Worse than one with fewer false positives: not on the Pareto front.
        ([(0.2, 0.4), (0.6, 0.3)], 0.8 * 0.4),
    ],
)
def test_the_area_is_that_of_steps_below_the_pareto_front(points, area):
    assert step_area(points) == pytest.approx(area)


@pytest.mark.parametrize("seed", range(5))
def test_ranked_points_are_those_of_every_threshold(seed):
    generator = np.random.default_rng(seed)
    sizes = torch.from_numpy(generator.integers(0, 6, 30) / 4)
    true = torch.from_numpy(generator.random(30) < 0.4)
    expected = {
        (
            float(((sizes >= t) & ~true).sum() / (~true).sum()),
            float(((sizes >= t) & true).sum() / true.sum()),
        )
        for t in sizes[sizes > 0].unique()
    }
    assert {tuple(np.round(p, 6)) for p in ranked_points(sizes, true)} == {
        tuple(np.round(p, 6)) for p in expected
    }


def test_a_circuit_is_compared_by_edges_and_by_components():
    truth = truth_of(circuit("embed->a0.h0.v", "a0.h0->logits"), "example")
    found = circuit("embed->a0.h0.v", "embed->a0.h1.q", "a0.h1->logits")
    edges, components = roc_curves(truth, found)
    assert (edges.of, edges.n_true, edges.n_all) == ("edges", 2, 9)
    assert (edges.precision, edges.recall) == (1 / 3, 1 / 2)
    assert edges.points == (pytest.approx((2 / 7, 1 / 2)),)
    assert edges.area == pytest.approx(5 / 7 / 2)
    assert (components.n_true, components.n_all) == (2, 3)
    assert (components.precision, components.recall) == (2 / 3, 1)


def test_an_edge_at_another_place_is_another_edge_of_the_same_components():
    graph = GRAPH.at_places(["S", "end"])
    true, found = (
        Circuit(graph, graph.mask_of(["embed->a0.h0.v@S", f"a0.h0->logits@{place}"]))
        for place in ("end", "S")
    )
    values = torch.zeros(graph.edge_mask.shape)
    values[graph.mask_of("embed->a0.h1.k@end")] = 3
    values[graph.mask_of("embed->a0.h0.v@S")] = -2
    edges, components = roc_curves(
        truth_of(true, "example"), found, scores=EdgeScores(graph, values, "", "")
    )
    assert (edges.n_true, edges.n_all) == (2, 18)
    assert (edges.precision, edges.recall) == (1 / 2, 1 / 2)
    assert edges.points == tuple(pytest.approx(p) for p in ((1 / 16, 0), (1 / 16, 1 / 2)))
    assert (components.precision, components.recall) == (1, 1)
    assert components.points == ((1, 0.5), (1, 1))


def test_scores_give_a_point_each_and_components_the_largest_of_theirs():
    truth = truth_of(circuit("embed->a0.h0.v", "a0.h0->logits"), "example")
    values = torch.zeros(GRAPH.edge_mask.shape)
    values[GRAPH.mask_of(["embed->a0.h0.v"])] = -3
    values[GRAPH.mask_of(["embed->a0.h1.q"])] = 2
    values[GRAPH.mask_of(["a0.h0->logits"])] = 1
    scores = EdgeScores(GRAPH, values, "", "")
    edges, components = roc_curves(truth, circuit(), scores=scores, by="score")
    assert edges.points == tuple(pytest.approx(p) for p in ((0, 0.5), (1 / 7, 0.5), (1 / 7, 1)))
    assert edges.area == pytest.approx(0.5 / 7 + 6 / 7)
    assert (edges.precision, edges.recall) == (None, 0)
    assert components.points == ((0, 1), (1, 1))


def test_shared_key_value_heads_count_as_the_heads_that_use_them():
    graph = heads_and_mlps(ModelShape(n_layers=1, n_kv_heads=1, has_mlp=False, **SHAPE))
    found = Circuit(graph, graph.mask_of(["embed->a0.kv0.v", "a0.h0->logits"]))
    assert writing_components(found) == {"embed", "a0.h0", "a0.h1"}


def test_moves_inside_attention_count_as_their_heads():
    graph = heads_and_mlps(ModelShape(1, 2, 1, 8, 4, 10)).at_places(("one", "two"))
    names = "embed->a0.h1.q@two", "a0.h1.q@one->a0.h1@two", "a0.h1->logits@two"
    graph = graph.crossing(((0, 0), (0, 1), (1, 1)))
    found = Circuit(graph, graph.mask_of(names))
    assert writing_components(found) == {"embed", "a0.h1"}


def test_what_cannot_be_compared_is_refused():
    other = heads_and_mlps(ModelShape(n_layers=2, n_kv_heads=2, has_mlp=False, **SHAPE))
    found = Circuit(other, other.edge_mask)
    with pytest.raises(GraphError, match="n_layers is 2 and 1 here"):
        roc_curves(truth_of(circuit("a0.h0->logits"), "example"), found)
    with pytest.raises(MethodError, match="nothing can be told apart"):
        roc_curves(truth_of(circuit(), "example"), circuit())
    with pytest.raises(MethodError, match="has the component 'a9.h9' and this model has none"):
        Truth("example", GRAPH, frozenset({"a9.h9"}))


def circuit(*edges):
    return Circuit(GRAPH, GRAPH.mask_of(edges))
