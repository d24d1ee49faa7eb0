"""Learned masks: the gates' distribution, reproducibility, and what they are worth."""

import itertools
import math

import pytest
import torch

import circuitfind as cf
from circuitfind.errors import CircuitfindError, MethodError
from circuitfind.methods import METHODS
from circuitfind.methods.eap_ig import EapIgOptions
from circuitfind.methods.gates import (
    ComponentGates,
    EdgeGates,
    drawn,
    drawn_uniformly,
    open_probability,
)
from circuitfind.methods.learned import LearnedOptions
from circuitfind.methods.search import search
from circuitfind.methods.selection import Selection, share_of
from circuitfind.methods.settings import settled
from circuitfind.methods.warm_start import warm_probabilities
from circuitfind.metrics import custom_metric
from tests.engine.problems import engine_of

LEARNED = ("subnetwork-probing", "edge-pruning", "ugs")
SHIFTED = ((0, 1, 1, 1, 2, 2), (1, 0, 0, 2, 2, 2))
"""Three places, which lie elsewhere in the second prompt."""

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


def test_gates_drawn_uniformly_have_their_probability_as_mean_and_are_seldom_in_between():
    location = torch.tensor([-4.0, -1.0, 0.0, 0.7, 3.0]).double()
    n, p = 100_000, location.sigmoid()
    gates = drawn_uniformly(location.repeat(n), torch.Generator().manual_seed(0)).view(n, -1)
    assert float(gates.min()) >= 0 and float(gates.max()) <= 1
    between = ((gates > 0) & (gates < 1)).double()
    for share, expected in ((gates.mean(0), p), (between.mean(0), p * (1 - p))):
        error = 5 * (expected * (1 - expected) / n).sqrt()
        assert bool(((share - expected).abs() < error).all())


def test_their_slope_along_the_probability_is_1_in_the_window_and_0_outside():
    location = torch.linspace(-3, 3, 200).double().requires_grad_()
    gates = drawn_uniformly(location, torch.Generator().manual_seed(1))
    (slope,) = torch.autograd.grad(gates.sum(), location)
    p = location.detach().sigmoid()
    inside = (gates > 0) & (gates < 1)
    expected = torch.where(inside, p * (1 - p), 0.0)
    torch.testing.assert_close(slope, expected, rtol=0, atol=1e-12)
    assert 10 < int(inside.sum()) < 100


@pytest.mark.parametrize(
    ("family", "place_of"), [("gpt2", None), ("llama", None), ("llama", SHIFTED)]
)
def test_the_expected_number_of_edges_is_what_many_draws_have(family, place_of):
    graph = engine_of(family, place_of=place_of).graph
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
    n_written = len(graph.writers) - 1
    # Powers of two, so that dividing by them rounds nothing.
    numbers = 2.0 ** torch.arange(1, 1 + n_written)
    written = torch.tensor([1.0, *numbers])
    edges = EdgeGates(graph)
    assert edges.n == n_written + graph.n_edges
    gates = torch.rand(graph.n_edges, generator=torch.Generator().manual_seed(0))
    mask = edges.mask(torch.cat((numbers, gates)))
    assert torch.equal((mask / written[:, None])[graph.edge_mask], gates)
    components = ComponentGates(graph)
    ports = [reader for reader in graph.readers if reader.port]
    assert components.n == n_written + len(ports)
    mask = components.mask(torch.cat((numbers, torch.arange(len(ports)) + 1.0)))
    for index, reader in enumerate(graph.readers):
        gate = ports.index(reader) + 1.0 if reader.port else 1.0
        assert torch.equal(mask[:, index], gate * written)


def test_an_edge_is_worth_as_much_as_the_least_open_gate_that_it_needs():
    graph = engine_of("gpt2").graph
    generator = torch.Generator().manual_seed(0)
    for layout in (EdgeGates(graph), ComponentGates(graph)):
        probability = torch.rand(layout.n, generator=generator).double()
        scores = layout.scores(probability)
        for threshold in (0.2, 0.5, 0.8):
            gates = (probability >= threshold).double()
            writes = layout.by_writer(gates)
            alive = torch.tensor(
                [
                    reader.component == "logits"
                    or bool(writes[graph.writer_index[reader.component]])
                    for reader in graph.readers
                ]
            )
            open_edges = (layout.mask(gates) > 0) & alive & graph.edge_mask
            assert torch.equal(open_edges, (scores >= threshold) & graph.edge_mask)


