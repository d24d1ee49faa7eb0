"""Rivals: proved against brute force over all sets of edges, and searched for with a price."""

import contextlib
import itertools
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import circuitfind as cf
from circuitfind.budget import BudgetSpentError, within
from circuitfind.comparison.rivals import Restarts
from circuitfind.directories.attempts import ATTEMPTS, Attempts
from circuitfind.directories.rivals import RivalsConfig
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import GraphError, LimitError, MethodError, RunDirectoryError
from circuitfind.evaluation import exhaustive
from circuitfind.evaluation.intervals import share_bound
from circuitfind.evaluation.measured import Measured
from circuitfind.evaluation.passes import PassLog
from circuitfind.graph import Units
from circuitfind.methods.edge_pruning import EdgePruning
from circuitfind.methods.learned import EdgeOptions
from circuitfind.methods.repelled import Repulsion, largest, repelled, trained_apart
from circuitfind.methods.selection import Selection
from circuitfind.models.zoo import zoo_path
from circuitfind.verbs import restarts as verb
from circuitfind.verbs.contest import Contest, rounding
from circuitfind.verbs.restarts import Restarting, seed_of
from tests.engine.problems import engine_of, loss_of, oracle_of
from tests.oracles.compiled import CompiledOracle

OR = {"embed->a0.h0.v", "a0.h0->m0", "m0->logits"}
OTHER = {"embed->a0.h1.v", "a0.h1->m0", "m0->logits"}
OWN, THEIRS = ({f"embed->a{n}.h0.v", f"a{n}.h0->logits"} for n in (0, 1))


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
def twice():
    return problem_of("two-circuits", n=12)


@pytest.mark.parametrize("most", [0, 20_000])
def test_two_circuits_that_share_no_edge_are_each_other_s_rivals(twice, most, monkeypatch):
    monkeypatch.setattr(exhaustive, "MOST_SUBSETS", most)
    for own, other in ((OWN, THEIRS), (THEIRS, OWN)):
        found = cf.rivals(twice, cf.Circuit.of_edges(twice, own), restarts=3)
        assert [set(each.edges) for each in found.rivals] == [other] and found.least == 0
        assert found.rivals[0].faithfulness == pytest.approx(1)
        assert found.proved == (most > 0) and not found.core and set(found.spared) == own


def test_a_unique_circuit_is_proved_to_have_no_rival():
    problem = problem_of("reverse")
    found = cf.rivals(cf.discover(problem, threshold=1e-3))
    assert found.proved and not found.rivals and not found.n_within
    assert found.core == found.spared == ()
    assert found.needed.startswith("all 2: no other set of at most as many edges is as faithful")
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


def test_masks_without_a_price_are_the_usual_ones_and_with_one_take_the_other_circuit(twice):
    engine, options = IncrementalEngine(twice), EdgeOptions(seed=10**15, steps=10)
    usual = EdgePruning().adapted(options, Selection(n_edges=2), engine.graph)
    free = trained_apart(engine, cf.Circuit.of_edges(twice, OWN), 0.0, options).effects
    assert torch.equal(free, EdgePruning().scores(engine, usual).values)
    for own, other in ((OWN, THEIRS), (THEIRS, OWN)):
        avoided = cf.Circuit.of_edges(twice, own)
        found = largest(trained_apart(engine, avoided, 1.0, EdgeOptions(seed=7, steps=30)), 2)
        assert names(found.edges) == other


def test_every_fourth_restart_trains_masks_and_is_counted_apart(twice, contest_of, monkeypatch):
    monkeypatch.setattr(exhaustive, "MOST_SUBSETS", 0)
    monkeypatch.setattr(verb, "STEPS", 30)
    contest = contest_of(twice, cf.Circuit.of_edges(twice, OWN), restarts=4)
    found, (rival,) = contest.run()
    assert [(each.kind, each.n) for each in found.kinds] == [("acdc", 3), ("learned masks", 1)]
    assert found.kinds[1] == Restarts("learned masks", 1, 1, 0.0)
    assert found.n_met == sum(each.n_met for each in found.kinds)
    assert "52.7% of such restarts in this mix of kinds share less" in found.verdict
    assert "every fourth by training masks" in contest.cost
    # Probabilities are no effects.
    assert contest.attempts[3].effects is None and torch.equal(contest.attempts[3].kept, rival.kept)


