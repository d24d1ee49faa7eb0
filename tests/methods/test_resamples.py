"""Scores on resamples of the prompts, held to attribution on prompts that are drawn."""

from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.methods import METHODS
from circuitfind.methods.resamples import draws
from tests.engine.problems import problem_of

LENGTHS = (6, 4, 5)
N = 7


@pytest.fixture(scope="module")
def engine():
    problem = problem_of("gpt2", "mean-over-positions", metric="logit-difference", lengths=LENGTHS)
    return IncrementalEngine(problem)


@pytest.mark.parametrize("name", ["eap", "eap-ig"])
def test_an_edge_scores_the_mean_over_resamples_if_that_is_stable(engine, name):
    method, problem = METHODS.find(name), engine.problem
    found = method.scores(engine, method.options(resamples=N)).values
    each = []
    for counts in draws(problem.prompts, N):
        assert counts.sum() == len(LENGTHS)
        rows = np.repeat(np.arange(len(LENGTHS)), counts.int().numpy()).tolist()
        # What cut edges carry stays the mean over all prompts, so each row is scored by itself.
        parts = [attributed(engine, name, row) for row in rows]
        each.append(sum(parts) / len(rows))
    scores = torch.stack(each).numpy()
    mean, error = scores.mean(0), scores.std(0, ddof=1) / np.sqrt(N)
    is_stable = np.abs(mean) > 1.96 * error
    expected = np.where(is_stable, mean, 1e-6 * mean)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)
    exists = problem.graph.edge_mask.numpy()
    assert 0.05 < is_stable[exists].mean() < 0.95


def attributed(engine, name, row):
    """Return the scores of one prompt alone, with the constants of all."""
    from circuitfind.methods.attribution import Limits, batches_of
    from circuitfind.methods.eap import CLEAN
    from circuitfind.methods.eap_ig import EapIgOptions, places_of

    places = [CLEAN] if name == "eap" else list(places_of(engine.graph, EapIgOptions()))
    batch = list(batches_of(engine, Limits(batch=1)))[row]
    return batch.scores(places)


def test_an_interrupted_scoring_goes_on_to_the_same_scores(engine):
    method = METHODS.find("eap-ig")
    options = method.options(resamples=N, variant="activations", steps=2)
    whole = list(method.scoring(engine, options))
    for at in (0, len(whole) // 2, len(whole) - 1):
        rest = deque(method.scoring(engine, options, whole[at].state), maxlen=1)
        assert rest[0].state["scores"].equal(whole[-1].state["scores"])


def test_several_rows_of_a_prompt_are_drawn_together(engine):
    prompts = engine.problem.prompts
    rows = torch.arange(len(LENGTHS)).repeat_interleave(2).tolist()
    both = replace(prompts.select(rows), sides=torch.tensor([1, -1] * len(LENGTHS)))
    assert both.n_runs == 2
    assert draws(both, N).equal(draws(prompts, N).repeat_interleave(2, dim=1))
