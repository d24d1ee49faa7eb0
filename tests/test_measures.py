"""KL divergence against torch's own in float64, near 0 and far from it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

import circuitfind as cf
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.metrics import find_metric
from circuitfind.prompts import Pair, PromptPairs, collate

KL = find_metric("kl")
VOCABULARY = 49_152
"""As many tokens as SmolLM2 has."""

SEEDS = st.integers(0, 2**32)
POWERS = st.floats(-9, 2)
"""Logarithms of how far a circuit's logits, or its final stream, are from the full model's."""


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, spread=st.floats(0.1, 20), power=POWERS, constant=st.floats(-50, 50))
def test_kl_is_never_negative_and_that_of_float64_whatever_the_distance(
    seed, spread, power, constant
):
    generator = torch.Generator().manual_seed(seed)
    full = spread * torch.randn(2, 1, VOCABULARY, generator=generator)
    noise = torch.randn(2, 1, VOCABULARY, generator=generator)
    logits = full + 10**power * noise + constant
    found = KL(logits, prompts_of(2), full)
    assert bool((found >= 0).all())
    # What all logits rise by together is taken away in float32, to about 1e-6 of itself; what is
    # left of it counts by its square.
    left = (1e-6 * constant) ** 2
    torch.testing.assert_close(
        found.double(), in_float64(logits, full), rtol=1e-3, atol=2e-9 + left
    )
    assert KL(full.clone(), prompts_of(2), full).tolist() == [0.0, 0.0]


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, power=POWERS)
def test_kl_of_a_final_stream_is_never_negative_and_that_of_float64(seed, power, wide, wide64):
    noise = torch.randn(wide.clean_final.shape, generator=torch.Generator().manual_seed(seed))
    final = wide.clean_final + 10**power * noise
    found = wide.readout.values(final)
    assert bool((found >= 0).all())
    logits, full = (
        wide64.logits(wide.readout.at_steps(stream).double())
        for stream in (final, wide.clean_final)
    )
    torch.testing.assert_close(found.double(), in_float64(logits, full), rtol=1e-3, atol=2e-9)


def test_kl_of_the_full_model_is_exactly_0_in_both_ways_of_computing_it(wide):
    metric, steps = wide.problem.metric, wide.readout.at_steps(wide.clean_final)
    logits = wide.problem.model.logits(steps)
    assert wide.loss(wide.start()) == 0.0
    assert wide.readout.values(wide.clean_final).tolist() == [0.0] * len(wide.problem.prompts)
    assert metric(logits, wide.problem.prompts, logits).abs().max() == 0


def test_a_circuit_that_lacks_one_edge_has_a_kl_above_0_however_small(wide):
    tried = wide.cut_each(wide.start(), len(wide.graph.readers) - 1, [1, 2, 3])
    assert all(loss > 0 for loss in tried.losses())


@pytest.mark.parametrize("distance", [0.0, 1e-6, 0.1, 3.0, 120.0, 2000.0])
def test_the_gradient_of_kl_is_the_difference_of_the_distributions(distance):
    generator = torch.Generator().manual_seed(0)
    full = torch.randn(3, 1, 50, generator=generator, dtype=torch.float64)
    moved = full + distance * torch.randn(3, 1, 50, generator=generator, dtype=torch.float64)
    logits = moved.clone().requires_grad_()
    KL(logits, prompts_of(3), full).sum().backward()
    difference = moved.softmax(-1) - full.softmax(-1)
    torch.testing.assert_close(logits.grad, difference, rtol=1e-9, atol=1e-12)


def test_a_prompt_whose_exponentials_overflow_leaves_the_others_exact():
    generator = torch.Generator().manual_seed(1)
    full = torch.randn(2, 1, 1000, generator=generator)
    logits = full + 1e-4 * torch.randn(2, 1, 1000, generator=generator)
    alone = KL(logits[:1], prompts_of(1), full[:1])
    logits[1, 0, 3] += 500
    both = KL(logits, prompts_of(2), full)
    assert both[0] == alone[0]
    torch.testing.assert_close(both.double(), in_float64(logits, full), rtol=1e-4, atol=1e-9)


# ------------------------------------------------------------------------------- helpers


def in_float64(logits: torch.Tensor, full: torch.Tensor) -> torch.Tensor:
    circuit, model = (values.double().log_softmax(-1) for values in (logits, full))
    return torch.nn.functional.kl_div(circuit, model, log_target=True, reduction="none").sum((1, 2))


def prompts_of(n: int) -> PromptPairs:
    return collate([Pair([1, 2, row + 3], [1, 7, row + 3], answers=[[0]]) for row in range(n)])


def a_wide_model(dtype: str):
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes)).eval()
    model.lm_head.weight.data *= 20
    return cf.load_model(model, dtype=dtype)


@pytest.fixture(scope="module")
def wide():
    """An engine for a model with a vocabulary of a real size, in float32."""
    model = a_wide_model("float32")
    return IncrementalEngine(cf.make_problem(model, prompts_of(3), metric="kl"))


@pytest.fixture(scope="module")
def wide64():
    return a_wide_model("float64")
