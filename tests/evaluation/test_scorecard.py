"""The scorecard: 1 for the full circuit, 0 for the empty one, and nothing where there is no gap."""

import io
import re
from functools import cache

import pytest
import torch
from rich.console import Console

from circuitfind.circuit import Circuit
from circuitfind.engine.direction import with_direction
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MetricError
from circuitfind.evaluation.scorecard import measure, scorecard
from circuitfind.metrics import METRICS, Scale, custom_metric, find_metric
from circuitfind.models.loading import load_model
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from circuitfind.question import make_problem
from circuitfind.reports.terminal import scorecard_table
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


def test_a_scorecard_counts_neurons_among_the_components_and_by_themselves():
    model = load_model("ioi-small")
    problem = make_problem(model, "ioi", n_prompts=2, neurons="0", shortlist=5)
    units = problem.graph.units[0].numbers
    names = ["embed->m0", f"m0.n{units[0]}->m1", f"m0.n{units[3]}->logits", "m1->logits"]
    some = Circuit.of_edges(problem, [*names, "m0.rest->logits"])
    card = scorecard(IncrementalEngine(problem), some)
    # The model has 4 layers of 4 heads; the MLP of layer 0 is 5 neurons and their rest.
    assert (card.n_components, card.n_components_full) == (4, 16 + 3 + 5 + 1)
    assert (card.n_units, card.n_units_full) == (2, 5)
    assert "4 of 25 components" in repr(card) and "4 of 25 components" in repr(some)
    written = table_text(card)
    assert re.search(r"^components kept +4 of 25 \(16\.0%\)", written, re.M)
    assert re.search(r"^neurons and latents kept +2 of 5 \(40\.0%\)", written, re.M)


def test_a_scorecard_of_heads_and_mlps_says_nothing_of_neurons():
    problem = make_problem(load_model("ioi-small"), "ioi", n_prompts=2)
    some = Circuit.of_edges(problem, ["embed->m0", "m0->logits"])
    card = scorecard(IncrementalEngine(problem), some)
    assert (card.n_units, card.n_units_full) == (0, 0)
    assert "1 of 20 heads and MLPs" in repr(card) and "1 of 20 heads and MLPs" in repr(some)
    written = table_text(card)
    assert re.search(r"^heads and MLPs kept +1 of 20", written, re.M)
    assert "neurons" not in written


def table_text(card) -> str:
    search = {
        "dead_ends": [], "edges_tested": 0, "seconds": 0.0, "full_graph_error": 0.0,
        "empty_graph_error": 0.0, "drift": None,
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    console.print(scorecard_table(card, search))
    return console.file.getvalue()


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
