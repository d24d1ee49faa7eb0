"""The hybrid is attribution, then ACDC on what is left, and each part is what it says."""

import math

import pytest

from circuitfind.errors import LimitError
from circuitfind.methods import METHODS
from circuitfind.methods.acdc import AcdcOptions
from circuitfind.methods.search import search
from circuitfind.methods.selection import Selection
from tests.engine.problems import engine_of, loss_of, oracle_of, prompts_of
from tests.oracles.search import leave_one_out

UNPRUNED = Selection(prune=False)
HYBRID, ACDC = METHODS.find("hybrid"), METHODS.find("acdc")


def test_with_all_edges_handed_on_it_is_acdc():
    engine = engine_of("llama", metric="kl")
    whole = search(engine, ACDC, AcdcOptions(threshold=0.01), UNPRUNED)
    found = search(engine, HYBRID, HYBRID.options(threshold=0.01, share=1.0), UNPRUNED)
    assert found.circuit.edges == whole.circuit.edges
    for ours, theirs in zip(found.decisions, whole.decisions, strict=True):
        assert (ours.edge, ours.kept, ours.reason) == (theirs.edge, theirs.kept, theirs.reason)
        assert ours.effect == pytest.approx(theirs.effect, abs=1e-9)
        assert ours.score is not None and theirs.score is None


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_only_the_top_share_is_tested_and_each_test_starts_from_it(share):
    engine, oracle = engine_of("gpt2", metric="kl"), oracle_of("gpt2")
    graph = engine.graph
    options = HYBRID.options(threshold=1e9, share=share)
    found = search(engine, HYBRID, options, UNPRUNED)
    eap_ig = METHODS.find("eap-ig")
    scores = eap_ig.scores(engine, eap_ig.options())
    handed_on = scores.top(math.ceil(share * graph.n_edges))
    not_tested = {d.edge for d in found.decisions if d.reason == "scored"}
    assert not_tested == {e.name for e in graph.edges(graph.edge_mask & ~handed_on.kept)}
    tested = [d for d in found.decisions if d.reason == "tested"]
    assert tested and found.drift is not None
    loss = loss_of("kl", oracle, prompts_of(0, (6, 6)))
    expected = leave_one_out(oracle.logits, graph, loss, handed_on.kept)
    first = graph.edge(tested[0].edge)
    index = graph.index(first)
    assert tested[0].effect == pytest.approx(float(expected[index]), abs=1e-9)


@pytest.mark.parametrize("stop", [0, 1, 3, 100])
def test_a_resumed_hybrid_tests_the_rest_alone_and_ends_the_same(stop):
    engine = engine_of("gpt2", metric="kl")
    options = HYBRID.options(threshold=0.01, share=0.5)
    whole = search(engine, HYBRID, options)
    steps = [step for step in HYBRID.run(engine, options) if step.decisions]
    first = [decision for step in steps[:stop] for decision in step.decisions]
    tested = []
    again = search(
        engine,
        HYBRID,
        options,
        resume=first,
        on_progress=lambda p: tested.extend(d for d in p.decisions if d.effect is not None),
    )
    assert again.decisions == whole.decisions
    assert again.circuit.to_json() == whole.circuit.to_json()
    assert len(tested) == sum(d.effect is not None for d in whole.decisions[len(first) :])


@pytest.mark.parametrize("share", [0.0, 1.1, -0.5])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(LimitError, match="share must be a number above 0 and at most 1"):
        HYBRID.options(threshold=0.1, share=share)
