"""Directions of the stream and metrics along them, held to hooks on the models themselves."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from circuitfind.api import discover
from circuitfind.directories.config import RunConfig
from circuitfind.engine.direction import mean_difference, with_direction
from circuitfind.engine.full_pass import embeddings, full_pass
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MetricError
from circuitfind.evaluation.scorecard import measure
from circuitfind.granularity import heads_and_mlps
from circuitfind.measures import along
from circuitfind.methods.attribution import Limits, Place, attribute
from circuitfind.metrics import Metric, find_metric
from circuitfind.models.loading import load_model
from circuitfind.problem import assemble
from circuitfind.question import make_problem
from tests.engine.problems import (
    BRIDGED,
    EXACT,
    engine_of,
    model_of,
    oracle_of,
    problem_of,
    prompts_of,
    random_mask,
)
from tests.oracles.checkpoints import build
from tests.oracles.layouts import LAYOUTS, blocks_of, submodule
from tests.oracles.slopes import differences

HUGGING_FACE = [name for name in BRIDGED if name not in ("attention-only", "bidirectional")]
UNEVEN = (6, 4, 5)
STEPS = (1, 3)


@pytest.mark.parametrize("family", HUGGING_FACE)
def test_the_direction_is_the_difference_of_means_that_hooks_see(family):
    prompts = prompts_of(0, UNEVEN, steps=STEPS)
    clean, corrupted = (
        streams_after_blocks(family, tokens) for tokens in (prompts.clean, prompts.corrupted)
    )
    for block in (0, 1):
        # Each prompt's two steps count alike, and so do the prompts.
        expected = (clean[block] - corrupted[block])[:, STEPS].mean((0, 1))
        found = mean_difference(model_of(family), prompts, block)
        torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("family", BRIDGED)
def test_the_metric_is_the_projection_of_what_the_final_norm_is_given(family):
    engine = engine_of(family, metric="direction", lengths=UNEVEN)
    prompts = engine.problem.prompts
    clean, corrupted = (
        brute_final(family, torch.full_like(engine.graph.edge_mask, kept).double())
        for kept in (True, False)
    )
    last = prompts.lengths - 1
    direction = (clean - corrupted)[range(len(prompts)), last].mean(0)
    unit = direction / direction.norm()
    for seed in range(3):
        kept = random_mask(engine.graph, seed)
        expected = brute_final(family, kept.double())[range(len(prompts)), last] @ unit
        values = engine.readout.values(engine.recomputed(kept))
        torch.testing.assert_close(values, expected, **EXACT)
        assert engine.loss(engine.start_from(kept)) == pytest.approx(-float(expected.mean()), 1e-9)


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox-parallel", "llama", "gemma2"])
def test_cuts_and_candidates_have_the_loss_of_a_run_from_scratch(family):
    engine = engine_of(family, metric="direction:0")
    graph, state = engine.graph, engine.start()
    for seed in range(4):
        edges = random_mask(graph, seed, share=0.1)
        state = engine.cut(state, [(w, r) for w, r in edges.nonzero().tolist()])
        scratch = engine.readout.loss(engine.recomputed(state.mask))
        assert engine.loss(state) == pytest.approx(scratch, abs=1e-9)
    reader = len(graph.readers) - 1
    writers = [w for w in range(len(graph.writers)) if state.kept[w, reader]]
    tried = list(engine.cut_each(state, reader, writers).losses())
    alone = [engine.loss(engine.cut(state, [(w, reader)])) for w in writers]
    assert tried == pytest.approx(alone, abs=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "attention-only"])
def test_what_an_edge_into_the_logits_is_worth_is_what_it_carries_along_the_direction(family):
    """Nothing lies between such an edge and the metric, so EAP and cutting agree with a product."""
    engine = engine_of(family, metric="direction")
    prompts, model, graph = engine.problem.prompts, engine.problem.model, engine.graph
    direction = mean_difference(model, prompts)
    carried = differences(oracle_of(family), prompts.clean)[:, :, -1].mean(1)
    worth = -(carried @ direction / direction.norm())
    *_, (_, _, scores) = attribute(engine.problem, [Place(1.0, 1.0)], Limits())
    torch.testing.assert_close(scores[:, -1], worth, **EXACT)
    full = engine.loss(engine.start())
    effects = engine.cut_each(engine.start(), len(graph.readers) - 1, range(len(graph.writers)))
    assert [loss - full for loss in effects.losses()] == pytest.approx(worth.tolist(), abs=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox-parallel", "llama", "gemma2"])
def test_gradients_are_slopes_of_the_full_pass_however_prompts_are_batched(family):
    problem = problem_of(family, metric="direction", lengths=UNEVEN)
    engine = IncrementalEngine(problem)
    kept = problem.graph.edge_mask.double().requires_grad_()
    run = full_pass(
        problem.model,
        problem.graph,
        embeddings(problem.model, problem.graph, problem.prompts.clean),
        engine.replacement,
        kept,
        problem.prompts.real,
    )
    loss = problem.metric.loss(engine.readout.values(run.final))
    (slope,) = torch.autograd.grad(loss, kept)
    for batch in (1, 3):
        *_, (_, _, scores) = attribute(problem, [Place(1.0, 1.0)], Limits(batch=batch))
        difference = (scores + slope)[problem.graph.edge_mask]
        assert float(difference.abs().max()) < 1e-10


def test_a_direction_of_ones_own_is_a_metric():
    own = torch.zeros(32, dtype=torch.float64)
    own[3] = 5.0
    metric = Metric("third", "activation", "higher", along(own), reads="stream")
    engine = engine_of("gpt2", metric=metric)
    values = engine.readout.values(engine.clean_final)
    assert torch.equal(values, engine.clean_final[:, -1, 3])


def test_steps_that_a_prompt_does_not_have_are_left_out():
    prompts = prompts_of(0, (6, 6), steps=STEPS)
    missing = replace(prompts, steps=torch.tensor([[1, 3], [1, -1]]))
    stream = torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(0)).double()
    axis = torch.eye(32, dtype=torch.float64)[0]
    values = Metric("x", "", "higher", along(axis), reads="stream")(stream, missing, stream)
    assert values.tolist() == pytest.approx([float(stream[0, :, 0].mean()), float(stream[1, 0, 0])])


@pytest.fixture(scope="module")
def refusing():
    return load_model("gpt-4l")


def test_held_out_prompts_are_measured_along_the_direction_of_the_search(refusing):
    model = refusing
    config = RunConfig("refusal", "gpt-4l", "eap", metric="direction", n_prompts=6)
    ours, held_out = (config.problem(model, seed=seed) for seed in (0, 1))
    assert ours.prompts.fingerprint != held_out.prompts.fingerprint
    stream = torch.randn(6, 1, model.shape.d_model, generator=torch.Generator().manual_seed(0))
    one, other = (p.metric(stream, ours.prompts, stream) for p in (ours, held_out))
    assert torch.equal(one, other)
    refitted = with_direction(find_metric("direction"), model, held_out.prompts)
    assert not torch.allclose(refitted(stream, ours.prompts, stream), one, atol=1e-3)


def test_a_search_along_the_refusal_direction_finds_what_makes_the_model_refuse(refusing):
    problem = make_problem(refusing, "refusal", n_prompts=8, metric="direction")
    found = discover(problem, "acdc", threshold=0.2)
    by_direction, by_answer = (
        measure(found.engine, found.circuit, metric)
        for metric in (problem.metric, find_metric("logit-difference"))
    )
    assert by_direction.full > 0 > by_direction.empty
    assert by_direction.faithfulness > 0.8
    assert by_answer.faithfulness > 0.8


@pytest.mark.parametrize("name", ["direction:", "direction:-1", "direction:x", "kl:1"])
def test_only_a_direction_is_taken_after_a_block(name):
    with pytest.raises(MetricError, match=f"no metric named '{name}'; .* l2, direction"):
        find_metric(name)


def test_a_block_that_the_model_does_not_have_is_refused():
    with pytest.raises(MetricError, match=r"after block 2: .* blocks 0 to 1; choose one of them"):
        mean_difference(model_of("gpt2"), prompts_of(), 2)


def test_sets_with_the_same_mean_have_no_direction():
    prompts = prompts_of()
    crossed = replace(
        prompts,
        clean=torch.stack([prompts.clean[0], prompts.corrupted[0]]),
        corrupted=torch.stack([prompts.corrupted[0], prompts.clean[0]]),
    )
    with pytest.raises(MetricError, match="have the same mean stream, so no direction"):
        mean_difference(model_of("gpt2"), crossed)


def test_a_metric_that_lacks_its_direction_is_refused():
    model = model_of("gpt2")
    with pytest.raises(MetricError, match="'direction' has yet to be given a direction"):
        assemble(model, prompts_of(), find_metric("direction"), graph=heads_and_mlps(model.shape))


# ------------------------------------------------------------------------------- helpers


def streams_after_blocks(family: str, tokens: Tensor) -> list[Tensor]:
    """Return what each block of a Hugging Face model hands on, [batch pos d_model]."""
    model = build(family, 0, n_layers=2)
    seen: list[Tensor] = []

    def note(module, args, output):
        seen.append(output if isinstance(output, Tensor) else output[0])

    with ExitStack() as hooks, torch.no_grad():
        for block in blocks_of(model, family):
            hooks.enter_context(block.register_forward_hook(note))
        model(tokens)
    return seen


def brute_final(family: str, kept: Tensor) -> Tensor:
    """Return what the final norm is given in the oracle's run, [batch pos d_model]."""
    oracle = oracle_of(family, lengths=UNEVEN)
    norm = submodule(oracle.model, family, LAYOUTS[family].final_norm)
    seen: list[Tensor] = []
    with ExitStack() as hooks:
        hooks.enter_context(norm.register_forward_pre_hook(lambda m, args: seen.append(args[0])))
        oracle.logits(kept)
    return seen[-1].clone()
