"""EAP and EAP-IG held to finite differences, autograd, brute force, and the laws of integrals."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from circuitfind.engine import sizes
from circuitfind.engine.full_pass import embeddings, full_pass
from circuitfind.errors import CircuitfindError, MethodError, MetricError
from circuitfind.methods.attribution import Limits, Place, attribute
from circuitfind.methods.eap import Eap, EapOptions
from circuitfind.methods.eap_ig import EapIg, EapIgOptions, places_of
from circuitfind.metrics import custom_metric, find_metric
from circuitfind.problem import Problem
from tests.engine.problems import BRIDGED, engine_of, loss_of, oracle_of, problem_of, prompts_of
from tests.oracles.slopes import attribution, differences
from tests.type_checks import types_checked

every_family = pytest.mark.parametrize("family", BRIDGED)
ABLATIONS = ("resample", "zero", "mean", "mean-over-positions")
CLOSE = {"rtol": 0, "atol": 1e-10}
VARIANTS = ("inputs", "activations", "clean-corrupted")
SIDES = ("right", "left")
SOME = ["gpt2", "gpt-neox-parallel", "llama", "gemma2", "attention-only", "bidirectional"]


@every_family
def test_eap_is_the_slope_of_the_loss_along_every_edge(family):
    assert_slope(family, "resample")


@pytest.mark.parametrize("ablation", ABLATIONS[1:])
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_so_it_is_under_other_ablations(family, ablation):
    assert_slope(family, ablation)


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ABLATIONS[1:])
@every_family
def test_so_it_is_in_every_family_under_every_ablation(family, ablation):
    assert_slope(family, ablation)


def assert_slope(family, ablation):
    """By autograd through the full pass, in which a kept edge's mask is 1 and cutting lowers it."""
    engine = engine_of(family, ablation, metric="logit-difference")
    torch.testing.assert_close(eap(engine), -mask_gradient(engine), **CLOSE)


@every_family
def test_eap_is_what_finite_differences_along_an_edge_give(family):
    """On the oracle's own run of the model, which shares no code with the engine."""
    oracle, engine = oracle_of(family), engine_of(family, metric="logit-difference")
    loss = loss_of("logit-difference", oracle, prompts_of(0, (6, 6)))
    scores, n = eap(engine), 4 if family != "llama" else None
    edges = engine.graph.edge_mask.nonzero()
    order = torch.randperm(len(edges), generator=torch.Generator().manual_seed(0))
    for writer, reader in edges[order[:n]].tolist():
        step = torch.zeros_like(engine.graph.edge_mask, dtype=torch.float64)
        step[writer, reader] = 1e-4
        full = engine.graph.edge_mask.double()
        slope = (loss(oracle.logits(full - step)) - loss(oracle.logits(full + step))) / 2e-4
        assert float(scores[writer, reader]) == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("graph", [{"merge_qkv": True}, {"split_embedding": True}])
@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_so_it_is_in_graphs_with_other_options(graph, ablation):
    engine = engine_of("gpt2", ablation, metric="logit-difference", **graph)
    torch.testing.assert_close(eap(engine), -mask_gradient(engine), **CLOSE)


def test_padding_and_several_steps_change_nothing():
    engine = engine_of("llama", metric="logit-difference", lengths=(6, 4, 5), steps=(1, 3))
    torch.testing.assert_close(eap(engine), -mask_gradient(engine), **CLOSE)


