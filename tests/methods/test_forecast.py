"""What a forecast counts is what a search with the same outcome does."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import circuitfind as cf
from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.granularity import heads_and_mlps
from circuitfind.methods.acdc import search_from
from circuitfind.methods.forecast import assumed_circuit, forecast
from circuitfind.methods.order import visits
from tests.engine.problems import engine_of
from tests.oracles.checkpoints import FAMILIES


@pytest.mark.parametrize("metric", ["kl", "logit-difference"])
def test_a_forecast_counts_what_a_search_does(metric):
    model = cf.load_model("ioi-small")
    engine = IncrementalEngine(cf.make_problem(model, "ioi", n_prompts=4, metric=metric))
    circuit = assumed_circuit(engine.graph, 9)
    found = forecast(engine, circuit)
    evaluated = counting(engine)
    with FlopCounterMode(display=False) as counter:
        tested = searched(engine, circuit)
    assert (found.tests, found.evaluations) == (tested, sum(evaluated))
    # Some readers stand for the others, and states are made as well as tested.
    assert 0.6 < found.operations / counter.get_total_flops() < 1.4
    with FlopCounterMode(display=False) as counter:
        engine.readout.loss(engine.recomputed(engine.graph.edge_mask, "replaced"))
    assert found.operations_full_pass == counter.get_total_flops()


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt-neox-parallel"])
@pytest.mark.parametrize("n_components", [1, 4, 7])
def test_an_assumed_circuit_has_its_components_on_paths_to_the_logits(family, n_components):
    graph = heads_and_mlps(FAMILIES[family].shape(2))
    kept = assumed_circuit(graph, n_components, seed=3)
    circuit = Circuit(graph, kept)
    assert torch.equal(circuit.connected().kept, kept)
    names = {writer.name for writer, used in zip(graph.writers, kept.any(1), strict=True) if used}
    assert len(names - {"embed"}) == n_components


@pytest.mark.parametrize("n_components", [1, 4, 7])
def test_an_assumed_circuit_has_the_moves_of_its_heads(n_components):
    placed = heads_and_mlps(FAMILIES["llama"].shape(2)).at_places(("one", "two"))
    graph = placed.crossing(((0, 0), (0, 1), (1, 1)))
    kept, without = (assumed_circuit(each, n_components, seed=3) for each in (graph, placed))
    n_writers, n_readers = graph.n_outer
    assert torch.equal(kept[:n_writers, :n_readers], without)
    assert not Circuit(graph, kept & ~graph.edge_mask).n_edges
    heads = {e.writer.component for e in Circuit(graph, kept).edges if e.writer.kind == "move"}
    used = {placed.writers[i].name for i in placed.heads if without[i].any()}
    assert heads == used and int(kept[graph.inner].sum()) == 9 * len(used)


@pytest.mark.parametrize("n_components", [0, 1000])
def test_a_circuit_larger_than_the_model_cannot_be_assumed(n_components):
    graph = engine_of("gpt2").graph
    with pytest.raises(MethodError, match=r"the model has \d+ heads and MLPs, so give a number"):
        assumed_circuit(graph, n_components)


def test_what_is_not_sampled_in_time_is_taken_to_be_like_its_neighbours(monkeypatch):
    engine = engine_of("gpt2")
    circuit = assumed_circuit(engine.graph, 4)
    whole = forecast(engine, circuit)
    monkeypatch.setattr("circuitfind.methods.forecast.MOST_SECONDS", -1.0)
    batches = counting(engine)
    short = forecast(engine, circuit)
    # A single reader: tried once to warm up, once for its operations, once for its time.
    assert len(batches) == 3
    assert (short.tests, short.evaluations) == (whole.tests, whole.evaluations)
    assert short.operations > 0 and short.seconds > 0


def searched(engine, circuit):
    """Search with the decisions that lead to a circuit; return how many edges were tested."""
    names = {edge.name for edge in Circuit(engine.graph, circuit).edges}
    plan = visits(engine.graph, "backward-index", seed=0)
    steps = search_from(engine, engine.start(), plan, lambda edge, _: edge not in names)
    return sum(d.reason == "tested" for progress in steps for d in progress.decisions)


def counting(engine):
    widths = []
    original = engine.cut_nested

    def counted(state, reader, writers):
        widths.append(len(writers))
        return original(state, reader, writers)

    engine.cut_nested = counted
    return widths