def test_at_places_an_output_has_a_gate_at_each_place_and_keys_need_an_output_anywhere():
    graph = engine_of("llama", place_of=SHIFTED).graph
    generator, n = torch.Generator().manual_seed(0), graph.n_places
    for layout in (EdgeGates(graph), ComponentGates(graph)):
        gates = (torch.rand(layout.n, generator=generator) < 0.4).double()
        writes, own = layout.by_writer(gates), layout.own(gates)
        assert writes.shape == (len(graph.writers), n) and bool((writes[0] == 1).all())
        expected = torch.zeros(graph.edge_mask.shape, dtype=torch.bool)
        for column, reader in enumerate(graph.readers):
            fed, place = list(graph.feeds[column]), column % n
            used = writes[fed] if reader.looks_back else writes[fed, place]
            alive = reader.kind == "logits" or bool(used.any())
            expected[:, column] = (own[:, column] * writes[:, place] > 0) & alive
        expected &= graph.edge_mask
        assert torch.equal((layout.scores(gates) > 0) & graph.edge_mask, expected)
        assert float(layout.edges_open(gates)) == expected.sum()
        assert torch.equal((layout.mask(gates) > 0) & expected, expected)


@both
def test_one_place_gives_the_masks_without_places_to_the_last_bit(name):
    method, options = METHODS.find(name), LearnedOptions(steps=4)
    whole, placed = (
        method.scores(engine_of("gpt2", place_of=place_of), options).values
        for place_of in (None, ((0,) * 6,) * 2)
    )
    assert torch.equal(whole, placed)


@both
def test_masks_are_fixed_by_their_seed(name):
    method, engine = METHODS.find(name), engine_of("gpt2", metric="kl", lengths=(6, 6, 6))
    tables = [
        method.scores(engine, LearnedOptions(steps=4, batch=2, seed=seed)).values
        for seed in (0, 0, 1)
    ]
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])


@both
@pytest.mark.parametrize("wish", [{"sparsity": 0.7}, {"n_edges": 5}, {"sparsity": 0.0}])
def test_the_gates_expect_as_many_edges_as_are_wanted_and_so_many_are_kept(name, wish):
    method, engine = METHODS.find(name), engine_of("gpt2", metric="kl")
    settings = settled(method, {"steps": 20, "prune": False, **wish})
    states = []
    found = search(engine, method, *settings, on_progress=lambda p: states.append(p.checkpoint))
    expected = [float(each.state["expected"]) for each in states if each is not None]
    wanted = wish.get("n_edges", (1 - wish.get("sparsity", 0)) * engine.graph.n_edges)
    if wanted < engine.graph.n_edges:
        assert expected == pytest.approx([wanted, wanted], rel=1e-6)
    else:  # As open as they were at the beginning; a draw never opens all gates for certain.
        assert expected[0] == pytest.approx(expected[1], rel=1e-6) and expected[0] < wanted
    assert found.circuit.n_edges == wish.get("n_edges", round(expected[-1]))


@both
def test_a_higher_price_keeps_fewer_edges(name):
    method, engine = METHODS.find(name), engine_of("gpt2", metric="kl")
    expected = []
    for penalty in (0.0, 1.0, 10.0):
        *_, last = method.scoring(engine, LearnedOptions(steps=30, penalty=penalty))
        expected.append(float(last.state["expected"]))
    assert expected[0] > expected[1] > expected[2]


