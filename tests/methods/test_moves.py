"""Searches over moves inside attention, held to searches that run the whole model each time."""

from itertools import islice

import pytest
import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.soft_mask import soft_loss
from circuitfind.methods import METHODS
from circuitfind.methods.acdc import Acdc, AcdcOptions
from circuitfind.methods.base import circuit_of
from circuitfind.methods.order import visits
from circuitfind.methods.search import search
from circuitfind.methods.selection import Selection
from tests.engine.problems import EXACT, engine_of, loss_of, oracle_of, problem_of
from tests.engine.test_places import CASES, scores_of
from tests.engine.unit_cases import stream
from tests.methods.searches import assert_right_where_made, assert_same_search, decided
from tests.methods.test_places import BOTH_WAYS, LATE, SHIFTED, WHERE
from tests.oracles import search as oracle_search
from tests.oracles.search import leave_one_out

MOVES = {"crossing": True, "n_layers": 1}


@pytest.mark.parametrize(
    ("family", "ablation", "threshold", "where", "options"),
    [
        ("gpt2", "zero", 0.05, WHERE, {"group_qkv": True}),
        ("llama", "mean", 0.02, WHERE, {"order": "forward-index", "n_layers": 2}),
        ("gpt-neox-parallel", "zero", 0.2, WHERE, {"absolute": True, "metric": "logit-difference"}),
        ("gemma2", "resample", 0.01, WHERE, {}),
        ("bidirectional", "resample", 0.003, BOTH_WAYS, {}),
        ("llama", "resample", 0.02, LATE, {"n_shared": 3}),
        ("gpt2", "zero", 0.05, WHERE, stream("resid_mid", 0)),
    ],
)
def test_every_decision_is_that_of_a_search_that_runs_the_whole_model(
    family, ablation, threshold, where, options
):
    found = assert_same_search(family, ablation, threshold, where=where, **(MOVES | options))
    moves = [decision for decision in found if "@" in decision.edge.partition("->")[0]]
    assert {decision.reason for decision in moves} >= {"tested", "dead"}
    assert any(decision.kept for decision in moves)
    assert any(not decision.kept and decision.reason == "tested" for decision in moves)


def test_every_decision_of_a_random_order_is_right_where_it_was_made():
    engine, oracle = (of("llama", place_of=SHIFTED, **MOVES) for of in (engine_of, oracle_of))
    options = AcdcOptions(threshold=0.05, order="random", seed=1)
    assert_right_where_made(engine, oracle, options, WHERE)


def test_moves_are_visited_between_a_head_s_outputs_and_its_inputs():
    graph = engine_of("llama", place_of=SHIFTED, **MOVES).graph
    plan = visits(graph, "backward-index", seed=0)
    names = [graph.readers[reader].name for reader, _ in plan]
    assert names == list(oracle_search.readers_in_order(graph, "default"))
    assert names[6:9] == ["a0.h3@p2", "a0.h3@p1", "a0.h3@p0"]
    writers = [graph.writers[writer].name for writer in plan[6][1]]
    assert writers[:4] == ["a0.h3.v@p2", "a0.h3.k@p2", "a0.h3.q@p2", "a0.h3.v@p1"]


def test_effects_of_single_cuts_are_those_of_the_whole_model():
    engine, oracle = (
        of("llama", "mean", place_of=SHIFTED, **MOVES) for of in (engine_of, oracle_of)
    )
    loss = loss_of("kl", oracle, engine.problem.prompts)
    expected = leave_one_out(oracle.logits, oracle.graph, loss)
    exact = METHODS.find("exact")
    found = search(engine, exact, exact.options(), Selection(threshold=-1e9))
    effects = circuit_of(engine.graph, list(found.decisions)).effects
    torch.testing.assert_close(effects, expected, **EXACT, equal_nan=True)


def test_a_resumed_search_decides_bit_for_bit_as_an_uninterrupted_one():
    engine = engine_of("llama", "zero", place_of=SHIFTED, **MOVES)
    chosen = AcdcOptions(threshold=0.1)
    whole = decided(engine, chosen)
    for stop in (1, 9, 30):
        first = [d for p in islice(Acdc().run(engine, chosen), stop) for d in p.decisions]
        assert first + decided(engine, chosen, resume=first) == whole


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "bidirectional"])
def test_scores_of_moves_are_slopes_of_the_loss_of_a_soft_mask(family, ablation):
    setting = {"crossing": True, **CASES["unequal"]}
    problem = problem_of(family, ablation, "logit-difference", **setting)
    engine = IncrementalEngine(problem)
    found, graph = scores_of(engine), engine.graph
    clean = engine.replacement, engine.clean_final

    def loss(mask):
        with torch.no_grad():
            return float(soft_loss(problem, *clean, mask))

    generator = torch.Generator().manual_seed(0)
    moves = torch.zeros_like(graph.edge_mask)
    moves[graph.inner] = graph.edge_mask[graph.inner]
    pairs = moves.nonzero()
    sizes = []
    for pair in pairs[torch.randperm(len(pairs), generator=generator)[:24]].tolist():
        lower, upper = graph.edge_mask.double(), graph.edge_mask.double()
        lower[tuple(pair)] -= 1e-4
        upper[tuple(pair)] += 1e-4
        slope = (loss(lower) - loss(upper)) / 2e-4
        assert found[tuple(pair)] == pytest.approx(slope, abs=1e-6), pair
        sizes.append(abs(slope))
    assert max(sizes) > 1e-4


def test_scores_of_other_edges_are_those_without_moves():
    with_moves, without = (
        scores_of(
            IncrementalEngine(
                problem_of("llama", metric="logit-difference", place_of=SHIFTED, crossing=crossing)
            )
        )
        for crossing in (True, False)
    )
    assert torch.equal(with_moves[: len(without), : without.shape[1]], without)


@pytest.mark.parametrize("name", ["eap", "eap-ig"])
def test_scores_by_a_path_and_by_one_gradient_rank_moves(name):
    engine = engine_of("llama", metric="logit-difference", place_of=SHIFTED, **MOVES)
    method = METHODS.find(name)
    scores = method.scores(engine, method.options())
    kept = scores.top(30).kept
    assert kept[engine.graph.inner].any() and kept.sum() == 30
