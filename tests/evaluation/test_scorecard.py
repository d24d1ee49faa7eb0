"""The scorecard: 1 for the full circuit, 0 for the empty one, and nothing where there is no gap."""

from functools import cache

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.engine.direction import with_direction
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MetricError
from circuitfind.evaluation.scorecard import measure, scorecard
from circuitfind.metrics import METRICS, Scale, custom_metric, find_metric
from circuitfind.models.loading import load_model
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from tests.oracles.brute_force import BruteForce
from tests.oracles.checkpoints import build, float64_throughout, random_pairs

CLEAN, CORRUPTED = random_pairs(seed=0, n_prompts=3)
OTHERS = random_pairs(seed=1, n_prompts=5)


@pytest.fixture(autouse=True)
def exact_arithmetic():
    with float64_throughout():
        yield


@pytest.mark.parametrize("metric", ["kl", "logit-difference", "probability-difference", "loss"])
@pytest.mark.parametrize("ablation", ["resample", "zero", "mean", "mean-over-positions"])
def test_the_full_circuit_is_wholly_faithful_and_the_empty_one_not_at_all(metric, ablation):
    engine = engine_of(ablation)
    full, empty = (
        measure(engine, Circuit(engine.graph, kept), find_metric(metric)).faithfulness
        for kept in (engine.graph.edge_mask, torch.zeros_like(engine.graph.edge_mask))
    )
    assert full == pytest.approx(1, abs=1e-9)
    assert empty == 0


@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_a_circuit_is_measured_as_the_oracle_measures_it(ablation):
    engine = engine_of(ablation)
    drawn = torch.rand(engine.graph.edge_mask.shape, generator=torch.Generator().manual_seed(0))
    kept = engine.graph.edge_mask & (drawn < 0.5)
    oracle = BruteForce(build("gpt2", n_layers=2), "gpt2", CLEAN, CORRUPTED, engine.graph, ablation)
    figures = [
        float((logits[:, -1, 5] - logits[:, -1, 6]).mean())
        for logits in map(
            oracle.logits, (engine.graph.edge_mask, kept, torch.zeros_like(engine.graph.edge_mask))
        )
    ]
    found = measure(engine, Circuit(engine.graph, kept), find_metric("logit-difference"))
    assert [found.full, found.circuit, found.empty] == pytest.approx(figures, abs=1e-9)
    share = (figures[1] - figures[2]) / (figures[0] - figures[2])
    assert found.faithfulness == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize(
    ("full", "circuit", "empty", "share"),
    [(4.0, 3.0, 2.0, 0.5), (0.0, 0.25, 1.0, 0.75), (1.0, 1.5, 0.0, 1.5), (1.0, -1.0, 0.0, -1.0)],
)
def test_faithfulness_is_the_share_of_the_gap_that_is_closed(full, circuit, empty, share):
    assert Scale(full, empty).faithfulness(circuit) == share


@pytest.mark.parametrize(("full", "empty"), [(1.0, 1.0), (0.0, 0.0), (1e3, 1e3 + 1e-5), (0, 1e-20)])
def test_faithfulness_without_a_gap_is_refused(full, empty):
    with pytest.raises(
        MetricError, match="nothing for a circuit to explain; choose another metric"
    ):
        Scale(float(full), float(empty)).faithfulness(0.5)


def test_a_metric_without_a_gap_is_measured_and_has_no_faithfulness():
    engine = engine_of("resample")
    constant = custom_metric(lambda logits, prompts: logits.new_full((len(prompts),), 7.0))
    found = measure(engine, Circuit(engine.graph, engine.graph.edge_mask), constant)
    assert (found.full, found.circuit, found.empty, found.faithfulness) == (7.0, 7.0, 7.0, None)


def test_a_scorecard_counts_edges_and_the_heads_and_mlps_at_their_ends():
    engine = engine_of("resample")
    names = ["embed->a0.h1.q", "embed->a0.h1.v", "a0.h1->m1", "m1->logits"]
    card = scorecard(engine, Circuit(engine.graph, engine.graph.mask_of(names)))
    assert (card.n_edges, card.n_edges_full) == (4, engine.graph.n_edges)
    assert (card.n_components, card.n_components_full) == (2, 10)
    assert card.n_prompts == 3
    assert card.held_out is None


def test_a_scorecard_has_the_problems_metric_first_and_each_metric_once():
    for name in (metric.name for metric in METRICS):
        engine = engine_of("resample", name)
        card = scorecard(engine, Circuit(engine.graph, engine.graph.edge_mask))
        measured = [measurement.metric for measurement in card.measurements]
        assert measured[0] == name and len(set(measured)) == len(measured)
        assert {"kl", "logit-difference"} <= set(measured)
        assert all(m.unit == find_metric(m.metric).unit for m in card.measurements)


def test_metrics_that_the_prompts_cannot_answer_are_left_out():
    problem = engine_of("resample").problem
    pairs = [
        Pair(c, k, answers=[]) for c, k in zip(CLEAN.tolist(), CORRUPTED.tolist(), strict=True)
    ]
    engine = IncrementalEngine(assemble(problem.model, collate(pairs), find_metric("kl")))
    card = scorecard(engine, Circuit(engine.graph, engine.graph.edge_mask))
    assert [measurement.metric for measurement in card.measurements] == ["kl"]


def test_held_out_prompts_are_measured_with_the_problems_own_metric():
    engine, others = engine_of("resample"), engine_of("resample", held_out=True)
    circuit = Circuit(engine.graph, engine.graph.mask_of(["embed->m0", "m0->logits"]))
    card = scorecard(engine, circuit, others)
    assert card.held_out == measure(others, circuit, engine.problem.metric)
    assert card.held_out.full != card.measurements[0].full


# ------------------------------------------------------------------------------- helpers


@cache
def engine_of(ablation, metric="logit-difference", *, held_out=False):
    clean, corrupted = OTHERS if held_out else (CLEAN, CORRUPTED)
    pairs = [
        Pair(row, other, answers=[[5]], wrong_answers=[[6]])
        for row, other in zip(clean.tolist(), corrupted.tolist(), strict=True)
    ]
    prompts = collate(pairs)
    chosen = with_direction(find_metric(metric), model(), prompts)
    return IncrementalEngine(assemble(model(), prompts, chosen, ablation))


@cache
def model():
    return load_model(build("gpt2", n_layers=2))
