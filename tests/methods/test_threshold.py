"""Thresholds that are suggested, and those that are searched for."""

import math
from typing import Any

import pytest

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import LimitError, MethodError
from circuitfind.methods.threshold import (
    Target,
    Trial,
    automatic_threshold,
    search_threshold,
    suggest_threshold,
)
from circuitfind.metrics import custom_metric, find_metric
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from tests.engine.problems import engine_of, loss_of, model_of, oracle_of, prompts_of

SIX = (6, 6, 6, 6, 6, 6)


def test_the_suggestion_is_the_noise_of_the_effects_over_prompts():
    """With as many sampled edges as there are: 1.96 times the root mean square error."""
    engine = engine_of("falcon", lengths=SIX, n_layers=1)
    graph, oracle = engine.graph, oracle_of("falcon", lengths=SIX, n_layers=1)
    full = oracle.logits(graph.edge_mask)[:, -1].log_softmax(-1)
    squares = []
    for edge in graph.edges():
        cut = oracle.logits(graph.edge_mask & ~graph.mask_of([edge.name]))[:, -1].log_softmax(-1)
        effects = (full.exp() * (full - cut)).sum(-1)
        squares.append(float(effects.var()) / len(effects))
    expected = 1.96 * math.sqrt(sum(squares) / len(squares))
    assert suggest_threshold(engine, n_edges=1000) == pytest.approx(expected, rel=1e-9)
    assert loss_of("kl", oracle, prompts_of(0, SIX))(oracle.logits(graph.edge_mask)) == 0


