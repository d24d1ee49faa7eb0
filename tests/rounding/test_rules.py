"""Each rule: what float64 says of inputs within the radii is within the radius of the result.

Results are computed in float32, whose rounding is half a billion times that of the oracle.
"""

import pytest
import torch
from torch.nn import functional

from circuitfind.rounding import balls
from circuitfind.rounding.balls import Ball, bounded, ends
from circuitfind.rounding.parts import COMPOSED
from circuitfind.rounding.rules import RULES

LONG = 40

CASES = {
    "add": lambda a, b: torch.add(a, b, alpha=0.3),
    "sub": lambda a, b: a - b,
    "rsub": lambda a, b: 1.7 - a,
    "mul": lambda a, b: a * b * 0.3,
    "div": lambda a, b: a / (b.abs() + 0.5),
    "addcmul": lambda a, b: torch.addcmul(a, a, b),
    "neg": lambda a, b: -a,
    "abs": lambda a, b: a.abs(),
    "relu": lambda a, b: a.relu(),
    "clamp": lambda a, b: a.clamp(-0.3, 0.7),
    "clamp_min": lambda a, b: a.clamp_min(0.3),
    "clamp_max": lambda a, b: a.clamp_max(0.3),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "amax": lambda a, b: a.amax(-1, keepdim=True),
    "amin": lambda a, b: a.amin((0, 1)),
    "_to_copy": lambda a, b: (a.double() / 3).to(a.dtype),
    "sum": lambda a, b: torch.stack([a.sum(), a.sum(0).sum(), a.sum((0, 1))]),
    "mean": lambda a, b: torch.cat([a.mean(-1), a.mean()[None]]),
    "cumsum": lambda a, b: a.cumsum(-1),
    "mm": lambda a, b: a @ b.T,
    "bmm": lambda a, b: torch.bmm(a[None], b.T[None]),
    "mv": lambda a, b: torch.mv(a, b[0]),
    "dot": lambda a, b: torch.dot(a[0], b[0]),
    "addmm": lambda a, b: torch.addmm(a[:, :4], a, b.T, beta=0.3, alpha=1.7),
    "baddbmm": lambda a, b: torch.baddbmm(a[None, :, :4], a[None], b.T[None]),
    "addmv": lambda a, b: torch.addmv(a[:, 0], a, b[0]),
    "pow": lambda a, b: torch.cat([a.pow(3), (a.abs() + 0.1).pow(-0.5), (a.abs() + 1).pow(-1)]),
    "sqrt": lambda a, b: (a.abs() + 0.1).sqrt(),
    "rsqrt": lambda a, b: (a.abs() + 0.1).rsqrt(),
    "reciprocal": lambda a, b: (a.abs() + 0.1).reciprocal(),
    "log": lambda a, b: (a.abs() + 0.1).log(),
    "exp": lambda a, b: a.exp(),
    "linalg_vector_norm": lambda a, b: torch.linalg.vector_norm(a, dim=-1, keepdim=True),
    "tanh": lambda a, b: a.tanh(),
    "sigmoid": lambda a, b: a.sigmoid(),
    "erf": lambda a, b: a.erf(),
    "sin": lambda a, b: a.sin(),
    "cos": lambda a, b: a.cos(),
    "gelu": lambda a, b: functional.gelu(3 * a),
    "silu": lambda a, b: functional.silu(3 * a),
    "_softmax": lambda a, b: (4 * a).masked_fill(b > 1, -torch.inf).softmax(-1),
    "_safe_softmax": lambda a, b: torch.ops.aten._safe_softmax(
        a.masked_fill(a > -2, -torch.inf), -1
    ),
    "native_layer_norm": lambda a, b: functional.layer_norm(a, [LONG], b[0], b[1], 1e-3),
}

MORE = {
    "gelu with tanh": lambda a, b: functional.gelu(3 * a, approximate="tanh"),
    "in place": lambda a, b: a.clone().mul_(b).add_(a).exp_(),
    "into a view": lambda a, b: written_into(a, b),
    "attention": lambda a, b: functional.scaled_dot_product_attention(
        a[None, None], b[None, None], a[None, None], is_causal=True
    ),
    "an RMS norm": lambda a, b: functional.rms_norm(a, [LONG], b[0], 1e-3),
    "in inference mode": lambda a, b: in_inference_mode(a, b),
    "einsum": lambda a, b: torch.einsum("ab,cb->ca", a, b),
    "a mask of the least number": lambda a, b: (a + -3.4e38 * (b > 0)).softmax(-1),
}


def written_into(a, b):
    found = a.new_empty(2, *a.shape)
    found[0], found[1] = a, a
    found[0].view(-1)[:LONG] += b[0]
    return found


