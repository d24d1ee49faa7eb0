"""Rivals: proved against brute force over all sets of edges, and searched for with a price."""

import itertools
import math

import pytest
import torch

import circuitfind as cf
from circuitfind.directories.rivals import RivalsConfig
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.evaluation import exhaustive
from circuitfind.evaluation.measured import Measured
from circuitfind.methods.repelled import Repulsion, repelled
from circuitfind.models.wiring import SHARP, Wiring, column, one, sizes_of
from circuitfind.models.zoo import zoo_path
from circuitfind.verbs import contest as verb
from circuitfind.verbs.contest import Contest
from tests.oracles.compiled import CompiledOracle

OR = {"embed->a0.h0.v", "a0.h0->m0", "m0->logits"}
OTHER = {"embed->a0.h1.v", "a0.h1->m0", "m0->logits"}


def problem_of(model, task=None, ablation="resample", n=8):
    loaded = cf.load_model(model, dtype="float64")
    return cf.make_problem(loaded, task=task or model, n_prompts=n, ablation=ablation)


@pytest.fixture(scope="module")
def gate():
    return problem_of("or-gate", "or-gate:both", n=1)


def names(edges):
    return {edge.name for edge in edges}


def test_either_input_of_a_gate_is_the_rival_of_the_other(gate):
    found = cf.rivals(gate, cf.Circuit.of_edges(gate, OR))
    assert [set(each.edges) for each in found.rivals] == [OTHER]
    assert found.proved and found.core == ("m0->logits",)
    assert (found.rivals[0].gone, found.rivals[0].instead) == (("a0.h0",), ("a0.h1",))
    assert found.least == pytest.approx(1 / 5)


def test_a_backup_is_a_rival_that_shares_nothing():
    problem = problem_of("backup-head", ablation="zero")
    own = ["embed->a0.h0.k", "embed->a0.h0.v", "a0.h0->logits"]
    found = cf.rivals(problem, cf.Circuit.of_edges(problem, own))
    assert found.least == 0 and not found.core and set(found.spared) == set(own)
    assert {"embed->a1.h0.k", "embed->a1.h0.v", "a1.h0->logits"} == set(found.rivals[0].edges)


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Two heads that both name the first symbol, each with certainty; of `-` they say nothing."""
    sizes = sizes_of("abc-", "abc", length=2, n_layers=2, n_heads=1, d_head=3, d_mlp=0)
    wiring = Wiring(sizes, {"token": 5, "position": 3, "output": 3})
    for layer in (0, 1):
        wiring.head(
            layer, 0, query={}, query_bias=[SHARP], key={"position": column(one(3, 1))},
            value={"token": torch.eye(5)[:, 1:4].clone()}, output={"output": SHARP * torch.eye(3)},
        )  # fmt: skip
    folder = tmp_path_factory.mktemp("copies")
    wiring.save(folder, "copies")
    model = cf.load_model(str(folder / "copies.json"), dtype="float64")
    pairs = [cf.Pair([0, symbol, 4], [0, 4, 4], [()], steps=[2]) for symbol in (1, 2, 3)]
    return cf.make_problem(model, cf.collate(pairs), metric="kl")


@pytest.mark.parametrize("most", [0, 20_000])
def test_two_copies_that_share_no_edge_are_each_other_s_rivals(copies, most, monkeypatch):
    monkeypatch.setattr(exhaustive, "MOST_SUBSETS", most)
    first, second = (["embed->a0.h0.v", "a0.h0->logits"], ["embed->a1.h0.v", "a1.h0->logits"])
    found = cf.rivals(copies, cf.Circuit.of_edges(copies, first), restarts=3)
    assert found.rivals[0].edges == tuple(second) and found.least == 0
    assert found.rivals[0].faithfulness == pytest.approx(1)
    assert found.proved == (most > 0) and not found.core


def test_a_unique_circuit_is_proved_to_have_no_rival():
    problem = problem_of("reverse")
    found = cf.rivals(cf.discover(problem, threshold=1e-3))
    assert found.proved and not found.rivals and not found.n_within
    assert found.verdict.startswith("proved: there is no rival")


@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_the_proof_agrees_with_brute_force_over_all_sets_of_edges(ablation):
    problem = problem_of("or-gate", "or-gate:both", ablation, n=1)
    graph, prompts = problem.graph, problem.prompts
    oracle = CompiledOracle(zoo_path("or-gate"), graph, prompts.clean, prompts.corrupted, ablation)
    every = [edge.name for edge in graph.edges()]
    full = oracle.outputs(every)

    def distance(chosen):
        return float((oracle.outputs(chosen) - full).square()[:, 1:].sum())

    own = OR if ablation == "resample" else OR | {"embed->a0.h0.k"}
    limit = distance(own) + 1e-9
    expected = {
        frozenset(chosen)
        for size in range(1, len(own) + 1)
        for chosen in itertools.combinations(every, size)
        if distance(chosen) <= limit
    }
    if ablation == "resample":
        expected = {
            each
            for each in expected
            if len(cf.Circuit.of_edges(graph, each).connected().edges) == len(each)
        }
    found = cf.rivals(problem, cf.Circuit.of_edges(problem, own))
    assert {frozenset(each.edges) for each in found.rivals} == {
        each for each in expected if not each <= own
    }
    assert expected and found.n_within == sum(each < own for each in expected)


def test_a_price_of_nothing_is_the_usual_search_in_that_order():
    problem = problem_of("backup-head", ablation="zero")
    usual = cf.discover(problem, threshold=1e-3, order="random", seed=3)
    same = repelled(IncrementalEngine(problem), usual.circuit, Repulsion(1e-3, 0.0, 3))
    assert torch.equal(same.kept, usual.circuit.kept)
    dear = repelled(IncrementalEngine(problem), usual.circuit, Repulsion(1e-3, 1e6, 3))
    assert not bool((dear.kept & usual.circuit.kept).any())


def test_at_any_price_only_what_nothing_else_does_is_kept(gate):
    engine, circuit = IncrementalEngine(gate), cf.Circuit.of_edges(gate, OR)
    for seed in range(4):
        found = repelled(engine, circuit, Repulsion(1e-3, math.inf, seed))
        assert names(found.edges) == OTHER


def test_searches_find_the_rival_and_say_what_they_cannot_rule_out(gate, monkeypatch):
    monkeypatch.setattr(exhaustive, "MOST_SUBSETS", 0)
    contest = Contest(cf.Circuit.of_edges(gate, OR), Measured(gate), None, RivalsConfig(restarts=6))
    found, circuits = contest.run()
    assert names(circuits[0].edges) == OTHER and not found.proved
    # None of six would show a share p with probability (1 - p)^6, which is 5 % here.
    assert (1 - found.unseen) ** 6 == pytest.approx(0.05)
    assert found.n_restarts == 6 and 1 <= found.n_met <= 6


def test_restarts_that_were_made_are_not_made_again(gate, monkeypatch):
    monkeypatch.setattr(exhaustive, "MOST_SUBSETS", 0)
    circuit, kept = cf.Circuit.of_edges(gate, OR), {}
    first = Contest(circuit, Measured(gate), None, RivalsConfig(restarts=3), keep=kept.__setitem__)
    expected, _ = first.run()
    monkeypatch.setattr(verb, "repelled", None)
    again = Contest(circuit, Measured(gate), None, RivalsConfig(restarts=3), kept)
    assert again.run()[0].rivals == expected.rivals


def test_an_empty_circuit_has_no_rivals(gate):
    with pytest.raises(MethodError, match="the circuit is empty"):
        cf.rivals(gate, cf.Circuit.of_edges(gate, []))
