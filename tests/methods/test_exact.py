"""Leave-one-out effects held to running the whole model without each edge."""

import math

import pytest
import torch

from circuitfind.circuit import EdgeScores
from circuitfind.errors import MethodError
from circuitfind.methods import METHODS
from circuitfind.methods.base import Decision, NoOptions, circuit_of
from circuitfind.methods.exact import Exact
from circuitfind.methods.search import search
from circuitfind.methods.selection import Selection
from circuitfind.metrics import custom_metric
from tests.engine.problems import (
    BRIDGED,
    EXACT,
    N_TOKENS,
    engine_of,
    loss_of,
    oracle_of,
    prompts_of,
)
from tests.oracles.search import leave_one_out

ABLATIONS = ("resample", "zero", "mean", "mean-over-positions")
ALL, EVERY = NoOptions(), Selection(threshold=-1e9)


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("family", ["falcon", "gemma2"])
def test_every_effect_is_the_loss_without_the_edge_less_the_loss_with_it(family, ablation):
    assert_effects(family, ablation, "kl")


def test_a_better_metric_is_a_lower_loss():
    assert_effects("llama", "resample", "logit-difference")


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("family", BRIDGED)
def test_every_effect_of_every_family_is_right(family, ablation):
    assert_effects(family, ablation, "kl")


def test_an_edge_stays_iff_its_effect_is_at_least_the_threshold():
    engine = engine_of("gpt2")
    sizes = sorted(decision.effect for decision in decided(engine, ALL))
    threshold = sizes[len(sizes) // 2]
    decisions = search(engine, Exact(), ALL, Selection(threshold=threshold)).decisions
    assert [d.kept for d in decisions] == [d.effect >= threshold for d in decisions]
    assert sum(d.effect == threshold for d in decisions) == 1


@pytest.mark.parametrize("n_edges", [0, 1, 10, 10_000])
def test_the_largest_effects_in_size_are_kept(n_edges):
    engine = engine_of("llama", "zero")
    found = search(engine, Exact(), ALL, Selection(n_edges=n_edges))
    decisions = found.decisions
    largest = sorted(decisions, key=lambda d: -abs(d.effect))[:n_edges]
    assert {edge.name for edge in found.circuit.edges} == {d.edge for d in largest}
    assert not found.pruned and found.circuit.effects is not None


@pytest.mark.parametrize("stop", [0, 1, 5, 10_000])
def test_a_resumed_run_measures_the_rest_alone_and_the_same(stop):
    engine = engine_of("gpt2", n_layers=1)
    whole = decided(engine, ALL)
    steps = list(Exact().run(engine, ALL))[:stop]
    first = [decision for step in steps for decision in step.decisions]
    assert first + decided(engine, ALL, resume=first) == whole
    # A reader cut short is measured again.
    assert list(search(engine, Exact(), ALL, EVERY, resume=first[:-1]).decisions) == whole


def test_a_loss_that_is_no_number_names_the_edge():
    spoilt = custom_metric(lambda logits, prompts: logits.new_full((len(prompts),), math.nan))
    with pytest.raises(MethodError, match="the loss became nan when m1->logits was cut"):
        decided(engine_of("gpt2", metric=spoilt), ALL)


def test_effects_are_scores():
    engine = engine_of("gpt2")
    scores = Exact().scores(engine, ALL)
    assert isinstance(scores, EdgeScores) and (scores.unit, scores.method) == ("nats", "exact")
    assert len(scores.ranked()) == engine.graph.n_edges


def test_methods_are_found_by_name():
    names = [method.name for method in METHODS]
    assert len(set(names)) == len(names)
    assert [METHODS.find(name) for name in names] == list(METHODS)
    with pytest.raises(MethodError, match="no method named 'guess'; the methods are acdc, exact"):
        METHODS.find("guess")


# ------------------------------------------------------------------------------- helpers


def assert_effects(family: str, ablation: str, metric: str) -> None:
    oracle = oracle_of(family, ablation)
    loss = loss_of(metric, oracle, prompts_of(0, (N_TOKENS, N_TOKENS)))
    expected = leave_one_out(oracle.logits, oracle.graph, loss)
    engine = engine_of(family, ablation, metric=metric)
    decisions = decided(engine, ALL)
    found = circuit_of(engine.graph, decisions)
    assert len(decisions) == engine.graph.n_edges and all(d.kept for d in decisions)
    torch.testing.assert_close(found.effects, expected, **EXACT, equal_nan=True)
    whole = loss(oracle.logits(oracle.graph.edge_mask))
    for decision in decisions:
        assert decision.reason == "tested"
        assert decision.before == pytest.approx(whole, abs=1e-9)
        assert decision.effect == decision.after - decision.before


def decided(engine, options, resume=()) -> list[Decision]:
    return [d for step in Exact().run(engine, options, list(resume)) for d in step.decisions]
