"""Tests have the size that they claim, and reject what they are made to reject."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from circuitfind.api import discover
from circuitfind.circuit import Circuit
from circuitfind.evaluation.false_discoveries import discoveries
from circuitfind.evaluation.hypotheses import (
    equivalence_test,
    independence_test,
    minimality_test,
    squared_distance,
    sufficiency_test,
)
from circuitfind.evaluation.ideal import ideal_tests, n_ideal_passes
from circuitfind.evaluation.measured import Measured
from circuitfind.granularity import heads_and_mlps
from circuitfind.models.loading import load_model
from circuitfind.question import make_problem
from circuitfind.shape import ModelShape
from tests.engine.problems import problem_of
from tests.evaluation.wired import measured_of, true_circuit, wired


@pytest.mark.parametrize("n_better", [0, 3, 10, 17, 20])
def test_the_equivalence_p_value_is_the_binomial_sum_of_its_definition(n_better):
    n, epsilon = 20, 0.1
    full = torch.zeros(n, dtype=torch.float64) + 5
    circuit = full + torch.tensor([1.0] * n_better + [-1.0] * (n - n_better))
    expected = sum(
        math.comb(n, k) * (0.5 + epsilon) ** k * (0.5 - epsilon) ** (n - k)
        for k in range(n + 1)
        if abs(2 * k - n) >= abs(2 * n_better - n)
    )
    found = equivalence_test(full, circuit, epsilon=epsilon)
    assert found.p_value == pytest.approx(expected)
    assert found.statistic == pytest.approx(abs(n_better / n - 0.5))
    assert found.as_ideal == (expected >= 0.05)


def test_prompts_without_a_difference_do_not_count_and_none_left_says_nothing():
    full = torch.tensor([1.0, 2, 3, 4, 5])
    circuit = torch.tensor([1.0, 2, 3, 5, 4])
    assert equivalence_test(full, circuit).n == 2
    same = equivalence_test(full, full)
    assert (same.p_value, same.rejected, same.as_ideal) == (None, None, None)


def test_equivalence_is_rejected_rarely_where_it_holds():
    generator = torch.Generator().manual_seed(0)
    rejected = 0
    for _ in range(300):
        full, circuit = torch.randn(2, 40, generator=generator)
        rejected += bool(equivalence_test(full, circuit).rejected)
    assert rejected / 300 <= 0.05


def test_independence_p_values_of_independent_scores_are_uniform():
    generator = torch.Generator().manual_seed(0)
    values = [
        independence_test(*torch.randn(2, 20, generator=generator), n_permutations=99, seed=seed)
        for seed in range(150)
    ]
    jitter = np.random.default_rng(0).random(150) / 100
    assert kstest(np.array([found.p_value for found in values]) - jitter, "uniform").pvalue > 0.05


def test_dependence_is_seen_even_without_correlation():
    x = torch.linspace(-2, 2, 40)
    assert independence_test(x, x**2).rejected
    assert independence_test(x, -x).rejected
    assert independence_test(x, torch.ones(40)).p_value is None


def test_independence_is_measured_as_gretton_et_al_define_it():
    """tr(K H L H) / (n - 1)^2 with the median distance as width, written out."""
    x, y = torch.randn(2, 12, generator=torch.Generator().manual_seed(3)).double()
    width = torch.cdist(x[:, None], y[:, None]).numpy()
    width = float(np.median(width))
    k, m = (torch.exp(-((v[:, None] - v) ** 2) / (2 * width**2)) for v in (x, y))
    h = torch.eye(12, dtype=torch.float64) - 1 / 12
    expected = float(torch.trace(k @ h @ m @ h)) / 11**2
    assert independence_test(x, y, n_permutations=9).statistic == pytest.approx(expected)


def test_sufficiency_counts_the_random_circuits_that_are_no_closer():
    found = sufficiency_test(1.0, [0.5, 1.0, *[2.0] * 38])
    assert (found.statistic, found.n) == (39, 40)
    assert found.p_value == pytest.approx(40 * 0.9**39 * 0.1 + 0.9**40)
    assert not found.rejected
    assert sufficiency_test(1.0, [2.0] * 40).rejected


def test_minimality_is_corrected_for_the_number_of_edges():
    reference = list(np.linspace(0, 1, 40))
    found = minimality_test([2.0, 2.0, 0.0], reference)
    assert (found.statistic, found.n, found.rejected) == (1, 3, True)
    assert found.p_value == pytest.approx(3 * 0.1**40)
    assert minimality_test([2.0] * 5, reference).rejected is False


def test_true_circuits_are_minimal_and_sufficient():
    for name in ("reverse",):
        problem, measured = wired(name), measured_of(name)
        circuit = true_circuit(problem)
        tests = ideal_tests(
            measured, circuit, measured.without_each_edge(circuit.kept), n_random=40
        )
        verdicts = {test.name: test.as_ideal for test in tests}
        assert verdicts["minimality"] and verdicts["sufficiency"]
        assert verdicts["equivalence"] is verdicts["independence"] is None


def test_an_edge_that_changes_less_than_random_ones_fails_minimality():
    """In a model where every edge changes something, a useless one stands out."""
    problem = problem_of("gpt2", metric="logit-difference")
    measured, names = Measured(problem), ["embed->a0.h0.v", "a0.h0->logits", "embed->logits"]
    circuit = Circuit(problem.graph, problem.graph.mask_of(names))
    cut = measured.without_each_edge(circuit.kept)
    # As if cutting the last edge changed nothing.
    cut[-1] = measured.values([circuit.kept])["logit-difference"][0]
    minimal = ideal_tests(measured, circuit, cut, n_random=2)[2]
    assert minimal.rejected and minimal.statistic >= 1


def test_scores_of_words_are_tested_and_the_cost_is_known():
    problem = make_problem(load_model("ioi-small"), "ioi", n_prompts=6, metric="logit-difference")
    circuit = discover(problem, "eap", n_edges=20, walk="greedy").circuit
    measured = Measured(problem)
    cut = measured.without_each_edge(circuit.kept)
    _ = measured.limits
    before = measured.n_passes
    tests = ideal_tests(measured, circuit, cut, n_random=2)
    assert measured.n_passes - before == n_ideal_passes(2)
    assert [test.name for test in tests] == [
        "equivalence", "independence", "minimality", "sufficiency",
    ]  # fmt: skip
    assert all(test.p_value is not None for test in tests)


def test_distances_are_means_of_squares():
    one, other = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, 2.0]])
    assert squared_distance(one, other) == [2.0, 6.5]


# ------------------------------------------------------------------------- false discoveries

GRAPH = heads_and_mlps(
    ModelShape(n_layers=2, n_heads=4, n_kv_heads=4, d_model=4, d_head=1, d_vocab=3)
)
FULL = Circuit(GRAPH, GRAPH.edge_mask)


def test_p_values_of_edges_without_effect_are_uniform():
    generator = torch.Generator().manual_seed(0)
    rises = torch.randn(GRAPH.n_edges, 24, generator=generator, dtype=torch.float64)
    found = discoveries(FULL, rises, held_out=True)
    assert kstest([row.p_value for row in found.edges], "uniform").pvalue > 0.05


def test_intervals_cover_the_true_effect_in_95_of_100_cases_and_agree_with_the_test():
    generator = torch.Generator().manual_seed(2)
    rises = 1 + torch.randn(GRAPH.n_edges, 12, generator=generator, dtype=torch.float64)
    found = discoveries(FULL, rises, held_out=True).edges
    covered = sum(row.low <= 1 <= row.high for row in found) / len(found)
    assert covered == pytest.approx(0.95, abs=3 * (0.95 * 0.05 / len(found)) ** 0.5)
    assert all((row.low > 0 or row.high < 0) == (row.p_value < 0.05) for row in found)


def test_the_share_of_false_discoveries_is_controlled():
    generator, shares = torch.Generator().manual_seed(0), []
    names = [edge.name for edge in FULL.edges]
    for _ in range(40):
        rises = torch.randn(GRAPH.n_edges, 24, generator=generator, dtype=torch.float64)
        rises[: len(rises) // 4] += 1
        found = discoveries(FULL, rises, held_out=True)
        called = [row.edge for row in found.edges if row.adjusted < 0.05]
        wrong = set(called) - set(names[: len(rises) // 4])
        shares.append(len(wrong) / max(1, len(called)))
        assert found.n_effective == len(called) >= found.n_effective_any
    assert np.mean(shares) <= 0.05


def test_no_change_is_no_effect_and_the_same_change_everywhere_is_certain():
    rises = torch.zeros(GRAPH.n_edges, 5, dtype=torch.float64)
    rises[0], rises[1, 0] = 1.0, 1e-15
    by_name = {row.edge: row for row in discoveries(FULL, rises, held_out=False).edges}
    first, second = (edge.name for edge in FULL.edges[:2])
    assert (by_name[first].p_value, by_name[second].p_value) == (0, 1)
    assert (by_name[first].low, by_name[first].high) == (1, 1)
    assert discoveries(FULL, rises[:, :1], held_out=False) is None
