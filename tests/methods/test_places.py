"""Searches over edges at single places, held to searches that run the whole model each time."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from circuitfind.methods import METHODS
from circuitfind.methods.acdc import Acdc, AcdcOptions
from circuitfind.methods.base import circuit_of
from circuitfind.methods.order import visits
from circuitfind.methods.search import search
from circuitfind.methods.selection import Selection
from tests.engine.problems import EXACT, engine_of, loss_of, oracle_of
from tests.methods.searches import assert_right_where_made, assert_same_search, decided
from tests.oracles import search as oracle_search
from tests.oracles.search import Where, leave_one_out

SHIFTED = ((0, 1, 1, 1, 2, 2), (1, 0, 0, 2, 2, 2))
"""Places that lie elsewhere in the second prompt, two of them in the other order."""

WHERE = Where(SHIFTED, steps=(5,))
"""The metric reads at the last place only."""

BOTH_WAYS = Where(SHIFTED, steps=(5,), causal=False)

LATE = Where(SHIFTED, steps=(5,), first_change=3)
"""Place 0 lies before any difference, so nothing can depend on its keys and values."""


@pytest.mark.parametrize(
    ("family", "ablation", "threshold", "where", "options"),
    [
        ("gpt2", "zero", 0.05, WHERE, {"group_qkv": True, "n_layers": 1}),
        ("llama", "mean", 0.02, WHERE, {"order": "forward-index"}),
        ("gpt-neox-parallel", "zero", 0.2, WHERE, {"absolute": True, "metric": "logit-difference"}),
        ("gemma2", "resample", 0.01, WHERE, {}),
        ("bidirectional", "resample", 0.003, BOTH_WAYS, {"group_qkv": True, "n_layers": 1}),
        ("llama", "resample", 0.02, LATE, {"n_shared": 3}),
        ("gpt2", "zero", 0.0, WHERE, {"n_layers": 1, "split_embedding": True}),
    ],
)
def test_every_decision_is_that_of_a_search_that_runs_the_whole_model(
    family, ablation, threshold, where, options
):
    found = assert_same_search(family, ablation, threshold, where=where, **options)
    assert {decision.reason for decision in found} >= {"tested", "dead"}
    assert len({d.edge.partition("@")[2] for d in found if d.kept}) >= 2


def test_every_decision_of_a_random_order_is_right_where_it_was_made():
    engine, oracle = (of("llama", place_of=SHIFTED) for of in (engine_of, oracle_of))
    options = AcdcOptions(threshold=0.05, order="random", seed=1)
    assert_right_where_made(engine, oracle, options, WHERE)


def test_the_last_place_of_an_input_is_visited_first():
    graph = engine_of("llama", n_layers=1, place_of=SHIFTED).graph
    names = [graph.readers[reader].name for reader, _ in visits(graph, "backward-index", seed=0)]
    assert names == list(oracle_search.readers_in_order(graph, "default"))
    assert names[:4] == ["logits@p2", "logits@p1", "logits@p0", "m0@p2"]
    assert names[6:10] == ["a0.kv1.v@p2", "a0.kv0.v@p2", "a0.kv1.v@p1", "a0.kv0.v@p1"]


@pytest.mark.parametrize(("family", "ablation"), [("gpt2", "mean"), ("gemma2", "resample")])
def test_effects_of_single_cuts_are_those_of_the_whole_model(family, ablation):
    engine, oracle = (
        of(family, ablation, place_of=SHIFTED, n_layers=1) for of in (engine_of, oracle_of)
    )
    loss = loss_of("kl", oracle, engine.problem.prompts)
    expected = leave_one_out(oracle.logits, oracle.graph, loss)
    exact = METHODS.find("exact")
    found = search(engine, exact, exact.options(), Selection(threshold=-1e9))
    effects = circuit_of(engine.graph, list(found.decisions)).effects
    torch.testing.assert_close(effects, expected, **EXACT, equal_nan=True)


def test_the_hybrid_tests_the_top_share_of_edges_at_places():
    engine, oracle = (of("llama", place_of=SHIFTED, n_layers=1) for of in (engine_of, oracle_of))
    hybrid, eap_ig = METHODS.find("hybrid"), METHODS.find("eap-ig")
    found = search(engine, hybrid, hybrid.options(threshold=0.02, share=0.3))
    scores = eap_ig.scores(engine, eap_ig.options())
    kept = scores.top(-(-3 * engine.graph.n_edges // 10)).kept
    loss = loss_of("kl", oracle, engine.problem.prompts)
    current, tested = loss(oracle.logits(kept)), 0
    for decision in found.decisions:
        trial = kept & ~oracle.graph.mask_of([decision.edge])
        if decision.reason == "tested":
            tested += 1
            after = loss(oracle.logits(trial))
            assert decision.effect == pytest.approx(after - current, abs=1e-9)
            assert decision.kept == (after - current >= 0.02)
            current = current if decision.kept else after
        if not decision.kept:
            kept = trial
    assert tested >= 10


@pytest.mark.parametrize("options", [{}, {"group_qkv": True}, {"order": "random", "seed": 3}])
def test_a_resumed_search_decides_bit_for_bit_as_an_uninterrupted_one(options):
    engine = engine_of("llama", "zero", place_of=SHIFTED, n_layers=1)
    chosen = AcdcOptions(threshold=0.1, **options)
    whole = decided(engine, chosen)
    for stop in (1, 9, 1000):
        first = [d for p in islice(Acdc().run(engine, chosen), stop) for d in p.decisions]
        assert first + decided(engine, chosen, resume=first) == whole


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_with_one_place_it_is_the_search_without_places_to_the_last_bit(family):
    options, one = AcdcOptions(threshold=0.05, group_qkv=True), ((0,) * 6,) * 2
    whole, placed = (
        search(engine_of(family, place_of=place_of), Acdc(), options) for place_of in (None, one)
    )
    for ours, theirs in zip(placed.decisions, whole.decisions, strict=True):
        assert replace(ours, edge=ours.edge.removesuffix("@p0")) == theirs
    stated = ',\n  "places": [\n   "p0"\n  ]'
    text = placed.circuit.to_json()
    assert stated in text and text.count("@p0") == whole.circuit.n_edges
    assert text.replace(stated, "").replace("@p0", "") == whole.circuit.to_json()
