"""The full pass: the model at both ends, the oracle in between, and a true derivative."""

import pytest
import torch

from circuitfind.engine.full_pass import embeddings, full_pass, plain_pass
from tests.engine.problems import (
    BRIDGED,
    EXACT,
    engine_of,
    logits_at_steps,
    oracle_of,
    random_mask,
)

every_family = pytest.mark.parametrize("family", BRIDGED)
ABLATIONS = ("resample", "zero", "mean", "mean-over-positions")


@every_family
def test_the_full_mask_is_the_model(family):
    engine = engine_of(family)
    model, clean = engine.problem.model, engine.problem.prompts.clean
    with torch.no_grad():
        logits = model.logits(engine.recomputed(engine.graph.edge_mask))
    torch.testing.assert_close(logits, model.own_logits(clean), **EXACT)
    last = model.own_last_logits(clean, None, 2)
    torch.testing.assert_close(last, logits[:, -2:], **EXACT)


@every_family
def test_the_empty_mask_is_the_model_on_the_corrupted_prompts(family):
    engine = engine_of(family)
    model, corrupted = engine.problem.model, engine.problem.prompts.corrupted
    with torch.no_grad():
        logits = model.logits(engine.recomputed(torch.zeros_like(engine.graph.edge_mask)))
    torch.testing.assert_close(logits, model.own_logits(corrupted), **EXACT)


@every_family
def test_any_mask_gives_the_logits_of_the_oracle(family):
    for seed, (ablation, share) in enumerate(zip(ABLATIONS, (0.1, 0.5, 0.7, 0.9), strict=True)):
        engine, oracle = engine_of(family, ablation), oracle_of(family, ablation)
        kept = random_mask(engine.graph, seed, share)
        with torch.no_grad():
            logits = engine.problem.model.logits(engine.recomputed(kept))
        torch.testing.assert_close(logits, oracle.logits(kept), **EXACT)


@pytest.mark.parametrize("graph", [{"merge_qkv": True}, {"split_embedding": True}])
@pytest.mark.parametrize("family", ["gpt2", "bidirectional"])
def test_so_do_masks_of_graphs_with_other_options(family, graph):
    engine, oracle = engine_of(family, "zero", **graph), oracle_of(family, "zero", **graph)
    kept = random_mask(engine.graph, seed=0)
    torch.testing.assert_close(
        logits_at_steps(engine, engine.recomputed(kept))[:, 0], oracle.logits(kept)[:, -1], **EXACT
    )


@every_family
def test_the_gradient_of_a_soft_mask_is_the_slope_of_the_logits(family):
    """Along a random direction and for four edges of their own, by central differences."""
    engine = engine_of(family)
    generator = torch.Generator().manual_seed(0)
    shape = engine.graph.edge_mask.shape
    mask, direction = (torch.rand(shape, generator=generator).double() for _ in range(2))
    weights = torch.randn(engine.problem.model.shape.d_vocab, generator=generator).double()

    def value(soft):
        return (soft_logits(engine, soft) * weights).sum()

    gradient = torch.autograd.functional.jacobian(value, mask)
    assert gradient.isfinite().all()
    assert (gradient[~engine.graph.edge_mask] == 0).all()
    edges = engine.graph.edge_mask.nonzero()
    chosen = edges[torch.randperm(len(edges), generator=generator)[:4]].tolist()
    steps = [direction, *(one_edge(shape, writer, reader) for writer, reader in chosen)]
    for step in steps:
        expected = (gradient * step).sum()
        slope = (value(mask + 1e-5 * step) - value(mask - 1e-5 * step)) / 2e-5
        # The error of central differences: step² times a third derivative.
        torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_pass_is_differentiable_in_what_the_embedding_writes_and_in_replacements(family):
    engine = engine_of(family)
    model, prompts = engine.problem.model, engine.problem.prompts
    kept = random_mask(engine.graph, seed=1).double()
    (embedding,) = embeddings(model, engine.graph, prompts.clean)

    def value(stream, replacement):
        return full_pass(model, engine.graph, (stream,), replacement, kept).final.square().sum()

    point = (embedding.detach(), engine.replacement.detach())
    gradients = torch.autograd.functional.jacobian(value, point)
    for place, gradient in enumerate(gradients):
        step = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0)).double()
        ends = [
            value(*(p + sign * 1e-6 * step if i == place else p for i, p in enumerate(point)))
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / 2e-6
        torch.testing.assert_close(slope, (gradient * step).sum(), rtol=1e-6, atol=1e-6)


@every_family
def test_a_soft_mask_of_zeros_and_ones_is_the_hard_one(family):
    engine = engine_of(family)
    kept = random_mask(engine.graph, seed=2)
    with torch.no_grad():
        soft = soft_logits(engine, kept.double())
        hard = engine.problem.model.logits(engine.recomputed(kept))
    torch.testing.assert_close(soft, hard, **EXACT)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox-parallel", "attention-only"])
def test_what_readers_receive_stands_in_the_order_of_the_graph(family):
    engine = engine_of(family)
    model, prompts = engine.problem.model, engine.problem.prompts
    with torch.no_grad():
        run = plain_pass(model, engine.graph, prompts.clean, keep_reads=True)
    biases = [model.attention_bias(layer) for layer in range(model.shape.n_layers)]
    for reader, received in zip(engine.graph.readers, run.read, strict=True):
        stages = [writer.stage for writer in engine.graph.writers]
        expected = sum(
            output
            for output, stage in zip(run.written, stages, strict=True)
            if stage < reader.stage
        )
        for layer, bias in enumerate(biases):
            if bias is not None and 2 * layer + 1 < reader.stage:
                expected = expected + bias
        torch.testing.assert_close(received, expected, **EXACT)
    torch.testing.assert_close(run.final, run.read[-1], rtol=0, atol=0)


# ------------------------------------------------------------------------------- helpers


def soft_logits(engine, mask):
    model, prompts = engine.problem.model, engine.problem.prompts
    embedding = embeddings(model, engine.graph, prompts.clean)
    run = full_pass(model, engine.graph, embedding, engine.replacement, mask, prompts.real)
    return model.logits(run.final)


def one_edge(shape, writer, reader):
    step = torch.zeros(shape, dtype=torch.float64)
    step[writer, reader] = 1
    return step
