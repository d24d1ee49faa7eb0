"""Intervals cover what they are meant to cover, and are not given where they cannot be."""

import numpy as np
import pytest
import torch

from circuitfind.evaluation.intervals import mean_interval, share_interval

N_SIMULATIONS = 800


def logit_differences(generator, n):
    """Per-prompt values that vary together; the circuit closes 3/4 of the gap."""
    prompt = generator.normal(size=n)
    full = 4 + prompt + generator.normal(size=n)
    circuit = 3 + 0.8 * prompt + generator.normal(size=n)
    return full, circuit, generator.normal(size=n), 3 / 4


def divergences(generator, n):
    """Skewed and positive, as KL divergence is; the full model's is 0."""
    size = generator.gamma(4, size=n)
    circuit = 0.1 * size * generator.gamma(2, size=n)
    return np.zeros(n), circuit, 2 * size + generator.normal(size=n), 1 - 0.2 / 2


@pytest.mark.parametrize("draw", [logit_differences, divergences])
def test_95_percent_intervals_cover_the_truth_in_93_to_97_percent_of_simulations(draw):
    generator, covered = np.random.default_rng(0), 0
    for seed in range(N_SIMULATIONS):
        *values, truth = draw(generator, 48)
        low, high = share_interval(*map(torch.from_numpy, values), seed=seed)
        covered += low <= truth <= high
    assert 0.93 <= covered / N_SIMULATIONS <= 0.97


def test_the_interval_of_a_mean_covers_it():
    generator, covered = np.random.default_rng(0), 0
    for seed in range(N_SIMULATIONS):
        low, high = mean_interval(torch.from_numpy(generator.exponential(size=48)), seed=seed)
        covered += low <= 1 <= high
    assert 0.93 <= covered / N_SIMULATIONS <= 0.97


def test_pairs_belong_together():
    """A circuit that follows the model prompt by prompt is known well, however they vary."""
    full = torch.linspace(1, 9, 32, dtype=torch.float64)
    empty = torch.zeros(32, dtype=torch.float64)
    low, high = share_interval(full, full / 2, empty)
    assert (low, high) == pytest.approx((0.5, 0.5))
    low, high = share_interval(full, full.flip(0) / 2, empty)
    assert high - low > 0.1


def test_equal_seeds_give_equal_intervals():
    values = torch.randn(20, generator=torch.Generator().manual_seed(0))
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_few_prompts_or_no_gap_give_no_interval():
    some = torch.randn(7, generator=torch.Generator().manual_seed(0))
    assert mean_interval(some) is None
    many = torch.randn(9, generator=torch.Generator().manual_seed(0))
    assert share_interval(many, many, many) is None


def test_a_share_of_successes_has_an_interval_although_some_draws_hold_successes_alone():
    hits = torch.tensor([1.0] * 58 + [0.0] * 6)
    low, high = mean_interval(hits)
    assert 0.75 < low < 58 / 64 < high < 1
    assert mean_interval(torch.tensor([1.0] * 63 + [0.0])) is None
