"""Learned masks: the gates' distribution, reproducibility, and what they are worth."""

import math

import pytest
import torch

import circuitfind as cf
from circuitfind.errors import MethodError
from circuitfind.methods import find_method
from circuitfind.methods.gates import ComponentGates, EdgeGates, drawn, open_probability
from circuitfind.methods.learned import LearnedOptions
from circuitfind.methods.search import search
from circuitfind.methods.selection import share_of
from circuitfind.metrics import custom_metric
from tests.engine.problems import engine_of

LEARNED = ("subnetwork-probing", "edge-pruning")
both = pytest.mark.parametrize("name", LEARNED)


@pytest.mark.parametrize("location", [-3.0, -0.5, 0.0, 2.0])
def test_gates_are_closed_as_often_as_their_probability_says(location):
    n = 100_000
    gates = drawn(torch.full((n,), location).double(), torch.Generator().manual_seed(0))
    assert float(gates.min()) >= 0 and float(gates.max()) <= 1
    expected = float(open_probability(torch.tensor([location]).double()))
    # Five standard errors of a share.
    error = 5 * math.sqrt(expected * (1 - expected) / n)
    assert float((gates > 0).double().mean()) == pytest.approx(expected, abs=error)


def test_the_gradient_of_a_draw_is_its_slope():
    location = torch.tensor([-1.0, 0.0, 0.3, 1.0]).double().requires_grad_()

    def draw(place):
        return drawn(place, torch.Generator().manual_seed(3)).sum()

    (gradient,) = torch.autograd.grad(draw(location), location)
    for index in range(4):
        step = torch.zeros(4).double()
        step[index] = 1e-6
        with torch.no_grad():
            slope = (draw(location + step) - draw(location - step)) / 2e-6
        assert float(gradient[index]) == pytest.approx(float(slope), abs=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_expected_number_of_edges_is_what_many_draws_have(family):
    graph = engine_of(family).graph
    generator = torch.Generator().manual_seed(0)
    for layout in (EdgeGates(graph), ComponentGates(graph)):
        location = torch.randn(layout.n, generator=generator).double()
        probability = open_probability(location)
        sizes = []
        for _ in range(60):
            gates = (drawn(location, generator) > 0).double()
            sizes.append(float((layout.scores(gates) > 0)[graph.edge_mask].sum()))
        mean, error = torch.tensor(sizes).mean(), torch.tensor(sizes).std() / math.sqrt(60)
        found = float(layout.edges_open(probability))
        assert found == pytest.approx(float(mean), abs=5 * float(error))


def test_masks_put_every_gate_where_it_belongs():
    graph = engine_of("llama").graph
    edges = EdgeGates(graph)
    gates = torch.rand(edges.n, generator=torch.Generator().manual_seed(0))
    assert torch.equal(edges.mask(gates)[graph.edge_mask], gates)
    components = ComponentGates(graph)
    assert components.n == len(graph.writers) - 1
    mask = components.mask(torch.arange(1.0, components.n + 1))
    assert torch.equal(mask[:, 0], torch.tensor([1.0, *range(1, components.n + 1)]))
    assert torch.equal(mask, mask[:, :1].expand_as(mask))


@both
def test_masks_are_fixed_by_their_seed(name):
    method, engine = find_method(name), engine_of("gpt2", metric="kl", lengths=(6, 6, 6))
    tables = [
        method.scores(engine, LearnedOptions(steps=4, batch=2, seed=seed)).values
        for seed in (0, 0, 1)
    ]
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])


@pytest.mark.parametrize(
    ("name", "slack"),
    # A component more or less is many edges.
    [("edge-pruning", 4), ("subnetwork-probing", 16)],
)
def test_training_reaches_its_sparsity_and_keeps_as_many_edges_as_it_expects(name, slack):
    method, engine = find_method(name), engine_of("gpt2", metric="kl")
    options = LearnedOptions(steps=120, sparsity=0.7, prune=False)
    states = []
    found = search(engine, method, options, on_progress=lambda p: states.append(p.checkpoint))
    expected = float(states[-2].state["expected"])
    assert expected == pytest.approx(0.3 * engine.graph.n_edges, abs=slack)
    assert found.circuit.n_edges == round(expected)


@both
def test_a_higher_price_keeps_fewer_edges(name):
    method, engine = find_method(name), engine_of("gpt2", metric="kl")
    expected = []
    for penalty in (0.0, 1.0, 10.0):
        *_, last = method.scoring(engine, LearnedOptions(steps=30, penalty=penalty))
        expected.append(float(last.state["expected"]))
    assert expected[0] > expected[1] > expected[2]


def test_a_loss_that_is_no_number_ends_the_training():
    spoilt = custom_metric(lambda logits, prompts: logits.sum((1, 2)) * math.nan)
    with pytest.raises(MethodError, match="the loss became nan in training step 0"):
        find_method("edge-pruning").scores(engine_of("gpt2", metric=spoilt), LearnedOptions())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"sparsity": 0.9, "penalty": 1.0}, "a sparsity to reach or a penalty to pay, not both"),
        ({"sparsity": 1.0}, "sparsity is 1.0; give a share of at least 0 and less than 1"),
        ({"penalty": -1.0}, "penalty is -1.0; give a number of at least 0"),
        ({"steps": 0}, "steps is 0; give 1 or more"),
        ({"warm_up": 1.5}, "warm_up is 1.5; give a share of the steps"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; give a number above 0"),
        ({"batch": 0}, "batch is 0; give 1 prompt or more"),
        ({"start": math.inf}, "start is inf; give a finite number"),
    ],
)
def test_impossible_settings_are_refused(options, line):
    with pytest.raises(MethodError, match=line):
        LearnedOptions(**options)


@pytest.mark.slow
def test_learned_edges_are_no_worse_than_attribution_at_95_percent_sparsity():
    model = cf.load_model("ioi-small")
    engine = cf.IncrementalEngine(cf.make_problem(model, "ioi", n_prompts=64))
    n = round(0.05 * engine.graph.n_edges)
    shares = {}
    for name in ("eap-ig", "edge-pruning"):
        method = find_method(name)
        found = search(engine, method, method.options(n_edges=n))
        assert found.circuit.n_edges <= n
        shares[name] = share_of(engine, found.circuit)
    assert shares["edge-pruning"] >= shares["eap-ig"] > 0.3
