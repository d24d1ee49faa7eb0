"""From scores to circuits, and what every method that scores edges has in common."""

import math

import pytest
import torch

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.errors import CircuitfindError, LimitError, MethodError, MetricError
from circuitfind.methods import METHODS
from circuitfind.methods.base import NoOptions, ScoringMethod, StepwiseMethod
from circuitfind.methods.exact import Exact
from circuitfind.methods.scored import Scored
from circuitfind.methods.search import search
from circuitfind.methods.selection import Selection, chosen, share_of
from circuitfind.methods.settings import settled
from circuitfind.metrics import custom_metric
from tests.engine.problems import engine_of
from tests.type_checks import types_checked

SCORED = [method for method in METHODS if isinstance(method, Scored)]
QUICK = {name: {"steps": 20} for name in ("subnetwork-probing", "edge-pruning", "ugs", "mattr")}
every_scored_method = pytest.mark.parametrize("method", SCORED, ids=lambda method: method.name)


def test_the_table_holds_every_method():
    assert [method.name for method in METHODS] == [
        "acdc",
        "exact",
        "eap",
        "eap-ig",
        "hisp",
        "information-flow",
        "subnetwork-probing",
        "edge-pruning",
        "ugs",
        "mattr",
        "hybrid",
        "random",
    ]
    scoring = [method.name for method in METHODS if isinstance(method, ScoringMethod)]
    stepwise = [method.name for method in METHODS if isinstance(method, StepwiseMethod)]
    assert stepwise == ["acdc", "hybrid"] and len(stepwise) + len(scoring) == len(METHODS)


@every_scored_method
def test_a_scored_circuit_holds_the_highest_scores(method):
    engine = engine_of("gpt2", metric="logit-difference")
    asked = {"n_edges": 20, "prune": False, "walk": "top", **QUICK.get(method.name, {})}
    options, selection = settled(method, asked)
    found = search(engine, method, options, selection)
    scores = method.scores(engine, method.adapted(options, selection, engine.graph))
    assert found.circuit.edges == scores.top(20).edges
    assert len(found.decisions) == engine.graph.n_edges and found.n_tested == 0
    assert found.drift is None
    for decision in found.decisions:
        edge = engine.graph.edge(decision.edge)
        assert decision.reason == "scored" and decision.effect is None
        assert found.circuit.effect(edge) == decision.score


@every_scored_method
def test_a_scored_search_that_is_complete_scores_nothing_again(method, monkeypatch):
    engine = engine_of("gpt2", metric="logit-difference")
    settings = settled(method, {"n_edges": 20, **QUICK.get(method.name, {})})
    whole = search(engine, method, *settings)

    def scoring(*arguments):
        raise AssertionError("scored again")

    monkeypatch.setattr(type(method), "scoring", scoring)
    again = search(engine, method, *settings, resume=whole.decisions)
    assert (again.circuit.to_json(), again.decisions) == (whole.circuit.to_json(), whole.decisions)


@every_scored_method
def test_a_scored_search_goes_on_from_its_last_checkpoint_to_the_same_end(method):
    engine = engine_of("gpt2", metric="logit-difference", lengths=(6, 6, 6))
    extra = {} if method.name == "random" else {"batch": 1}
    settings = settled(method, {"n_edges": 20, **extra, **QUICK.get(method.name, {})})
    states = []
    whole = search(
        engine,
        method,
        *settings,
        on_progress=lambda p: states.append(p.checkpoint and p.checkpoint.state),
    )
    for state in [state for state in states if state][:-1:2] + [states[-2]]:
        seen = []
        again = search(engine, method, *settings, state=state, on_progress=seen.append)
        assert again.decisions == whole.decisions
        assert len(seen) <= len(states)


@pytest.mark.parametrize("walk", ["top", "greedy"])
@pytest.mark.parametrize("target", [0.3, 0.9, 1.0])
def test_a_target_is_reached_with_a_circuit_that_one_edge_less_would_miss(target, walk):
    engine = engine_of("llama", metric="logit-difference")
    choice = Selection(target_faithfulness=target, walk=walk)
    scores = METHODS.find("eap").scores(engine, METHODS.find("eap").options())
    circuit = chosen(engine, scores, choice)
    assert share_of(engine, circuit) >= target
    take = scores.greedy if walk == "greedy" else scores.top
    assert share_of(engine, take(circuit.n_edges - 1)) < target


