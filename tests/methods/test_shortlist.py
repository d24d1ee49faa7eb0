"""Which units are listed: their scores against finite differences, and against those of edges."""

from dataclasses import replace
from itertools import product

import pytest
import torch

import circuitfind as cf
from circuitfind.dictionaries.units import latents_of
from circuitfind.errors import CircuitfindError
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Units
from circuitfind.methods.shortlist import RANKINGS, unit_scores, with_units

STEP = 1e-4


@pytest.fixture(scope="module")
def problem():
    model = cf.load_model("ioi-small", dtype="float64")
    return cf.make_problem(model, "ioi", n_prompts=4, metric="logit-difference")


@pytest.fixture(scope="module")
def latents():
    found = cf.embedded_dictionaries(cf.load_model("ioi-small"))
    return {each.site.layer: each for each in found}


def test_scores_of_neurons_are_slopes_of_the_loss_in_a_run_with_changed_activations(problem):
    """Seen by TransformerLens' own hooks: the loss, while one neuron moves to its other value."""
    neurons = Units(1, "neuron", tuple(range(256)))
    (scores,) = unit_scores(problem, [neurons], "eap")
    bridge, prompts = problem.model._bridge, problem.prompts
    name = "blocks.1.mlp.out.hook_in"
    seen = {}

    def keep(run):
        def hook(values, hook):
            seen[run] = values.detach().clone()

        return hook

    for run in ("clean", "corrupted"):
        bridge.run_with_hooks(getattr(prompts, run), fwd_hooks=[(name, keep(run))])
    assert seen["clean"].shape[-1] == 256
    change = seen["corrupted"] - seen["clean"]

    def loss(neuron, share):
        def hook(values, hook):
            moved = values.clone()
            moved[..., neuron] += share * change[..., neuron]
            return moved

        logits = bridge.run_with_hooks(prompts.clean, fwd_hooks=[(name, hook)])
        at_steps = prompts.at_steps(logits)
        return float(problem.metric.loss(problem.metric(at_steps, prompts, at_steps)))

    with torch.no_grad():
        for neuron in [*scores.abs().topk(3).indices.tolist(), 0]:
            slope = (loss(neuron, STEP) - loss(neuron, -STEP)) / (2 * STEP)
            assert float(scores[neuron]) == pytest.approx(slope, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize(
    ("kind", "ranking"),
    [*product(["neuron", "latent"], RANKINGS), ("neuron", "eap:gim")],
)
def test_a_unit_has_the_score_of_all_edges_from_it(problem, latents, kind, ranking):
    if kind == "neuron":
        every = [Units(layer, "neuron", tuple(range(0, 256, 40))) for layer in (0, 2)]
        model = problem.model
    else:
        every = [latents_of(latents[layer], range(0, 512, 60)) for layer in (0, 2)]
        model = cf.with_dictionaries(problem.model, latents)
    plain = replace(problem, model=model)
    scores = torch.cat(unit_scores(plain, every, ranking))
    fine = replace(plain, graph=heads_and_mlps(model.shape, units=every))
    method, _, rules = ranking.partition(":")
    found = cf.discover(fine, method, n_edges=1, rules=rules or None)
    edges = found.circuit.effects.nan_to_num()
    rows = [row for row, writer in enumerate(fine.graph.writers) if writer.kind == kind]
    assert float(scores.abs().max()) > 1e-3
    torch.testing.assert_close(scores, edges[rows].sum(1), rtol=1e-9, atol=1e-12)


def test_those_with_the_largest_scores_of_all_layers_are_listed(problem):
    scores = unit_scores(problem, [Units(layer, "neuron", tuple(range(256))) for layer in (0, 3)])
    found = with_units(problem, neurons="0,3", shortlist=7).graph.units
    chosen = {(each.layer, number) for each in found for number in each.numbers}
    ranked = sorted(
        ((abs(float(score)), layer, number) for layer, each in zip((0, 3), scores, strict=True)
         for number, score in enumerate(each)),
        reverse=True,
    )  # fmt: skip
    assert chosen == {(layer, number) for _, layer, number in ranked[:7]}


def test_an_mlp_without_listed_units_stays_whole(problem):
    graph = with_units(problem, neurons="all", shortlist=1).graph
    (units,) = graph.units
    whole = {writer.name for writer in graph.writers if writer.kind == "mlp"}
    others = {f"m{layer}" for layer in range(4) if layer != units.layer}
    assert whole == {*others, f"m{units.layer}.rest"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"neurons": "all", "latents": "zoo"}, "and not both"),
        ({"neurons": "7"}, "no layer 7"),
        ({"neurons": "all", "shortlist": 0}, "shortlist must be"),
        ({"neurons": "all", "ranked_by": "acdc"}, "no ranking 'acdc'"),
        ({"neurons": "all", "ranked_by": "eap:lrp"}, "no rule named 'lrp'"),
    ],
)
def test_a_choice_that_is_none_is_refused(problem, options, complaint):
    with pytest.raises(CircuitfindError, match=complaint):
        cf.make_problem(problem.model, problem.prompts, metric="logit-difference", **options)