@pytest.mark.parametrize("points", SIDES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_integrated_inputs_are_the_mean_of_gradients_along_the_embedding(family, steps, points):
    ks = range(1, steps + 1) if points == "right" else range(steps)
    expected = sum(brute_force(family, {"embed": k / steps}) for k in ks) / steps
    found = eap_ig(engine_of(family, metric="logit-difference"), steps=steps, points=points)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize(
    ("family", "ablation"),
    [*((family, "resample") for family in SOME), *(("gemma2", name) for name in ABLATIONS[1:])],
)
def test_so_they_are_in_other_families_and_under_other_ablations(family, ablation):
    expected = sum(brute_force(family, {"embed": k / 3}, ablation) for k in (1, 2, 3)) / 3
    found = eap_ig(engine_of(family, ablation, metric="logit-difference"), steps=3)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("family", SOME[1:4])
def test_integrated_activations_vary_one_writer_at_a_time_for_its_own_edges(family, steps):
    engine = engine_of(family, metric="logit-difference")
    found = eap_ig(engine, variant="activations", steps=steps)
    for row, writer in enumerate(engine.graph.writers):
        mixed = [brute_force(family, {writer.name: k / steps}) for k in range(1, steps + 1)]
        expected = (sum(mixed) / steps)[row]
        torch.testing.assert_close(found[row], expected, **CLOSE)


@pytest.mark.parametrize(
    ("family", "ablation", "variant"),
    [
        ("gpt2", "resample", "inputs"),
        ("llama", "mean", "inputs"),
        ("gemma2", "resample", "inputs"),
        ("gpt-neox-parallel", "zero", "activations"),
        ("bidirectional", "resample", "clean-corrupted"),
    ],
)
def test_at_a_place_they_are_what_its_positions_contribute(family, ablation, variant):
    place_of = ((0, 1, 1, 1, 2, 2), (1, 0, 0, 2, 2, 2))
    engine = engine_of(family, ablation, metric="logit-difference", place_of=place_of)
    found = eap_ig(engine, variant=variant, steps=2)
    masks = [torch.tensor(place_of) == place for place in range(3)]

    def at_places(shares):
        each = [brute_force(family, shares, ablation, where=mask) for mask in masks]
        return torch.stack(each, dim=-1).flatten(1)

    if variant == "activations":
        rows = [
            sum(at_places({writer.name: share})[row] for share in (0.5, 1.0)) / 2
            for row, writer in enumerate(engine.graph.writers)
        ]
        expected = torch.stack(rows)
    else:
        start = 0.0 if variant == "clean-corrupted" else 0.5
        expected = (at_places({"embed": start}) + at_places({})) / 2
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("family", SOME)
def test_clean_corrupted_is_the_mean_of_the_two_ends(family):
    expected = (brute_force(family, {}) + brute_force(family, {"embed": 0.0})) / 2
    found = eap_ig(engine_of(family, metric="logit-difference"), variant="clean-corrupted")
    torch.testing.assert_close(found, expected, **CLOSE)


def test_one_gradient_at_the_clean_end_is_eap():
    engine = engine_of("llama", metric="logit-difference")
    torch.testing.assert_close(eap_ig(engine, steps=1), eap(engine), **CLOSE)
    alone = eap_ig(engine, variant="activations", steps=1)
    torch.testing.assert_close(alone, eap(engine), **CLOSE)


@pytest.mark.parametrize(("family", "metric"), [("gpt2", "kl"), ("qwen3", "logit-difference")])
def test_along_a_fine_path_the_embeddings_edges_add_up_to_the_change_of_the_loss(family, metric):
    """Completeness; the mean of the two one-sided sums is the trapezium rule."""
    oracle = oracle_of(family)
    loss = loss_of(metric, oracle, prompts_of(0, (6, 6)))
    nothing = torch.zeros_like(oracle.graph.edge_mask)
    change = loss(oracle.logits(nothing)) - loss(oracle.logits(oracle.graph.edge_mask))
    engine = engine_of(family, metric=metric)
    errors = []
    for steps in (6, 24):
        sides = [eap_ig(engine, steps=steps, points=points)[0].sum() for points in SIDES]
        errors.append(abs(float(sum(sides)) / 2 - change))
    assert errors[1] < 4e-3 * abs(change)
    assert errors[1] < errors[0] / 8  # 4 times the steps, a sixteenth of the error


def test_along_a_fine_path_each_writers_edges_add_up_to_the_effect_of_replacing_it():
    oracle, engine = oracle_of("gpt2", n_layers=1), engine_of("gpt2", metric="kl", n_layers=1)
    loss = loss_of("kl", oracle, prompts_of(0, (6, 6)))
    sides = [eap_ig(engine, variant="activations", steps=24, points=points) for points in SIDES]
    for row in range(len(engine.graph.writers)):
        without = engine.graph.edge_mask.clone()
        without[row] = False
        change = loss(oracle.logits(without)) - loss(oracle.logits(engine.graph.edge_mask))
        found = float(sum(side[row].sum() for side in sides)) / 2
        assert found == pytest.approx(change, abs=4e-3 * abs(change) + 1e-9)


def test_more_steps_come_closer_to_the_path_integral():
    engine = engine_of("llama", metric="logit-difference", n_layers=1)
    fine = (eap_ig(engine, steps=40) + eap_ig(engine, steps=40, points="left")) / 2
    errors = [float((eap_ig(engine, steps=m) - fine).norm()) for m in (1, 4, 16)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0


@pytest.mark.parametrize(
    ("variant", "ablation"),
    [*((variant, "resample") for variant in VARIANTS), ("inputs", "zero"), ("inputs", "mean")]
    + [("inputs", "mean-over-positions")],
)
def test_scores_depend_neither_on_the_batch_nor_on_the_order_of_prompts(variant, ablation):
    lengths = (6,) * 5 if ablation == "mean" else (6, 4, 5, 6, 4)
    problem = problem_of("gpt2", ablation, "logit-difference", lengths=lengths)
    whole = scores_of(problem, variant)
    for batch in (1, 2):
        torch.testing.assert_close(scores_of(problem, variant, batch), whole, **CLOSE)
    shuffled = replace(problem, prompts=problem.prompts.select([3, 0, 4, 2, 1]))
    torch.testing.assert_close(scores_of(shuffled, variant, 2), whole, **CLOSE)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_nor_do_they_depend_on_how_many_prompts_are_multiplied_at_once(family, monkeypatch):
    problem = problem_of(family, "resample", "logit-difference", lengths=(6,) * 5)
    whole = scores_of(problem, "inputs")
    one_prompt = problem.graph.shape.d_model * 6 * len(problem.graph.writers)
    for products in (1, 3 * one_prompt):
        fewer = sizes._PROCESSOR._replace(products=products)
        monkeypatch.setattr(sizes, "_PROCESSOR", fewer)
        # The norms of the one compute in float32, whatever the model's type.
        close = CLOSE if family == "gpt2" else {"rtol": 0, "atol": 1e-6}
        torch.testing.assert_close(scores_of(problem, "inputs"), whole, **close)


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox-parallel", "gemma2"])
def test_checkpointing_changes_nothing(family):
    engine = engine_of(family, metric="kl")
    lean = eap_ig(engine, steps=3, checkpoint=True)
    torch.testing.assert_close(lean, eap_ig(engine, steps=3), rtol=0, atol=1e-14)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_search_goes_on_from_any_of_its_checkpoints_bit_for_bit(variant):
    engine = engine_of("gpt2", metric="logit-difference", lengths=(6, 5, 6))
    method = EapIg()
    options = EapIgOptions(variant=variant, steps=3, batch=2)
    whole = list(method.run(engine, options))
    for step in whole[:-1:11] + whole[-2:-1]:
        again = list(method.run(engine, options, state=step.checkpoint.state))
        assert again[-1] == whole[-1]


@pytest.mark.parametrize("metric", ["kl", "l2"])
def test_a_metric_that_is_flat_at_the_clean_point_is_refused(metric):
    engine = engine_of("gpt2", metric=metric)
    line = f"the gradient of '{metric}' is zero at the clean point"
    with pytest.raises(MethodError, match=line):
        eap(engine)
    with pytest.raises(MethodError, match=line):
        eap_ig(engine, steps=1)
    assert eap_ig(engine, steps=2).norm() > 0
    assert eap_ig(engine, steps=1, points="left").norm() > 0


def test_the_refusal_is_right_the_slope_there_is_nothing_but_rounding():
    problem = problem_of("gpt2", metric="kl")
    (last,) = attribute(problem, [Place(share=1.0, weight=1.0)], Limits())
    assert last[2].abs().max() < 1e-12


def test_a_metric_without_a_slope_is_refused():
    with pytest.raises(MethodError, match="'accuracy' changes in jumps and has no gradient"):
        eap_ig(engine_of("gpt2", metric="accuracy"))


@pytest.mark.parametrize("flat", [Tensor.detach, lambda values: (values > 0).double()])
def test_a_metric_of_ones_own_without_a_gradient_is_refused(flat):
    metric = custom_metric(lambda logits, prompts: flat(logits[:, 0, 0]), name="flat")
    with pytest.raises(MetricError, match="'flat' has no gradient, .*acdc"):
        eap(engine_of("gpt2", metric=metric))


def test_a_score_that_is_no_number_names_its_edge():
    spoilt = custom_metric(lambda logits, prompts: logits.sum((1, 2)) * math.inf)
    with pytest.raises(MethodError, match=r"the score of embed->a0\.h0\.q became (nan|inf|-inf)"):
        eap(engine_of("gpt2", metric=spoilt))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"variant": "outputs"}, "no variant named 'outputs'; choose one of inputs"),
        ({"points": "middle"}, "no points named 'middle'"),
        ({"steps": 0}, "steps must be a whole number from 1 to .*, not 0"),
        ({"batch": 0}, "batch must be a whole number from 1 to .*, not 0"),
    ],
)
def test_impossible_options_are_refused(options, line):

    with types_checked(check=False), pytest.raises(CircuitfindError, match=line):
        EapIgOptions(**options)


