"""The meter measures as the oracle does, and prompts in chunks as all at once."""

import pytest
import torch

from circuitfind.evaluation.meter import Meter
from circuitfind.metrics import find_metric
from tests.engine.problems import (
    EXACT,
    engine_of,
    loss_of,
    oracle_of,
    problem_of,
    random_mask,
)

LENGTHS = (6, 6, 6, 6, 6)
PADDED = (6, 4, 5, 6, 3)


@pytest.mark.parametrize("ablation", ["resample", "zero", "mean", "mean-over-positions"])
@pytest.mark.parametrize("metric", ["kl", "logit-difference"])
def test_a_circuit_is_measured_as_by_brute_force(ablation, metric):
    problem = problem_of("gpt2", ablation, metric, lengths=LENGTHS)
    oracle = oracle_of("gpt2", ablation, lengths=LENGTHS)
    loss = loss_of(metric, oracle, problem.prompts)
    masks = [random_mask(problem.graph, seed) for seed in range(3)]
    values = Meter(problem, prompts_at_once=2).values(masks)[metric]
    assert values.shape == (3, 5)
    for mask, row in zip(masks, values, strict=True):
        found = float(row.mean()) * problem.metric.sign
        assert found == pytest.approx(loss(oracle.logits(mask)), abs=1e-9)


@pytest.mark.parametrize("ablation", ["resample", "zero", "mean-over-positions"])
@pytest.mark.parametrize("family", ["llama"])
def test_chunks_of_prompts_of_unequal_length_change_nothing(family, ablation):
    problem = problem_of(family, ablation, "kl", lengths=PADDED)
    masks = [random_mask(problem.graph, seed) for seed in range(2)]
    together = Meter(problem, [find_metric("loss")]).values(masks)
    for size in (1, 3):
        apart = Meter(problem, [find_metric("loss")], prompts_at_once=size).values(masks)
        assert list(apart) == ["kl", "loss"]
        for name, values in apart.items():
            torch.testing.assert_close(values, together[name], **EXACT)


def test_the_limits_are_the_full_and_the_empty_graph():
    engine = engine_of("gpt2", metric="logit-difference")
    meter = Meter(engine.problem)
    full, empty = (limit["logit-difference"][0] for limit in meter.limits)
    nothing = torch.zeros_like(engine.graph.edge_mask)
    torch.testing.assert_close(full, engine.readout.values(engine.clean_final), **EXACT)
    torch.testing.assert_close(empty, engine.readout.values(engine.recomputed(nothing)), **EXACT)


def test_passes_are_counted_and_timed():
    problem, calls = problem_of("gpt2", lengths=LENGTHS), []
    meter = Meter(problem, prompts_at_once=2, on_pass=lambda: calls.append(1))
    assert meter.seconds_per_pass == 0
    meter.values([problem.graph.edge_mask] * 4)
    assert meter.n_passes == pytest.approx(4)
    assert meter.seconds_per_pass > 0
    assert len(calls) == 12