@pytest.mark.parametrize("name", ["edge-pruning", "ugs"])
def test_a_warm_start_opens_the_edges_that_attribution_ranks_high_in_their_stage(name):
    engine, method = engine_of("llama", metric="kl", place_of=SHIFTED), METHODS.find(name)
    graph = engine.graph
    sizes = METHODS.find("eap-ig").scores(engine, EapIgOptions()).values.abs()
    ranks = []
    for writer, reader in graph.edge_mask.nonzero().tolist():
        stage = graph.readers[reader].stage
        others = [
            float(sizes[w, r])
            for w, r in graph.edge_mask.nonzero().tolist()
            if graph.readers[r].stage == stage
        ]
        below = sum(size < float(sizes[writer, reader]) for size in others)
        ranks.append(below / (len(others) - 1))
    q = torch.tensor(ranks, dtype=torch.float64)
    p = warm_probabilities(engine)
    # The width is 0.2 and the mean a tenth, whatever the middle.
    torch.testing.assert_close(p.logit() - p.logit()[0], (q - q[0]) / 0.2, rtol=0, atol=1e-9)
    assert float(p.mean()) == pytest.approx(0.1)
    training = method.training(engine, method.options(steps=4, warm_start=True))
    gates = training.values[-graph.n_edges :]
    expected = p.logit() if name == "ugs" else 2 / 3 * ((p + 0.1) / 1.2).logit()
    torch.testing.assert_close(gates, expected.clamp(-10, 10), rtol=0, atol=1e-9)
    rest = training.values[: -graph.n_edges]
    assert bool((rest == 2.0).all()) and bool(len(rest)) == (name == "edge-pruning")
    scores = method.scores(engine, method.options(steps=12, warm_start=True)).values
    states = list(method.scoring(engine, method.options(steps=12, warm_start=True)))
    *_, resumed = method.scoring(engine, method.options(steps=12, warm_start=True), states[0].state)
    assert resumed.state["scores"].equal(scores)


def test_a_loss_that_is_no_number_ends_the_training():
    spoilt = custom_metric(lambda logits, prompts: logits.sum((1, 2)) * math.nan)
    with pytest.raises(MethodError, match="the loss became nan in training step 0"):
        METHODS.find("edge-pruning").scores(engine_of("gpt2", metric=spoilt), LearnedOptions())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"sparsity": 0.9, "penalty": 1.0}, "a sparsity to reach or a penalty to pay, not both"),
        ({"sparsity": 1.0}, "sparsity must be a number from 0 to 0.999999, not 1"),
        ({"penalty": -1.0}, "penalty must be a number from 0 to .*, not -1"),
        ({"steps": 0}, "steps must be a whole number from 1 to .*, not 0"),
        ({"warm_up": 1.5}, "warm up must be a number from 0 to 1, not 1.5"),
        ({"learning_rate": 0.0}, "learning rate must be a number above 0 and .*, not 0"),
        ({"batch": 0}, "batch must be a whole number from 1 to .*, not 0"),
        ({"start": math.inf}, "start must be a number from .*, not inf"),
    ],
)
def test_impossible_settings_are_refused(options, line):
    with pytest.raises(CircuitfindError, match=line):
        LearnedOptions(**options)


@pytest.mark.slow
@both
def test_learned_masks_are_no_worse_than_attribution_at_95_percent_sparsity(name):
    """On prompts that none of them has seen, next to a circuit of at least as many edges."""
    model = cf.load_model("ioi-small")
    engine, unseen = (
        cf.IncrementalEngine(cf.make_problem(model, "ioi", n_prompts=64, seed=seed))
        for seed in (0, 1)
    )
    n = round(0.05 * engine.graph.n_edges)
    trained, attribution = METHODS.find(name), METHODS.find("eap-ig")
    found = search(engine, trained, LearnedOptions(), Selection(n_edges=n)).circuit
    ranked = attribution.scores(engine, attribution.options())
    circuits = (ranked.top(most).connected() for most in itertools.count(n))
    same_size = next(each for each in circuits if each.n_edges >= found.n_edges)
    assert found.n_edges <= n
    assert share_of(unseen, found) >= share_of(unseen, same_size) > 0.3
    again = search(engine, trained, LearnedOptions(), Selection(n_edges=n)).circuit
    assert torch.equal(again.kept, found.kept)