def test_a_path_begins_at_the_clean_run_which_serves_all_writers():
    graph = engine_of("gpt2").graph
    n = len(graph.writers)
    for options, expected in (
        (EapIgOptions(steps=4), 4),
        (EapIgOptions(steps=4, points="left"), 4),
        (EapIgOptions(steps=4, variant="activations"), 1 + 3 * n),
        (EapIgOptions(steps=4, variant="activations", points="left"), 4 * n),
    ):
        places = list(places_of(graph, options))
        assert len(places) == expected
        assert (places[0].share == 1) == (options.points == "right")


# ------------------------------------------------------------------------------- helpers


@pytest.mark.parametrize("points", SIDES)
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_the_ensemble_is_the_mean_of_its_three_methods(family, points):
    engine = engine_of(family, metric="logit-difference")
    given = {"steps": 3, "points": points}
    each = [
        eap(engine),
        eap_ig(engine, variant="inputs", **given),
        eap_ig(engine, variant="activations", **given),
    ]
    found = eap_ig(engine, variant="ensemble", **given)
    torch.testing.assert_close(found, sum(each) / 3, **CLOSE)


def eap(engine):
    return on_edges(engine.graph, Eap().scores(engine, EapOptions()).values)


def eap_ig(engine, **options):
    scores = EapIg().scores(engine, EapIgOptions(**options))
    return on_edges(engine.graph, scores.values)