def test_an_exact_circuit_can_be_asked_for_by_faithfulness_too():
    engine = engine_of("gpt2", metric="logit-difference")
    found = search(engine, Exact(), NoOptions(), Selection(target_faithfulness=0.8))
    assert share_of(engine, found.circuit) >= 0.8 - 1e-9
    assert found.circuit.n_edges < engine.graph.n_edges


def test_faithfulness_is_the_share_of_the_gap_that_is_closed():
    engine = engine_of("gpt2", metric="logit-difference")
    graph = engine.graph
    assert share_of(engine, Circuit(graph, graph.edge_mask)) == pytest.approx(1)
    assert share_of(engine, Circuit(graph, torch.zeros_like(graph.edge_mask))) == 0


def test_a_target_without_a_gap_or_beyond_the_whole_is_refused():
    flat = custom_metric(lambda logits, prompts: logits.new_ones(len(prompts)))
    engine = engine_of("gpt2", metric=flat)
    scores = EdgeScores(engine.graph, torch.rand(engine.graph.edge_mask.shape), "", "")
    with pytest.raises(MetricError, match="nothing for a circuit to explain"):
        chosen(engine, scores, Selection(target_faithfulness=0.5))
    with pytest.raises(LimitError, match="target faithfulness must be .* at most 1, not 1.5"):
        Selection(target_faithfulness=1.5)


@pytest.mark.parametrize("signed", [None, True, False])
def test_ranks_go_by_size_and_thresholds_by_value_unless_told_otherwise(signed):
    engine = engine_of("gpt2")
    values = torch.randn(engine.graph.edge_mask.shape, generator=torch.Generator().manual_seed(0))
    scores = EdgeScores(engine.graph, values, "", "")
    by_rank = chosen(engine, scores, Selection(n_edges=9, signed=signed))
    assert by_rank.edges == scores.top(9, signed=bool(signed)).edges
    by_value = chosen(engine, scores, Selection(threshold=0.5, signed=signed))
    assert by_value.edges == scores.above(0.5, signed=signed is not False).edges


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"n_edges": 3, "target_faithfulness": 0.9}, "not n_edges and target_faithfulness"),
        ({"target_faithfulness": math.nan}, "target faithfulness must be .* at most 1, not nan"),
        ({"n_edges": -3}, "edges must be a whole number from 0 to .*, not -3"),
        ({"n_edges": 3, "walk": "up"}, "no walk named 'up'; choose one of top, greedy"),
    ],
)
def test_impossible_choices_are_refused(options, line):
    with types_checked(check=False), pytest.raises(CircuitfindError, match=line):
        Selection(**options)


@pytest.mark.parametrize("name", ["eap", "exact", "random"])
def test_a_ranking_needs_to_be_told_how_many_edges(name):
    with pytest.raises(MethodError, match="a threshold and a target faithfulness, not none"):
        settled(METHODS.find(name), {})
    engine = engine_of("gpt2", metric="logit-difference")
    with pytest.raises(MethodError, match="a threshold and a target faithfulness, not none"):
        search(engine, METHODS.find(name), METHODS.find(name).options())


def test_the_random_baseline_is_fixed_by_its_seed_and_leads_to_the_logits():
    method, engine = METHODS.find("random"), engine_of("gpt2")
    asked = {"n_edges": 15, "prune": False}
    circuits = [
        search(engine, method, *settled(method, asked | {"seed": seed})).circuit
        for seed in (0, 0, 1)
    ]
    assert circuits[0].edges == circuits[1].edges != circuits[2].edges
    assert {circuit.n_edges for circuit in circuits} == {15}
    network = circuits[0].network()
    for edge in circuits[0].edges:
        assert edge.reader.component == "logits" or network.out_degree(edge.reader.component)