@torch.inference_mode()
def in_inference_mode(a, b):
    """Here composite operations come as they are."""
    return functional.linear(a, b / 8).square()


def numbers():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, LONG, generator=generator, dtype=torch.float64).float()


@pytest.fixture
def asked(monkeypatch):
    """The operations whose rules are asked for."""
    names, radius = set(), balls.radius
    monkeypatch.setattr(balls, "radius", lambda name, *args: names.add(name) or radius(name, *args))
    return names


@pytest.mark.parametrize("name", [*CASES, *MORE])
@pytest.mark.parametrize("size", [0.0, 1e-6, 1e-3])
def test_the_exact_result_is_within_the_radius(name, size, asked):
    compute, (a, b) = (CASES | MORE)[name], numbers()
    generator = torch.Generator().manual_seed(1)

    def exact(centre, share):
        """Return numbers at some share of the radius from the centre, up or down."""
        sign = torch.randint(2, centre.shape, generator=generator).double() * 2 - 1
        return centre.double() + share * size * sign

    given = [Ball(x, torch.full_like(x.double(), size)) for x in (a, b)]
    with bounded():
        found, radius = ends(compute(*given))
    assert name in MORE or name in COMPOSED or name in asked
    apart = torch.zeros_like(radius)
    most = 1 - 1e-9
    for of_a, of_b in [(most, most), (most, most), (most, 0), (0, most), (0.3, 0.3)]:
        with torch.no_grad():
            true = compute(exact(a, of_a), exact(b, of_b))
        apart = torch.maximum(apart, (found.double() - true).abs())
    assert bool((apart <= radius).all())
    assert float(radius.max()) < 3e3 * max(size, 1e-6) * max(1, float(found.abs().max()))


@pytest.mark.parametrize("total", [torch.sum, torch.mean])
def test_a_sum_that_loses_digits_is_within_the_radius(total):
    numbers = torch.tensor([2.0**24, *[1.0] * LONG, -(2.0**24)])
    with bounded():
        found, radius = ends(total(numbers))
    apart = (found.double() - total(numbers.double())).abs()
    assert 0.01 < float(apart) <= float(radius)


@pytest.mark.parametrize("inexact", [0, 1])
def test_errors_of_a_product_that_all_add_up_are_within_the_radius(inexact):
    pair = [each.abs() + 1 for each in numbers()]
    balls = list(pair)
    balls[inexact] = Ball(pair[inexact], torch.full_like(pair[inexact], 0.1, dtype=torch.float64))
    with bounded():
        found, radius = ends(balls[0] @ balls[1].T)
    pair = [each.double() for each in pair]
    pair[inexact] += 0.1 - 1e-9
    assert bool(((found.double() - pair[0] @ pair[1].T).abs() <= radius).all())


@pytest.mark.parametrize(
    "compute",
    [
        torch.mean,
        torch.sum,
        lambda x: x @ x,
        lambda x: torch.cumsum(x, 0)[-1],
        lambda x: torch.addcmul(torch.zeros(2), x, -x),
        lambda x: torch.addmm(torch.zeros(1, 1), x[None], x[:, None]),
    ],
)
def test_what_has_become_infinite_has_no_bound(compute):
    # Squares and sums of these are above the largest number of float32, and not of float64.
    with bounded():
        found, radius = ends(compute(torch.tensor([3e38, 3e38])))
    assert not bool(found.isfinite().any()) and bool(radius.isposinf().all())


def test_a_product_with_an_exact_zero_is_exact():
    (a, b), zero = numbers(), torch.zeros(4, LONG)
    ball = Ball(b, torch.full_like(b.double(), 1e-3))
    unknown = Ball(zero, torch.full_like(zero.double(), 1e-3))
    near = Ball(zero + 1e-4, torch.full_like(zero.double(), 1e-3))
    with bounded():
        exact = [
            zero * ball, ball * 0.0, zero @ ball.T, zero @ ball.T + torch.zeros(4),
            functional.linear(zero, ball, torch.zeros(4)), (zero * ball).sum(), zero / a,
            (zero @ ball.T).tanh(), functional.gelu(zero), torch.mv(zero, ball[0]),
            functional.layer_norm(zero, [LONG]),
        ]  # fmt: skip
        small = torch.full((4, LONG), 1e-30)
        inexact = [
            unknown * ball, unknown @ ball.T, unknown.sum(), small * small, small @ small.T,
            zero * (1 / near),
        ]  # fmt: skip
    for each in exact:
        assert not bool(ends(each)[0].any() or ends(each)[1].any())
    for each in inexact:
        assert bool((ends(each)[1] != 0).all())


def test_every_rule_is_tried():
    assert CASES.keys() == RULES.keys() | COMPOSED.keys()