def scores_of(problem: Problem, variant: str, batch: int | None = None):
    places = list(places_of(problem.graph, EapIgOptions(variant=variant, steps=2)))
    *_, last = attribute(problem, places, Limits(batch))
    return on_edges(problem.graph, last[2])


def on_edges(graph, values):
    return values.masked_fill(~graph.edge_mask, 0)


def mask_gradient(engine):
    """Return d loss / d mask at the full mask."""
    problem = engine.problem
    mask = engine.graph.edge_mask.double().requires_grad_()
    embedding = embeddings(problem.model, engine.graph, problem.prompts.clean)
    with torch.enable_grad():
        run = full_pass(
            problem.model,
            engine.graph,
            embedding,
            engine.replacement,
            mask,
            problem.prompts.real,
        )
        loss = problem.metric.loss(engine.readout.values(run.final))
        (gradient,) = torch.autograd.grad(loss, mask)
    return on_edges(engine.graph, gradient)


def brute_force(family, shares, ablation="resample", where=None):
    """Return every edge's score by the oracle, for a mean logit difference at the last position.

    Args:
        family: The family of the tiny model.
        shares: How much of its own output each named writer writes.
        ablation: What a cut edge carries.
        where: The positions that count [batch pos]; all unless given.
    """
    oracle, prompts = oracle_of(family, ablation), prompts_of(0, (6, 6))

    def loss(logits):
        rows = zip(logits[:, -1], prompts.answers[:, 0], prompts.wrong_answers[:, 0], strict=True)
        return -sum(row[right].mean() - row[wrong].mean() for row, right, wrong in rows) / 2

    scores = attribution(oracle, loss, prompts.clean, shares, where=where)
    assert differences(oracle, prompts.clean).abs().max() > 0
    assert find_metric("logit-difference").better == "higher"
    return on_edges(oracle.graph, scores)