def test_the_suggestion_is_fixed_by_its_seed():
    engine = engine_of("gpt2", lengths=SIX)
    first, again, other = (suggest_threshold(engine, n_edges=9, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first > 0


def test_one_prompt_shows_no_noise():
    with pytest.raises(MethodError, match="the noise of a metric shows over several prompts"):
        suggest_threshold(engine_of("gpt2", lengths=(6,)))


def test_a_metric_that_nothing_changes_has_no_threshold():
    constant = custom_metric(lambda logits, prompts: logits.new_ones(len(prompts)))
    with pytest.raises(MethodError, match="the metric 'custom' is constant on these prompts"):
        suggest_threshold(engine_of("gpt2", metric=constant), n_edges=3)


def test_prompts_that_are_all_the_same_show_no_noise():
    prompts = collate([Pair([1, 2, 3], [1, 2, 4], answers=[[0]])] * 3)
    problem = assemble(model_of("gpt2"), prompts, find_metric("kl"))
    with pytest.raises(MethodError, match="every prompt gives the same effects"):
        suggest_threshold(IncrementalEngine(problem), n_edges=9)


HALVED = [0.5, 0.25, 0.12, 0.06, 0.03, 0.015]


def kept(*shares: tuple[float | None, float | None]) -> Any:
    """Return what to attempt: circuits that keep these shares of faithfulness and accuracy."""
    trials = iter(enumerate(shares))

    def attempt(threshold: float) -> Trial:
        number, (faithful, accurate) = next(trials)
        return Trial(threshold, 10 * (number + 1), faithful, accurate)

    return attempt


@pytest.mark.parametrize(
    ("shares", "n_tried", "best"),
    [
        ([(0.95, 1.0)], 1, 0.5),
        ([(0.95, None)], 1, 0.5),
        ([(None, 0.95)], 1, 0.5),
        ([(None, None)], 1, 0.5),
        ([(0.95, 0.89), (0.97, 0.93)], 2, 0.25),
        ([(0.6, 1.0), (0.89, 1.0), (0.9, 0.9)], 3, 0.12),
        ([(0.1, 0.1), (0.3, 0.2), (0.2, 0.1), (0.4, 0.2), (0.7, 0.2), (0.8, 0.1)], 6, 0.03),
        ([(0.8, 0.0), (1.1, 0.0), (1.5, 0.0)], 3, 0.25),
        ([(0.95, 0.2), (0.96, 0.3), (0.97, 0.5), (0.98, 0.91)], 4, 0.06),
    ],
)
def test_the_automatic_threshold_is_halved_until_the_circuit_does_the_task(shares, n_tried, best):
    said: list[str] = []
    found, trials = automatic_threshold(kept(*shares), 0.5, tell=said.append)
    assert [trial.threshold for trial in trials] == HALVED[:n_tried]
    assert found.threshold == best
    assert len(said) == len(trials) + (not trials[-1].does_the_task)
    assert f"{best:g}" in said[-1]


def test_an_interrupted_choice_of_a_threshold_tries_nothing_again():
    shares = [(0.1, 0.1), (0.5, 0.5), (0.95, 0.95)]
    whole = automatic_threshold(kept(*shares), 0.5)
    earlier = [Trial(0.5, 10, 0.1, 0.1)]
    again = automatic_threshold(kept(*shares[1:]), 0.5, earlier)
    assert again[0].threshold == whole[0].threshold
    assert [t.threshold for t in again[1]] == [t.threshold for t in whole[1]]
    assert automatic_threshold(kept(), 0.5, again[1])[0] == again[0]


@pytest.mark.parametrize("start", [5e-324, 1e-320, 1e-300, 1e300])
def test_no_threshold_makes_a_choice_or_a_search_endless(start):
    _, trials = automatic_threshold(kept(*[(0.1, 0.1)] * 6), start)
    assert len(trials) <= 6
    for target in (Target(n_edges=7), Target(faithfulness=0.9)):
        tried: list[float] = []

        def attempt(threshold: float, tried: list[float] = tried) -> Trial:
            tried.append(threshold)
            return Trial(threshold, 7 if len(tried) > 3 else 9, 0.95)

        search_threshold(attempt, target, start)
        assert 0 < len(tried) <= 10


@pytest.mark.parametrize("n_edges", [1, 7, 50, 300])
@pytest.mark.parametrize("start", [1e-6, 0.01, 10.0])
def test_a_number_of_edges_is_approached_from_below(n_edges, start):
    """Circuits shrink with the threshold: 1000 edges at 1e-4, a tenth of them at 1e-3, ..."""
    best, trials = search_threshold(shrinking, Target(n_edges=n_edges), start, n_trials=40)
    assert best.n_edges == max(t.n_edges for t in trials if t.n_edges <= n_edges)
    assert 0.9 * n_edges - 1 <= best.n_edges <= n_edges


@pytest.mark.parametrize("faithfulness", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("start", [1e-6, 0.01, 10.0])
def test_a_faithfulness_is_approached_from_above(faithfulness, start):
    target = Target(faithfulness=faithfulness)
    best, trials = search_threshold(shrinking, target, start, n_trials=40)
    assert best.faithfulness is not None and best.faithfulness >= faithfulness
    fitting = [t for t in trials if (t.faithfulness or 0) >= faithfulness]
    assert best.n_edges == min(t.n_edges for t in fitting)
    assert best.n_edges <= 1.05 * edges_for(faithfulness) + 1


def test_a_search_that_hits_the_number_of_edges_is_the_last():
    first = shrinking(0.01)
    best, trials = search_threshold(shrinking, Target(n_edges=first.n_edges), 0.01)
    assert trials == [best] == [first]


def test_no_more_searches_are_made_than_allowed():
    for n_trials in (1, 3):
        _, trials = search_threshold(shrinking, Target(n_edges=999), 1.0, n_trials=n_trials)
        assert len(trials) <= n_trials


def test_a_target_that_no_threshold_meets_lists_what_was_tried():
    with pytest.raises(
        MethodError, match=r"no threshold gave a faithfulness of 1\.0; tried 1, 0\.2"
    ):
        search_threshold(shrinking, Target(faithfulness=1.0), 1.0, n_trials=3)


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ({}, "either a number of edges or a faithfulness"),
        ({"n_edges": 3, "faithfulness": 0.5}, "either a number of edges or a faithfulness"),
        ({"n_edges": 0}, "target edges must be a whole number from 1"),
        ({"faithfulness": math.nan}, "target faithfulness must be .* at most 1, not nan"),
        ({"faithfulness": math.inf}, "target faithfulness must be .* at most 1, not inf"),
    ],
)
def test_impossible_targets_are_refused(target, line):
    with pytest.raises((LimitError, MethodError), match=line):
        Target(**target)


# ------------------------------------------------------------------------------- helpers


def shrinking(threshold: float) -> Trial:
    n_edges = min(1000, int(0.1 / threshold)) if threshold else 1000
    return Trial(threshold, n_edges, n_edges / (n_edges + 5))


def edges_for(faithfulness: float) -> float:
    return 5 * faithfulness / (1 - faithfulness)
