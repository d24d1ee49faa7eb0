"""Learned constants, held to optima that are known and to ablations that are constants, too."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from circuitfind.ablations import ABLATIONS, Ablation, learned
from circuitfind.circuit import Circuit
from circuitfind.engine.constants import learned_constants
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.replacement import mean_over_prompts
from circuitfind.engine.soft_mask import soft_loss
from circuitfind.errors import GraphError
from circuitfind.models.loading import load_model
from circuitfind.problem import Problem
from circuitfind.question import make_problem
from tests.engine.problems import (
    EXACT,
    SHIFTED,
    engine_of,
    logits_at_steps,
    oracle_of,
    problem_of,
    random_mask,
)
from tests.engine.unit_cases import CASES


def divergence(problem: Problem, ablation: Ablation | str, kept: Tensor) -> float:
    """Return KL(model || circuit) of a problem that is measured by it."""
    found = ABLATIONS.find(ablation) if isinstance(ablation, str) else ablation
    engine = IncrementalEngine(replace(problem, ablation=found))
    return engine.readout.loss(engine.recomputed(kept))


def test_where_one_head_says_the_answer_its_constant_says_the_mean_of_all_answers():
    """The optimum is known: of all distributions the mean is nearest to each, by KL."""
    model = load_model("induction-pair", dtype="float64")
    problem = make_problem(model, "induction-pair", n_prompts=24, metric="kl")
    logits = model.own_logits(problem.prompts.clean)
    said = problem.prompts.at_steps(logits).flatten(0, 1).softmax(-1)
    mean = said.mean(0)
    kept = problem.graph.edge_mask.clone()
    kept[problem.graph.index("a1.h0->logits")] = False
    refit = learned_constants(problem, Circuit(problem.graph, kept))
    engine = IncrementalEngine(replace(problem, ablation=refit))
    found = logits_at_steps(engine, engine.recomputed(kept)).flatten(0, 1).softmax(-1)
    torch.testing.assert_close(found, mean.expand_as(found), rtol=0, atol=1e-6)
    least = float((said * (said.log() - mean.log())).sum(-1).mean())
    assert divergence(problem, refit, kept) == pytest.approx(least, abs=1e-9)
    # The mean of what the head writes says something else.
    assert divergence(problem, "mean-over-positions", kept) > least + 1e-4


@pytest.mark.parametrize(("family", "place_of"), [("gpt2", None), ("gemma2", SHIFTED)])
def test_nothing_that_cut_edges_could_carry_brings_the_circuit_nearer_to_the_model(
    family, place_of
):
    engine = engine_of(family, place_of=place_of)
    problem, kept = engine.problem, random_mask(engine.graph, 1, 0.6)
    refit = learned_constants(problem, Circuit(engine.graph, kept))
    least = divergence(problem, refit, kept)
    for other in ("mean-over-positions", "mean", "resample", "zero"):
        assert least < divergence(problem, other, kept)
    assert refit.constants is not None
    generator = torch.Generator().manual_seed(0)
    for size in (1e-3, 0.1):
        moved = {
            name: values + size * torch.randn(values.shape, generator=generator).double()
            for name, values in refit.constants.items()
        }
        assert divergence(problem, learned(moved), kept) > least


@pytest.mark.parametrize(
    ("family", "case"), [("gpt2", "both"), ("gemma2", "neurons"), ("llama", "transcoder")]
)
@pytest.mark.parametrize("place_of", [None, SHIFTED])
def test_means_as_constants_are_the_ablation_of_means(family, case, place_of):
    options = {"place_of": place_of, **CASES[case]}
    oracle = oracle_of(family, "mean-over-positions", **options)
    problem = problem_of(family, "mean-over-positions", **options)
    mean = mean_over_prompts([problem])
    assert mean is not None
    n = problem.graph.n_places
    constants = {name: values.expand(-1, 1, n, -1) for name, values in mean.values.items()}
    engine = IncrementalEngine(replace(problem, ablation=learned(constants)))
    for seed, share in enumerate((0.2, 0.8)):
        mask = random_mask(engine.graph, seed, share)
        expected = oracle.logits(mask)[:, -1:]
        for final in (engine.start_from(mask).final, engine.recomputed(mask)):
            torch.testing.assert_close(logits_at_steps(engine, final), expected, **EXACT)


def test_constants_of_a_place_are_carried_at_its_positions():
    """The engine against the plain definition, which gets what edges carry position by position."""
    problem = problem_of("llama", place_of=SHIFTED)
    generator = torch.Generator().manual_seed(0)
    start = mean_over_prompts([replace(problem, ablation=ABLATIONS.find("mean-over-positions"))])
    assert start is not None
    constants = {
        name: torch.randn(len(v), 1, 4, v.shape[-1], generator=generator).double()
        for name, v in start.values.items()
    }
    engine = IncrementalEngine(replace(problem, ablation=learned(constants)))
    of = torch.tensor(SHIFTED)
    by_hand = {name: values[:, 0][:, of] for name, values in constants.items()}
    carried = replace(start, values=by_hand).of_all(*of.shape)
    mask = random_mask(engine.graph, 5, 0.6)
    with torch.no_grad():
        plain = soft_loss(engine.problem, carried, engine.clean_final, mask.double())
    for final in (engine.start_from(mask).final, engine.recomputed(mask)):
        assert engine.readout.loss(final) == pytest.approx(float(plain), abs=1e-9)


def test_a_circuit_of_another_graph_is_refused():
    other = engine_of("gpt2").graph
    with pytest.raises(GraphError):
        learned_constants(problem_of("llama"), Circuit(other, other.edge_mask))
