"""The slope of the loss at a mask is what central differences of the loss say it is."""

import pytest
import torch

from circuitfind.engine import soft_mask
from circuitfind.engine.full_pass import embeddings, full_pass
from tests.engine.problems import engine_of, loss_of, oracle_of, random_mask


def loss_at(engine, mask):
    """Run the model with a soft mask, on all prompts at once."""
    problem, prompts = engine.problem, engine.problem.prompts
    written = embeddings(problem.model, engine.graph, prompts.clean)
    run = full_pass(problem.model, engine.graph, written, engine.replacement, mask, prompts.real)
    return float(problem.metric.loss(engine.readout.values(run.final)).detach())


@pytest.mark.parametrize("most", [1 << 26, 1])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_slope_is_that_of_the_loss(family, most, monkeypatch):
    """With all prompts together and one by one, at a circuit, along two directions."""
    monkeypatch.setattr(soft_mask, "_STREAM_FLOATS", most)
    engine = engine_of(family)
    kept = random_mask(engine.graph, seed=1, share=0.7).double()
    found = soft_mask.slope(engine, kept)
    for seed in (0, 1):
        direction = torch.rand(
            kept.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        rise = loss_at(engine, kept + 1e-5 * direction) - loss_at(engine, kept - 1e-5 * direction)
        expected = rise / 2e-5
        assert float((found * direction).sum()) == pytest.approx(expected, rel=1e-5)


def test_the_slope_at_places_is_that_of_the_whole_model_s_loss():
    """By central differences of the oracle's run, which shares no code with the engine."""
    place_of = ((0, 1, 1, 1, 2, 2), (1, 0, 0, 2, 2, 2))
    engine, oracle = (of("llama", place_of=place_of) for of in (engine_of, oracle_of))
    loss = loss_of("kl", oracle, engine.problem.prompts)
    generator = torch.Generator().manual_seed(0)
    soft = torch.rand(engine.graph.edge_mask.shape, generator=generator, dtype=torch.float64)
    soft = soft * engine.graph.edge_mask
    found = soft_mask.slope(engine, soft)
    edges = engine.graph.edge_mask.nonzero()
    for pair in edges[torch.randperm(len(edges), generator=generator)[:8]].tolist():
        step = torch.zeros_like(soft)
        step[tuple(pair)] = 1e-5
        rise = loss(oracle.logits(soft + step)) - loss(oracle.logits(soft - step))
        assert float(found[tuple(pair)]) == pytest.approx(rise / 2e-5, abs=1e-7)


def test_where_nothing_has_a_gradient_all_slopes_are_zero():
    engine = engine_of("gpt2", metric="accuracy")
    assert not soft_mask.slope(engine, engine.graph.edge_mask.double()).any()