def test_no_masks_are_trained_where_they_have_no_gradient_or_cannot_tell_moves_apart(gate):
    jumps = replace(cf.find_metric("l2"), name="jumps", slope="nowhere")
    moves = engine_of("gpt2", n_layers=1, **SHAPES["moves"][1]).problem
    for problem, why in (
        (replace(gate, metric=jumps), "the metric 'jumps' has no gradient"),
        (moves, "learned masks cannot tell the moves inside attention apart"),
    ):
        circuit = cf.Circuit.of_edges(problem, [])
        attempts = Attempts(problem.graph)
        found = Restarting(circuit, Measured(problem), RivalsConfig(), attempts, print)
        assert found.cost.endswith(f", none of them with learned masks, as {why}")
        assert {found.kind(number) for number in range(8)} == {"acdc"}


def test_searches_find_the_rival_and_say_what_they_cannot_rule_out(gate, contest_of, monkeypatch):
    monkeypatch.setattr(exhaustive, "MOST_SUBSETS", 0)
    found, circuits = contest_of(gate, restarts=6).run()
    assert names(circuits[0].edges) == OTHER and not found.proved
    # None of six would show a share p with probability (1 - p)^6, which is 5 % here.
    assert (1 - found.unseen) ** 6 == pytest.approx(0.05)
    assert found.n_restarts == 6 and 1 <= found.n_met <= 6


def test_restarts_that_were_made_are_not_made_again(gate, contest_of, tmp_path, monkeypatch):
    monkeypatch.setattr(exhaustive, "MOST_SUBSETS", 0)
    expected, circuits = contest_of(gate, folder=tmp_path, restarts=3).run()
    monkeypatch.setattr(verb, "repelled", None)
    again, same = contest_of(gate, folder=tmp_path, restarts=3).run()
    assert again.rivals == expected.rivals
    assert [each.to_json() for each in same] == [each.to_json() for each in circuits]
    assert circuits[0].effect("m0->logits") > 0
    with (tmp_path / ATTEMPTS).open("a") as file:
        file.write('[0, nothing\n[true, null]\n[1, [["embed->m7", 1.0]]]\n[2]\n{}\n')
    attempts = contest_of(gate, folder=tmp_path).attempts
    said = f"damaged lines of {ATTEMPTS}, whose restarts are repeated: 5"
    assert len(attempts) == 3 and attempts.told[1] == said


@pytest.mark.parametrize(("most", "every"), [(0, 4), (0, 1), (20_000, 4)])
def test_any_budget_gets_further_and_ends_where_none_does(
    gate, contest_of, most, every, tmp_path, monkeypatch
):
    monkeypatch.setattr(exhaustive, "MOST_SUBSETS", most)
    monkeypatch.setattr(verb, "EVERY", every)
    monkeypatch.setattr(verb, "STEPS", 20)
    monkeypatch.setattr(exhaustive, "_TOGETHER", 100)
    expected, circuits = contest_of(gate, folder=tmp_path / "whole", restarts=1).run()
    (tmp_path / "parts").mkdir()
    told, found = [], None
    while found is None:
        with contextlib.closing(PassLog(tmp_path / "passes")) as log:
            contest = contest_of(gate, log=log, folder=tmp_path / "parts", restarts=1)
            contest.on_progress = within(0.0, lambda step: told.append(step.done))
            with contextlib.suppress(BudgetSpentError):
                found = contest.run()
        # Each time, what was done already is told, and one more step.
        assert len(told) <= 100
    assert len(told) > 6 and replace(found[0], seconds=expected.seconds) == expected
    assert [each.to_json() for each in found[1]] == [each.to_json() for each in circuits]
    assert not list(tmp_path.rglob("restart-*"))


