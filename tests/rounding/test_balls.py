"""Balls hold what exact arithmetic gives, of whole passes too, or there is no proof."""

import copy
import json
import threading

import pytest
import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.metrics import find_metric
from circuitfind.models.compiled import load_compiled
from circuitfind.models.loading import load_model
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from circuitfind.rounding.balls import Ball, bounded, ends
from circuitfind.rounding.numbers import Unproved
from tests.engine.problems import random_mask
from tests.oracles.checkpoints import build, float64_throughout
from tests.programs import write_program


def balls(shape=(3, 4, 5)):
    """Return numbers each of which has a radius that follows from the number."""
    centre = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Ball(centre, centre.double().abs() / 1000)


def filled(ball):
    found = ball.clone()
    found[0].fill_(7.0)
    found[1, :2] = found[2, 2:]
    found.index_put_((torch.tensor([2]), torch.tensor([1])), found[0, 1].clone())
    return found


@pytest.mark.parametrize(
    "move",
    [
        lambda x: x.transpose(0, 2).reshape(5, -1)[1:, ::2].unsqueeze(0).expand(2, -1, -1),
        lambda x: torch.stack(torch.cat([x, torch.full_like(x, 7.0)]).unbind(0)[::-1]).flip(1),
        lambda x: x.masked_fill(torch.arange(5) > 2, 7.0).tril().contiguous(),
        lambda x: torch.where(torch.arange(5) > 2, x, 7.0)[:, torch.tensor([3, 0])],
        lambda x: torch.nn.functional.pad(x, (1, 2), value=7.0).repeat(1, 2, 1).split(2, dim=1)[1],
        lambda x: x.gather(1, torch.zeros(3, 1, 5, dtype=torch.long)).repeat_interleave(2, dim=0),
        filled,
    ],
)
def test_where_numbers_are_moved_to_their_radii_are_moved_too(move):
    ball = balls()
    with bounded():
        found = move(ball)
    centre, radius = ends(found)
    assert torch.equal(centre, move(ball.centre))
    expected = (centre.double().abs() / 1000).masked_fill(centre == 7.0, 0)
    assert torch.equal(radius, expected)


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (lambda x: torch.special.erfcx(x), "special_erfcx"),
        (lambda x: x.argmax(), "argmax"),
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.numpy(), "numpy"),
        (lambda x: x > x.flip(0), "gt"),
        (lambda x: x.long(), "_to_copy"),
        (lambda x: torch.linalg.vector_norm(x, 1), "linalg_vector_norm"),
        (lambda x: x.div(x, rounding_mode="floor"), "div"),
        (lambda x: torch.addcmul(x, x, x, value=0.7), "addcmul with a factor"),
        (lambda x: torch.stack([x, x], out=torch.zeros(2, *x.shape)), "stack into a given"),
        (lambda x: torch.mul(x, x, out=torch.zeros(x.shape)), "mul into a given"),
        (lambda x: torch.fft.fft(torch.ones(3)).abs(), "_fft_r2c of complex numbers"),
        (lambda x: x.view(torch.int32), "view to another number type"),
        (lambda x: torch.arange(0, 1, 0.1) + x[0, 0, 0], "arange of fractions"),
        (lambda x: WEIGHT.fill_(0.1), "fill_ into a tensor from before"),
        (lambda x: WEIGHT.add_(x.sum()), "add_ into a tensor from before"),
        (lambda x: WEIGHT.copy_(x[0, 0, 0]), "copy_ into a tensor from before"),
    ],
)
def test_what_has_no_bound_is_not_proved_and_is_named(step, name):
    ball = balls()
    with pytest.raises(Unproved, match=f"the operation {name}"), bounded():
        step(ball)
    assert float(WEIGHT) == 1


WEIGHT = torch.ones(())


def test_a_comparison_that_rounding_cannot_change_is_made():
    ball = balls()
    with bounded():
        assert bool((ball < 100).all())
        # What is known exactly can be compared with what it is equal to.
        assert bool((torch.ones(3) == 1).all())


def test_outside_of_the_context_a_ball_is_what_was_computed():
    ball = balls()
    assert torch.equal(ball + 1, ball.centre + 1)
    with pytest.raises(Unproved, match="not computed in the context"):
        ends(ball + 1)


def test_in_another_thread_no_radius_is_lost():
    ball, failed = balls(), []

    def elsewhere():
        try:
            ball + 1
        except Unproved as why:
            failed.append(str(why))

    with bounded():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert failed == ["no bound for the operation add outside of the context"]


def test_what_fails_with_radii_is_not_proved():
    ball = balls()
    with pytest.raises(Unproved, match="a pass with bounds ends in RuntimeError"), bounded():
        torch.tensor(list(ball[0, 0]))


