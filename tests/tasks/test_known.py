"""Published circuits have as many edges as the papers say, in graphs of the papers' models."""

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.errors import MethodError
from circuitfind.evaluation.roc import roc_curves
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Units
from circuitfind.shape import ModelShape
from circuitfind.tasks import find_task
from circuitfind.tasks.known.edges import known_components, known_edges
from circuitfind.verbs.against import published

GPT2 = ModelShape(12, 12, 12, 768, 64, 50257, learned_positions=True)
ATTENTION_ONLY = ModelShape(4, 8, 8, 512, 64, 48262, has_mlp=False)
EDGES = {"ioi": 963, "greater-than": 235, "docstring": 24}


def graph_of(task, **options):
    return heads_and_mlps(ATTENTION_ONLY if task == "docstring" else GPT2, **options)


@pytest.mark.parametrize("task", EDGES)
def test_a_known_circuit_has_the_published_number_of_edges(task):
    """Conmy et al. count the edge between the input of a head's q, k or v and the head, too."""
    known, graph = find_task(task).known_circuit, graph_of(task)
    edges = known_edges(known, graph)
    assert len(edges) == int(graph.mask_of(edges).sum()) == EDGES[task]
    fed = {graph.edge(name).reader.name for name in edges if graph.edge(name).reader.port}
    assert len(edges) + len(fed) == known["edges"]


def test_edges_are_those_between_the_roles_of_the_figure():
    edges = set(known_edges(find_task("ioi").known_circuit, graph_of("ioi")))
    inside = {"a8.h6->a9.h9.q", "a5.h5->a8.h10.v", "a9.h9->logits", "m3->a9.h9.q", "a9.h9->m9"}
    outside = {"a8.h6->a9.h9.k", "embed->a9.h9.q", "a5.h5->logits", "m9->a9.h9.q", "a9.h8->logits"}
    assert inside <= edges and not outside & edges


def test_paths_of_heads_whose_inputs_are_merged_or_whose_embedding_is_split():
    known = find_task("ioi").known_circuit
    merged = known_edges(known, graph_of("ioi", merge_qkv=True))
    assert "a8.h6->a9.h9.qkv" in merged
    split = known_edges(known, graph_of("ioi", split_embedding=True))
    assert {"embed->a9.h9.k", "pos_embed->a9.h9.k"} <= set(split)


def test_where_no_edges_are_published_only_components_are_known():
    known = find_task("pronoun").known_circuit
    assert known_edges(known, graph_of("pronoun")) is None
    assert "a10.h9" in known_components(known, graph_of("pronoun"))
    assert published("pronoun", graph_of("pronoun")).edges is None


@pytest.mark.parametrize("task", EDGES)
def test_at_single_places_only_components_are_known(task):
    graph = graph_of(task)
    placed = published(task, graph.at_places(["S2", "end"]))
    assert placed.edges is None
    assert placed.components == known_components(find_task(task).known_circuit, graph)


def test_a_graph_without_these_components_or_edges_is_refused():
    small = heads_and_mlps(ModelShape(2, 2, 2, 8, 4, 9))
    with pytest.raises(MethodError, match="has the component 'a.*' and this model"):
        published("ioi", small)
    with pytest.raises(MethodError, match="no circuit of the task 'capitals' is known"):
        published("capitals", graph_of("ioi"))
    latents = [Units(5, "latent", (3,), error="live", of="resid_post")]
    with pytest.raises(MethodError, match="no edge leads past the latents of post5"):
        published("ioi", graph_of("ioi", units=latents))


def test_the_published_circuit_is_the_best_answer_to_itself_and_others_are_less():
    graph = graph_of("ioi")
    truth = published("ioi", graph)
    own = Circuit(graph, truth.edges)
    other = Circuit(graph, truth.edges & (torch.arange(len(graph.readers)) % 2 == 0))
    by_level = {curve.of: curve for curve in roc_curves(truth, own)}
    assert set(by_level) == {"edges", "components"}
    assert all((c.area, c.precision, c.recall) == (1, 1, 1) for c in by_level.values())
    edges, _ = roc_curves(truth, other)
    assert (edges.n_true, edges.n_all) == (963, 32_491)
    assert edges.precision == 1 and edges.recall == pytest.approx(other.n_edges / 963)