def test_decisions_of_another_search_are_refused(gate, contest_of, tmp_path, monkeypatch):
    monkeypatch.setattr(exhaustive, "MOST_SUBSETS", 0)
    (tmp_path / "restart-0-0.jsonl").write_text('{"edge": "m0->logits", "kept": 3}\n')
    with pytest.raises(RunDirectoryError, match="restart-0-0.jsonl, line 1, is damaged"):
        contest_of(gate, folder=tmp_path).run()


@pytest.fixture
def opened():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def contest_of(opened):
    return partial(_contest_of, opened)


def _contest_of(opened, problem, circuit=None, *, log=None, folder=None, held_out=None, **settings):
    circuit = circuit or cf.Circuit.of_edges(problem, OR)
    if folder is not None:
        folder.mkdir(exist_ok=True)
    attempts = opened.enter_context(contextlib.closing(Attempts(circuit.graph, folder)))
    measured = Measured(problem, log=log)
    return Contest(circuit, measured, held_out, RivalsConfig(**settings), attempts)


SHAPES = {
    "places": (2, {"place_of": ((0, 0, 0, 1, 1, 1),) * 2}),
    "neurons": (2, {"units": (Units(0, "neuron", (0, 3, 17)),)}),
    "moves": (3, {"place_of": ((0,) * 6,) * 2, "crossing": True}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_rivals_among_places_neurons_and_moves_are_those_of_brute_force(shape):
    most, options = SHAPES[shape]
    engine, oracle = (of("gpt2", n_layers=1, **options) for of in (engine_of, oracle_of))
    graph, loss = engine.graph, loss_of("kl", oracle, engine.problem.prompts)
    losses = {
        tuple(each.names): loss(oracle.logits(each.kept))
        for each in connected_circuits(graph, most)
    }
    own = sorted((names for names in losses if len(names) == most), key=losses.__getitem__)[5]
    rivals = {n for n in losses if losses[n] <= losses[own] + 1e-12 and not set(n) <= set(own)}
    found = cf.rivals(engine, cf.Circuit.of_edges(graph, own))
    assert found.proved and {each.edges for each in found.rivals} == rivals
    assert 5 <= len(rivals) < len(losses) - 5


@pytest.mark.parametrize(
    ("shape", "threshold"), [("places", 0.01), ("neurons", 0.01), ("moves", 0.05)]
)
def test_searches_find_rivals_among_places_neurons_and_moves(shape, threshold):
    engine, oracle = (of("gpt2", n_layers=1, **SHAPES[shape][1]) for of in (engine_of, oracle_of))
    graph, loss = engine.graph, loss_of("kl", oracle, engine.problem.prompts)
    circuit = cf.discover(engine, threshold=threshold).circuit
    found = cf.rivals(engine, circuit, restarts=2, tolerance=0.5)
    empty = loss(oracle.logits(torch.zeros_like(graph.edge_mask)))
    assert found.rivals and not found.proved
    for each in found.rivals:
        kept = graph.mask_of(each.edges)
        assert loss(oracle.logits(kept)) <= loss(oracle.logits(circuit.kept)) + 0.5 * empty + 1e-9
        assert len(each.edges) <= circuit.n_edges and bool((kept & ~circuit.kept).any())


def connected_circuits(graph, most):
    """Yield all circuits of at most some edges, each of them on a path from embedding to logits."""
    edges = [edge.name for edge in graph.edges()]
    for size in range(1, most + 1):
        for chosen in itertools.combinations(edges, size):
            if any("->logits" in name for name in chosen) and any("embed" in n for n in chosen):
                circuit = cf.Circuit.of_edges(graph, chosen)
                if circuit.connected().n_edges == size:
                    yield SimpleNamespace(names=names_of(circuit), kept=circuit.kept)


def names_of(circuit):
    return [edge.name for edge in circuit.edges]


def test_no_two_restarts_of_any_seeds_share_an_order():
    every = {seed_of(seed, number) for seed in range(20) for number in range(50)}
    assert len(every) == 1000


def test_restarts_whose_trainings_all_fail_do_not_count(gate, contest_of, tmp_path, monkeypatch):
    def fail(*_):
        raise MethodError("the loss is infinite")

    monkeypatch.setattr(exhaustive, "MOST_SUBSETS", 0)
    monkeypatch.setattr(verb, "repelled", lambda _, circuit, *__: circuit)
    monkeypatch.setattr(verb, "trained_apart", fail)
    for _ in range(2):
        found, _ = contest_of(gate, folder=tmp_path, restarts=4).run()
        assert (found.n_restarts, found.unseen) == (3, share_bound(0, 3))
        assert [str(each) for each in found.kinds] == [
            "acdc: 0 of 3 met a rival",
            "learned masks: 0 of 0 met a rival, 1 more ended with an infinite loss",
        ]
        # A resumed search knows as much.
        monkeypatch.setattr(verb, "repelled", fail)


def test_only_thresholds_in_the_metric_s_unit_are_taken_over(gate, contest_of, monkeypatch):
    asked = []
    monkeypatch.setattr(exhaustive, "MOST_SUBSETS", 0)
    monkeypatch.setattr(
        verb, "repelled", lambda _, circuit, asked_, *__: asked.append(asked_.threshold) or circuit
    )
    gap = Measured(gate).scale
    share = 0.1 * abs(gap.full - gap.empty) / 3
    for method, options, expected in (
        ("acdc", {"threshold": 0.25}, 0.25),
        ("hybrid", {"threshold": 0.25}, 0.25),
        ("acdc", {"threshold": -1.0}, share),
        ("edge-pruning", {"threshold": 0.25}, share),
        ("nobody's", {"threshold": 0.25}, share),
        (None, None, share),
        # Of files that were edited.
        ("acdc", [1], share),
        ("acdc", "x", share),
        ("acdc", {"threshold": True}, share),
        (["acdc"], {"threshold": 0.25}, share),
    ):
        origin = {"method": method, "options": options}
        circuit = replace(cf.Circuit.of_edges(gate, OR), origin=origin)
        contest_of(gate, circuit, restarts=1).run()
        assert asked[-3:] == pytest.approx([expected, expected / 4, expected / 16]), method
    contest_of(gate, circuit, restarts=1, threshold=7.0).run()
    assert asked[-3] == 7.0
    for threshold in (0.0, -1.0):
        with pytest.raises(LimitError, match="^threshold must be a number above 0"):
            cf.rivals(gate, circuit, threshold=threshold)


def test_a_rival_may_be_less_faithful_by_the_rounding_of_the_model_s_numbers(contest_of):
    assert rounding(torch.float64) == 1e-9 and rounding(torch.bfloat16) > 1e-3
    single = cf.make_problem(cf.load_model("or-gate", dtype="float32"), "or-gate:both", n_prompts=1)
    contest = contest_of(single)
    assert contest.target == contest.wanted - 1e-6


def test_held_out_prompts_are_of_the_same_graph_and_in_the_same_memory(gate):
    circuit = cf.Circuit.of_edges(gate, OR)
    with pytest.raises(GraphError, match="belongs to another model"):
        cf.rivals(gate, circuit, held_out=problem_of("backup-head"))
    with pytest.raises(MethodError, match="one pair of prompts at a time"):
        cf.rivals(IncrementalEngine(gate), circuit, held_out=gate, memory=1)


def test_a_rival_that_needs_no_edge_is_refused(gate):
    with pytest.raises(MethodError, match="with a tolerance of 1 a rival needs none: no edge at"):
        cf.rivals(gate, cf.Circuit.of_edges(gate, OR), tolerance=1.0)


def test_an_empty_circuit_has_no_rivals(gate):
    with pytest.raises(MethodError, match="the circuit is empty"):
        cf.rivals(gate, cf.Circuit.of_edges(gate, []))