def test_with_other_arithmetic_nothing_is_proved():
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(Unproved, match="fewer digits"), bounded():
            pass
    finally:
        torch.set_float32_matmul_precision("highest")
    if torch.set_flush_denormal(True):
        try:
            with pytest.raises(Unproved, match="set_flush_denormal"), bounded():
                pass
        finally:
            torch.set_flush_denormal(False)


def assigned(ball, value):
    found = ball.clone()
    found[..., 0] = value
    return found


INTEGERS = torch.tensor([-3] * 5)


@pytest.mark.parametrize(
    "move",
    [
        lambda x: torch.where(torch.arange(5) > 2, x, INTEGERS),
        lambda x: torch.cat([x, INTEGERS.expand(3, 4, 5)]),
        lambda x: torch.stack([x[0, 0], INTEGERS]),
        lambda x: x.masked_fill(torch.arange(5) > 2, INTEGERS[0]),
        lambda x: x.clone().fill_(INTEGERS[0]),
        lambda x: x.select_scatter(INTEGERS[:4].expand(3, 4), 2, 1),
        lambda x: assigned(x, -3),
    ],
)
def test_integers_that_are_moved_among_elements_are_exact(move):
    ball = balls()
    with bounded():
        found = move(ball)
    centre, radius = ends(found)
    assert torch.equal(centre, move(ball.centre)) and bool((centre == -3).any())
    assert torch.equal(radius, (centre.double().abs() / 1000).masked_fill(centre == -3, 0))


@pytest.mark.parametrize(
    "step",
    [
        lambda x, wide: torch.full((2,), 0.1),
        lambda x, wide: x.new_full((2,), 0.1),
        lambda x, wide: x.masked_fill(x == 1, 0.1),
        lambda x, wide: torch.where(x == 1, 0.1, x),
        lambda x, wide: torch.where(x == 1, wide, x),
        lambda x, wide: (x * 1).fill_(wide),
        lambda x, wide: torch.nn.functional.pad(x[:0], (1, 1), value=0.1),
        lambda x, wide: x * 0.1,
        lambda x, wide: x - (1 - wide),
        lambda x, wide: x.double().mul(0.1).float(),
    ],
)
def test_what_is_rounded_to_a_narrower_type_has_a_radius(step):
    narrow, wide = torch.ones(2), torch.tensor(0.1, dtype=torch.float64)
    with bounded():
        found, radius = ends(step(narrow, wide))
    off = (found.double() - wide).abs()
    assert found.dtype == torch.float32 and float(off.min()) > 0
    assert bool((off <= radius).all()) and float(radius.max()) < 3e-7


def logits(problem, kept):
    engine = IncrementalEngine(problem)
    with torch.no_grad():
        (final,) = engine.finals([kept])
        return problem.model.logits(engine.readout.at_steps(final))


def of_type(model, dtype):
    """Return a compiled model of another number type."""
    found = copy.copy(model)
    found.dtype = dtype
    found._weights = {name: each.to(dtype) for name, each in model._weights.items()}
    found._norms = {
        name: norm._replace(gain=norm.gain.to(dtype), bias=norm.bias.to(dtype))
        for name, norm in model._norms.items()
    }
    return found


def narrow_and_wide(family, folder):
    """Return a model in float32, and the same weights in float64."""
    if family == "compiled":
        file = write_program(folder, n_layers=1)
        file.write_text(json.dumps(json.loads(file.read_text()) | {"normalization": "LNPre"}))
        # What its files hold is rounded, and computed with in float64.
        model = load_compiled(file, "cpu", torch.float32)
        return of_type(model, torch.float32), model
    network = build(family, dtype=torch.float32, n_layers=1)
    for name, weight in network.named_parameters():
        # Worst cases multiply from map to map.
        weight.mul_(0.15 if weight.ndim > 1 and "wte" not in name and "embed" not in name else 1)
    with float64_throughout():
        return load_model(network), load_model(copy.deepcopy(network).double())


@pytest.mark.parametrize("family", ["gpt2", "llama", "compiled"])
def test_a_pass_in_float32_holds_what_float64_says_within_its_radius(family, tmp_path):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 4, (4, 5), generator=generator).tolist()
    prompts = collate([Pair(tokens[n], tokens[n + 1], [[1]], [[2]]) for n in (0, 2)])
    models = narrow_and_wide(family, tmp_path)
    with float64_throughout():
        for ablation in ("resample", "zero"):
            narrow, wide = (assemble(each, prompts, find_metric("kl"), ablation) for each in models)
            kept = random_mask(narrow.graph, 0, 0.7)
            # The pass before leaves nothing that is chosen by trial.
            logits(narrow, kept)
            with bounded():
                found, radius = ends(logits(narrow, kept))
            assert found.dtype == torch.float32
            apart = (found.double() - logits(wide, kept)).abs()
            assert bool((apart <= radius).all())
            assert float(apart.max()) > 0 and float(radius.max()) < 0.5
