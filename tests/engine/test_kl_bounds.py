"""Bounds on KL divergence held to brute force over the whole vocabulary, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitfind.engine import kl_bounds
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.kl_bounds import KlBounds, numbers_of_bounds, phi
from circuitfind.engine.memory import plan
from circuitfind.errors import MethodError
from circuitfind.measures import Reference
from tests.engine.problems import engine_of, problem_of, random_mask


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_tokens=st.integers(1, 40),
    width=st.integers(1, 6),
    share=st.sampled_from([0.01, 0.2, 1.0]),
    far=st.sampled_from([0.0, 1e-6, 0.1, 3.0]),
    step=st.sampled_from([0.0, 1e-6, 0.01, 1.0, 30.0, 1e4]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_the_true_divergence_lies_within_its_bounds(seed, n_tokens, width, share, far, step, dtype):
    draw = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=draw).to(dtype)

    weight, bias, clean = random(n_tokens, width) * 2, random(n_tokens), random(3, 2, width)
    start = clean + far * random(3, 2, width)
    streams = start + step * random(5, 3, 2, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kl_bounds, "_EXACT_SHARE", share)
        full = Reference(clean @ weight.T + bias)
        bounds = KlBounds(weight, clean, full, full.probability @ weight)
        anchor = bounds.anchor(start)
        low, high = bounds.rises(anchor, streams)
    before, after = (true_kl(weight, bias, clean, stream) for stream in (start, streams))
    torch.testing.assert_close(
        anchor.divergence.double(), before, rtol=1e-4, atol=1e-12 if dtype.itemsize > 4 else 2e-5
    )
    rise, rounding = after - before, 1e-15 * (1 + logits_of(weight, bias, streams).abs().amax())
    assert bool((low <= rise + rounding).all() and (rise <= high + rounding).all())
    if share == 1 and step <= 0.01:
        # All tokens are computed: what is left between the bounds is room for rounding.
        assert float((high - low).max()) < (1e-10 if dtype.itemsize > 4 else 0.05)


def test_bounds_get_tight_with_the_square_of_the_step():
    torch.manual_seed(0)
    weight, clean = torch.randn(500, 8), torch.randn(4, 1, 8)
    full = Reference(clean @ weight.T)
    bounds = KlBounds(weight, clean, full, full.probability @ weight)
    anchor, direction = bounds.anchor(clean), torch.randn(1, 4, 1, 8)
    widths = []
    for size in (1e-2, 1e-3):
        low, high = bounds.rises(anchor, clean + size * direction)
        assert bool((high > low).all())
        widths.append(float((high - low).mean()))
    assert widths[0] / widths[1] == pytest.approx(100, rel=0.1)


def test_bounds_are_infinite_where_exponentials_overflow():
    weight, clean = torch.eye(3), torch.zeros(1, 1, 3)
    full = Reference(clean @ weight.T)
    bounds = KlBounds(weight, clean, full, full.probability @ weight)
    low, high = bounds.rises(bounds.anchor(clean), clean + 1e6 * torch.eye(3)[:1].view(1, 1, 1, 3))
    assert float(low) == -torch.inf and float(high) == torch.inf
    far = bounds.anchor(clean + 1e6 * torch.eye(3)[0])
    assert far.divergence.item() == pytest.approx(2 / 3 * 1e6 - math.log(3), rel=1e-6)


@given(st.floats(-50, 50))
def test_phi_is_the_quotient_and_rises(x):
    near = sum(x**k / math.factorial(k + 2) for k in range(12))
    expected = near if abs(x) < 0.5 else (math.exp(x) - 1 - x) / x**2
    low, high = phi(torch.tensor([x, x + 0.01], dtype=torch.float64)).tolist()
    assert low == pytest.approx(expected, rel=1e-9)
    assert low < high


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("gpt2", {}),
        ("llama", {"lengths": (6, 4, 5)}),
        ("gpt-j", {"steps": (3, 5)}),
        ("bidirectional", {"lengths": (5, 6), "steps": (2, 4)}),
    ],
)
def test_losses_of_candidates_lie_within_the_bounds_of_the_readout(family, options, everywhere):
    engine = engine_of(family, **options)
    state = engine.start_from(random_mask(engine.graph, seed=1, share=0.9))
    reader = len(engine.graph.readers) - 1
    writers = [w for w in range(len(engine.graph.writers)) if state.kept[w, reader]]
    tried = engine.cut_nested(state, reader, writers)
    readout = engine.readout
    assert readout.can_bound
    anchor = readout.anchor(state.final)
    assert readout.loss_at(anchor) == pytest.approx(engine.loss(state), abs=1e-12)
    rises, losses = readout.rises(anchor, tried.final), tried.losses()
    for (low, high), loss in zip(rises, losses, strict=True):
        assert low < loss - engine.loss(state) < high < math.inf


@pytest.mark.parametrize(
    ("family", "metric"), [("gemma2", "kl"), ("gpt2", "logit-difference"), ("gpt2", "l2")]
)
def test_there_are_no_bounds_for_soft_caps_and_other_metrics(family, metric, everywhere):
    assert not IncrementalEngine(problem_of(family, metric=metric)).readout.can_bound


def test_small_vocabularies_are_computed_whole():
    assert not engine_of("gpt2").readout.can_bound
    assert kl_bounds.bounds_pay(50257, 768) and not kl_bounds.bounds_pay(750, 16)
    assert not kl_bounds.bounds_pay(9000, 4096)


def test_the_plan_of_a_search_within_a_memory_leaves_room_for_bounds(monkeypatch, everywhere):
    problem = problem_of("gpt2")
    engine = IncrementalEngine(problem)
    anchor = engine.readout.anchor(engine.clean_final)
    held = [anchor.rows, anchor.probability, engine.readout._shifts.bounds._gram]
    n_steps = problem.prompts.steps.numel()
    needed = numbers_of_bounds(problem.model.shape.d_vocab, problem.model.shape.d_model, n_steps)
    assert sum(tensor.numel() for tensor in held) <= needed

    def least():
        """Return the smallest memory that is enough for one prompt at a time."""
        low, high = 0, 1 << 30
        while high - low > 1:
            middle = (low + high) // 2
            try:
                plan(problem, middle)
                high = middle
            except MethodError:
                low = middle
        return high

    with_bounds = least()
    monkeypatch.setattr(kl_bounds, "_MOST_SHARE", 0)
    assert with_bounds - least() == pytest.approx(8 * needed * 8 / 7, abs=32)


# ------------------------------------------------------------------------------- helpers


@pytest.fixture
def everywhere(monkeypatch):
    """Bounds are used at any size, and read a quarter of the tokens."""
    monkeypatch.setattr(kl_bounds, "_MOST_SHARE", 100)
    monkeypatch.setattr(kl_bounds, "_FEWEST_TOKENS", 1)
    monkeypatch.setattr(kl_bounds, "_EXACT_SHARE", 1 / 4)


def logits_of(weight, bias, stream):
    return stream.double() @ weight.double().T + bias.double()


def true_kl(weight, bias, clean, stream):
    """Return KL(full || stream) at each step, in float64, by its definition."""
    p, q = (logits_of(weight, bias, each).log_softmax(-1) for each in (clean, stream))
    return (p.exp() * (p - q)).sum(-1)
