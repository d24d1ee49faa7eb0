"""From a sweep to a circuit: the right components, and the edges that a plain search keeps."""

import networkx as nx
import pytest
import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.granularity import heads_and_mlps
from circuitfind.models.loading import load_model
from circuitfind.patching.circuits import circuit_of
from circuitfind.patching.result import PatchResult
from circuitfind.patching.significant import significant_components
from circuitfind.patching.sweep import patch
from circuitfind.question import make_problem
from circuitfind.shape import ModelShape
from tests.engine.problems import problem_of
from tests.engine.unit_cases import CASES

PLACE_OF = ((0, 1, 1, 2, 2, 2), (1, 0, 2, 2, 2, 2))

GROUPED = heads_and_mlps(ModelShape(2, 4, 2, 8, 2, 5))


def found_at(site, axes, sizes, *places, graph=GROUPED):
    """Return the components of a result in which the patches at some places have effect 1."""
    values = torch.zeros(*sizes, 2).double()
    for place in places:
        values[place] = 1
    labels = {axis: tuple(map(str, range(n))) for axis, n in zip(axes, sizes, strict=True)}
    ends = torch.zeros(2).double(), torch.ones(2).double()
    result = PatchResult({site: values}, {site: axes}, labels, *ends, "noising", "m", "u")
    return significant_components(result, graph)


def test_a_head_stands_for_itself_and_all_its_inputs():
    found = found_at("head", ("layer", "position", "head"), (2, 3, 4), (1, 2, 3))
    assert found.writers == {"a1.h3"}
    assert found.readers == {"a1.h3.q", "a1.kv1.k", "a1.kv1.v"}


def test_components_of_some_layers_and_heads_have_their_numbers_in_the_model():
    axes = {"head": ("layer", "position", "head"), "k": ("layer", "position", "kv_head")}
    labels = {"layer": ("1",), "position": ("end",), "head": ("3",), "kv_head": ("1",)}
    ends = torch.zeros(2).double(), torch.ones(2).double()
    for site, writers in (("head", {"a1.h3"}), ("k", {"a1.h2", "a1.h3"})):
        values = {site: torch.ones(1, 1, 1, 2).double()}
        result = PatchResult(values, {site: axes[site]}, labels, *ends, "noising", "m", "u")
        assert significant_components(result, GROUPED).writers == writers


def test_a_key_stands_for_the_heads_that_share_it():
    found = found_at("k", ("layer", "position", "kv_head"), (2, 3, 2), (0, 1, 0))
    assert found.writers == {"a0.h0", "a0.h1"}
    assert found.readers == {"a0.kv0.k", "a0.h0.q", "a0.h1.q", "a0.kv0.v"}


def test_an_input_is_read_at_every_place():
    graph = GROUPED.at_places(("one", "two"))
    axes, sizes, key = ("layer", "position", "kv_head"), (2, 3, 2), (0, 1, 0)
    others = {
        f"{name}@{place}" for name in ("a0.h0.q", "a0.h1.q", "a0.kv0.v") for place in graph.places
    }
    for each in (graph, graph.crossing(((0, 0), (0, 1), (1, 1)))):
        found = found_at("k", axes, sizes, key, graph=each)
        assert found.writers == {"a0.h0", "a0.h1"}
        moved = {r.name for r in each.readers if r.kind == "move" and r.component in found.writers}
        assert found.readers == {"a0.kv0.k@one", "a0.kv0.k@two"} | others | moved
        assert len(moved) == (4 if each.moves else 0)


@pytest.mark.parametrize("crossing", [False, True])
def test_places_are_told_apart_in_the_circuit_of_a_sweep(crossing):
    problem = problem_of("gpt2", metric="logit-difference", place_of=PLACE_OF, crossing=crossing)
    result = patch(problem, "head,q,k,v,mlp_out", mode="noising")
    circuit = circuit_of(problem, result, 1e-6, edge_threshold=1e-9)
    found = significant_components(result, problem.graph, 1e-6)
    assert {edge.writer.component for edge in circuit.edges} <= {"embed", *found.writers}
    moves = [edge for edge in circuit.edges if edge.writer.kind == "move"]
    assert len({edge.reader.place for edge in circuit.edges}) == 3 and bool(moves) == crossing


def test_block_outputs_stand_for_what_writes_them():
    assert found_at("mlp_out", ("layer", "position"), (2, 1), (1, 0)).writers == {"m1"}
    found = found_at("attn_out", ("layer", "position"), (2, 1), (0, 0))
    assert found.writers == {f"a0.h{head}" for head in range(4)}


