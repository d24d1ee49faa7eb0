"""Matryoshka attribution: its operator, what it descends, and what its rankings are worth."""

import math

import pytest
import torch

from circuitfind.errors import MethodError
from circuitfind.methods import METHODS
from circuitfind.methods.gates import EveryEdge, WriterGates
from circuitfind.methods.mattr import MattrOptions, drawn_size, soft_top
from tests.engine.problems import engine_of, loss_of, oracle_of
from tests.type_checks import types_checked

MATTR = METHODS.find("mattr")


def scores_drawn(n: int, scale: float = 2.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n", [2, 3, 50, 32_491])
@pytest.mark.parametrize("share", [None, 0.3, -1])
def test_gates_add_up_to_the_size_and_keep_the_order(n, share):
    size = {None: 1.0, -1: n - 1.0}.get(share, (share or 0) * n)
    for scale in (1e-3, 1.0, 30.0):
        scores = scores_drawn(n, scale)
        gates = soft_top(scores, size)
        assert float(gates.sum()) == pytest.approx(size, abs=1e-9 * n)
        assert bool((gates >= 0).all() and (gates <= 1).all())
        order = scores.argsort(descending=True)
        assert bool((gates[order].diff() <= 0).all())


def test_only_differences_of_scores_matter():
    scores = scores_drawn(40)
    gates = soft_top(scores, 7.5)
    torch.testing.assert_close(soft_top(scores + 100, 7.5), gates, rtol=0, atol=1e-12)
    permuted = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(soft_top(scores[permuted], 7.5), gates[permuted])


def test_equal_scores_have_equal_gates():
    gates = soft_top(torch.zeros(8, dtype=torch.float64), 2.0)
    torch.testing.assert_close(gates, torch.full((8,), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("size", [0.4, 1.0, 3.7, 8.6])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_slope_of_the_gates_is_that_of_finite_differences(size, temperature):
    scores = scores_drawn(9, scale=1.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: soft_top(s, size, temperature), (scores,), eps=1e-6)


def test_a_common_shift_of_all_scores_has_no_slope():
    scores = scores_drawn(30).requires_grad_()
    weights = scores_drawn(30, seed=1)
    (slope,) = torch.autograd.grad((soft_top(scores, 4.0) * weights).sum(), scores)
    assert abs(float(slope.sum())) < 1e-12 and float(slope.abs().max()) > 1e-3


def test_sizes_are_drawn_as_the_schedule_says():
    n, generator = 1000, torch.Generator().manual_seed(0)
    drawn = {
        schedule: torch.tensor([drawn_size(schedule, n, generator) for _ in range(4000)]).double()
        for schedule in ("uniform", "log", "logit")
    }
    for sizes in drawn.values():
        assert float(sizes.min()) >= 1 and float(sizes.max()) <= n - 1
    # Each of these is drawn evenly between its ends: half of them below the middle, within five
    # standard errors.
    middle = {"uniform": n / 2, "log": math.sqrt(n - 1), "logit": n / 2}
    lower = {"uniform": n / 4, "log": (n - 1) ** 0.25, "logit": n / (1 + math.sqrt(n - 1))}
    for schedule, sizes in drawn.items():
        below = (sizes < middle[schedule]).double().mean()
        assert float(below) == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(4000))
        far = (sizes < lower[schedule]).double().mean()
        assert float(far) == pytest.approx(0.25, abs=5 * 0.44 / math.sqrt(4000))


@pytest.mark.parametrize("direction", ["sufficient", "necessary"])
@pytest.mark.parametrize(("family", "level"), [("gpt2", "edges"), ("llama", "components")])
def test_the_first_step_goes_down_the_loss_of_the_whole_model(family, level, direction):
    """The first step of Adam is the learning rate times the sign of the slope."""
    engine = engine_of(family, metric="logit-difference")
    oracle, graph = oracle_of(family), engine.graph
    loss = loss_of("logit-difference", oracle, engine.problem.prompts)
    options = MattrOptions(steps=1, batch=2, level=level, direction=direction, learning_rate=0.1)
    training = MATTR.training(engine, options)
    training.advance_to(1)
    layout = EveryEdge(graph) if level == "edges" else WriterGates(graph)
    size = drawn_size("log", layout.n, torch.Generator().manual_seed(0))

    def objective(scores):
        gates = soft_top(scores, size)
        if direction == "sufficient":
            return loss(oracle.logits(layout.mask(gates)))
        return -loss(oracle.logits(layout.mask(1 - gates)))

    checked = 0
    for index in range(0, layout.n, max(1, layout.n // 12)):
        step = torch.zeros(layout.n, dtype=torch.float64)
        step[index] = 1e-4
        slope = float(objective(step) - objective(-step)) / 2e-4
        if abs(slope) > 1e-6:
            moved = float(training.values[index])
            assert moved == pytest.approx(-0.1 * math.copysign(1, slope), rel=1e-2)
            checked += 1
    assert checked > 5


def test_scores_lie_between_0_and_1_and_do_not_depend_on_the_number_of_steps_at_once():
    engine = engine_of("gpt2", metric="logit-difference")
    values = MATTR.scores(engine, MattrOptions(steps=12, batch=1)).values
    inside = values[engine.graph.edge_mask]
    assert float(inside.min()) == 0 and float(inside.max()) == 1
    training = MATTR.training(engine, MattrOptions(steps=12, batch=1))
    training.advance_to(5)
    again = MATTR.training(engine, MattrOptions(steps=12, batch=1))
    again.restore(training.state(5))
    again.advance_to(12)
    assert torch.equal(again.state(12)["scores"], values)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schedule": "square"}, "no schedule named 'square'; choose one of log, uniform, logit"),
        ({"level": "nodes"}, "no level named 'nodes'; choose one of edges, components"),
        ({"direction": "up"}, "no direction named 'up'; choose one of sufficient, necessary"),
    ],
)
def test_impossible_options_are_refused(options, said):
    with types_checked(check=False), pytest.raises(MethodError, match=said):
        MattrOptions(**options)
