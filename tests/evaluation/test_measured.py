"""Circuits are measured as by the oracle, and prompts in chunks as all at once."""

import pytest
import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.memory import chunk_bytes
from circuitfind.evaluation.measured import Measured
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
    values = Measured(in_chunks(problem, 2)).own(masks)
    assert values.shape == (3, 5)
    for mask, row in zip(masks, values, strict=True):
        found = float(row.mean()) * problem.metric.sign
        assert found == pytest.approx(loss(oracle.logits(mask)), abs=1e-9)


@pytest.mark.parametrize("ablation", ["resample", "zero", "mean-over-positions"])
@pytest.mark.parametrize("family", ["llama"])
def test_chunks_of_prompts_of_unequal_length_change_nothing(family, ablation):
    problem = problem_of(family, ablation, "kl", lengths=PADDED)
    masks = [random_mask(problem.graph, seed) for seed in range(2)]
    together = Measured(problem, [find_metric("loss")]).values(masks)
    for size in (1, 3):
        apart = Measured(in_chunks(problem, size), [find_metric("loss")]).values(masks)
        assert list(apart) == ["kl", "loss"]
        for name, values in apart.items():
            torch.testing.assert_close(values, together[name], **EXACT)


def test_the_limits_are_the_full_and_the_empty_graph():
    engine = engine_of("gpt2", metric="logit-difference")
    measured = Measured(engine)
    full, empty = (limit["logit-difference"][0] for limit in measured.limits)
    nothing = torch.zeros_like(engine.graph.edge_mask)
    torch.testing.assert_close(full, engine.readout.values(engine.clean_final), **EXACT)
    torch.testing.assert_close(empty, engine.readout.values(engine.recomputed(nothing)), **EXACT)


def test_passes_are_counted_and_timed():
    problem, calls = problem_of("gpt2", lengths=LENGTHS), []
    measured = Measured(in_chunks(problem, 2), on_pass=lambda: calls.append(1))
    measured.values([random_mask(problem.graph, seed) for seed in (0, 1, 2)])
    assert measured.n_passes == len(calls) == 3
    assert measured.seconds > 0


@pytest.mark.parametrize("metric", ["kl", "logit-difference"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_circuit_without_each_of_its_edges_is_what_a_pass_from_scratch_gives(family, metric):
    engine = engine_of(family, metric=metric, lengths=LENGTHS)
    kept = random_mask(engine.graph, seed=1)
    values = Measured(engine).without_each_edge(kept)
    edges = engine.graph.edges(kept)
    assert len(values) == len(edges)
    masks = [kept & ~engine.graph.mask_of([edge]) for edge in edges]
    torch.testing.assert_close(values, engine.measure(masks), rtol=0, atol=1e-9)
    assert len({*values.mean(1).tolist()}) > 3


def in_chunks(problem, size):
    """Return an engine that takes this many prompts at a time."""
    n_prompts, n_tokens = problem.prompts.clean.shape
    # An eighth of the memory is for formed gaps.
    memory = int(chunk_bytes(problem.graph, size, n_tokens, 8) * 8 / 7) + 1000
    engine = IncrementalEngine(problem, None if size >= n_prompts else memory)
    assert len(engine.chunks) == -(-n_prompts // size)
    return engine