def test_the_stream_stands_for_what_lies_between_two_depths():
    # The effect appears from the second block on, so the first block made it.
    found = found_at("resid_pre", ("layer", "position"), (2, 1), (1, 0))
    assert found.writers == {*(f"a0.h{head}" for head in range(4)), "m0"}


@pytest.mark.parametrize(
    ("family", "case"), [("gpt2", None), ("llama", None), ("llama", "resid-post")]
)
def test_the_circuit_is_what_a_plain_search_among_the_components_keeps(family, case):
    """All that lies before latents of the stream acts through these, which no sweep patches."""
    units = CASES[case] if case else {}
    problem = problem_of(family, metric="logit-difference", **units)
    engine = IncrementalEngine(problem)
    result = patch(problem, "mlp,head", mode="noising", positions="all")
    circuit = circuit_of(engine, result, 0.1, edge_threshold=0.05)
    assert circuit.kept.equal(searched(engine, result, 0.1, 0.05))
    assert 0 < circuit.n_edges < circuit.graph.n_edges


def searched(engine, result, threshold, edge_threshold):
    """Cut edges one by one by whole passes, then drop what leads nowhere."""
    graph = engine.graph
    found = significant_components(result, graph, threshold)
    kept = graph.mask_of(
        edge.name
        for edge in graph.edges()
        if (edge.writer.stage == 0 or edge.writer.name in found.writers or of_stream(edge.writer))
        and (edge.reader.name in {"logits", *found.readers} or of_stream(edge.reader))
    )
    allowed = edge_threshold * abs(result.gap)
    current = engine.readout.loss(engine.recomputed(kept))
    for reader in reversed(range(len(graph.readers))):
        for writer in reversed(range(len(graph.writers))):
            if kept[writer, reader]:
                trial = kept.clone()
                trial[writer, reader] = False
                loss = engine.readout.loss(engine.recomputed(trial))
                if loss - current < allowed:
                    kept, current = trial, loss
    alive = kept.clone()
    network = graph.network(alive)
    used = nx.ancestors(network, "logits") & nx.descendants(network, "embed")
    names = used | {"embed", "logits"}
    return graph.mask_of(
        edge.name
        for edge in graph.edges(alive)
        if edge.writer.component in names and edge.reader.component in names
    )


def of_stream(end):
    return end.name.split(".")[0] == "post0"


@pytest.fixture(scope="module")
def ioi():
    return make_problem(load_model("ioi-small"), "ioi", n_prompts=32, metric="logit-difference")


def test_edges_are_added_until_the_circuit_is_faithful(ioi):
    engine = IncrementalEngine(ioi)
    result = patch(ioi, "mlp,head", mode="noising")
    assert share(engine, circuit_of(engine, result, edge_threshold=0.01)) < 0.8
    found = circuit_of(ioi, result)
    assert share(engine, found) >= 0.8
    assert found.origin["faithfulness"] == pytest.approx(share(engine, found))
    assert found.origin["edge_threshold"] == 0.005
    same = circuit_of(engine, result, edge_threshold=0.005)
    assert found.kept.equal(same.kept)


def test_a_circuit_that_cannot_be_faithful_says_what_it_reached(ioi):
    found = circuit_of(ioi, patch(ioi, "mlp,head", mode="denoising"))
    reached = share(IncrementalEngine(ioi), found)
    assert reached < 0.8
    assert found.origin["faithfulness"] == pytest.approx(reached)


def share(engine, circuit):
    """Return the faithfulness of a circuit by whole passes."""
    masks = (engine.graph.edge_mask, circuit.kept, torch.zeros_like(circuit.kept))
    full, ours, empty = (engine.readout.loss(engine.recomputed(mask)) for mask in masks)
    return (ours - empty) / (full - empty)


def test_nothing_significant_is_no_circuit():
    problem = problem_of("gpt2", metric="logit-difference")
    result = patch(problem, "head", positions="all")
    with pytest.raises(MethodError, match="no component has an effect of 50 or more"):
        circuit_of(IncrementalEngine(problem), result, 50.0)


def test_a_circuit_that_needs_no_path_is_refused():
    problem = problem_of("gpt2", metric="logit-difference")
    for mode, advice in (("denoising", "threshold, or the mode noising"), ("noising", "threshold")):
        result = patch(problem, "head,mlp", mode=mode, positions="all")
        said = f"no path from the embedding to the logits is needed; choose a smaller {advice}$"
        with pytest.raises(MethodError, match=said):
            circuit_of(IncrementalEngine(problem), result, 0.01, edge_threshold=50.0)
