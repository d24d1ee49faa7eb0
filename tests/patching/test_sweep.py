"""Laws of sweeps that need no oracle, and what they refuse."""

from dataclasses import replace

import pytest
import torch

import circuitfind as cf
from circuitfind.errors import CircuitfindError, MetricError
from circuitfind.metrics import find_metric
from circuitfind.models.loading import load_model
from circuitfind.patching.sites import SITE_BY_NAME
from circuitfind.patching.sweep import Sweep, patch
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from circuitfind.tasks import find_task
from tests.engine.problems import model_of, problem_of
from tests.programs import write_program
from tests.type_checks import types_checked

MIXED = (4, 3, 4)
BATCHES = {"rtol": 0, "atol": 1e-10}
FAMILIES = ("gpt2", "llama", "gpt-j", "gemma2", "attention-only", "bidirectional")


def sites_of(family):
    shape = model_of(family).shape
    missing = {"resid_mid"} if shape.parallel_mlp else set()
    missing |= set() if shape.has_mlp else {"resid_mid", "mlp_out"}
    return [name for name in SITE_BY_NAME if name not in missing]


def problem_with_lengths(family):
    # Attention that is bidirectional and replayed cannot leave out padding.
    lengths = (6, 6, 6) if family == "bidirectional" else MIXED
    return problem_of(family, metric="logit-difference", lengths=lengths)


@pytest.mark.parametrize("family", ["gpt2", "gpt-j", "gemma2"])
def test_results_do_not_depend_on_how_much_runs_at_once(family):
    problem = problem_with_lengths(family)
    sites = ",".join(sites_of(family))
    together, apart = (patch(problem, sites, positions="1,last", rows=rows) for rows in (1000, 2))
    for site in together.sites:
        torch.testing.assert_close(apart.values[site], together.values[site], **BATCHES)


@pytest.mark.parametrize("family", FAMILIES)
def test_taking_the_whole_stream_is_taking_the_run(family):
    found = patch(problem_with_lengths(family), "resid_pre,resid_post", positions="all")
    for site in found.sites:
        torch.testing.assert_close(found.effect(site), torch.ones(2, 1).double())


@pytest.mark.parametrize("family", FAMILIES)
def test_denoising_and_noising_exchange_the_ends(family):
    problem = problem_with_lengths(family)
    there, back = (patch(problem, "head", mode=mode) for mode in ("denoising", "noising"))
    torch.testing.assert_close(there.base, back.source)
    torch.testing.assert_close(there.source, back.base)


def test_patching_before_the_first_difference_does_nothing():
    problem = problem_of("gpt2", metric="logit-difference", n_shared=2)
    found = patch(problem, "block,heads", positions="each")
    for site in found.sites:
        assert (found.effect(site)[:, :2] == 0).all()
        assert (found.effect(site)[:, 2:] != 0).any()


def test_all_cells_of_a_pattern_together_are_the_pattern():
    problem = problem_of("llama", metric="logit-difference")
    found = patch(problem, "pattern,pattern_cell", positions="all")
    cells = found.values["pattern_cell"][:, :, 0, 0]
    torch.testing.assert_close(cells, found.values["pattern"][:, 0])


@pytest.mark.parametrize("metric", ["kl", "loss", "probability-difference"])
def test_any_metric_can_be_swept(metric):
    found = patch(problem_of("gpt2", metric=metric), "resid_pre", positions="all")
    torch.testing.assert_close(found.effect("resid_pre"), torch.ones(2, 1).double())


def test_compiled_programs_can_be_swept(tmp_path):
    model = load_model(write_program(tmp_path, n_outputs=5))
    prompts = find_task("program").write_prompts(model.vocabulary, 8, 0)
    problem = assemble(model, prompts, find_metric("l2"))
    found = patch(problem, "resid_pre,head", positions="each", mode="noising")
    assert found.values["head"].shape[-1] == 8
    assert (found.effect("head") > 0.01).any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sites": "neuron"}, "no site named 'neuron'; choose from resid_pre"),
        ({"sites": ""}, "no site named ''"),
        ({"positions": "middle"}, "no position 'middle'; there are all, last, each, the indices"),
        ({"positions": "6"}, "no position '6'"),
        ({"positions": "1,1"}, "the position '1' is given twice"),
        ({"positions": "named"}, "these prompts name no positions"),
        ({"positions": ","}, "no position is given"),
        ({"mode": "both"}, "no mode named 'both'; choose one of denoising, noising, interchange"),
        ({"partners": [1, 0]}, "partners belong to the mode interchange-within"),
        ({"layers": "2"}, "no layer 2: the model has the layers 0 to 1"),
        ({"layers": "1-0"}, "no layer '1-0'"),
        ({"heads": "first"}, "'first' is not a head or a range"),
        ({"heads": [4]}, "no head 4"),
        ({"heads": []}, "no head"),
        ({"rows": 0}, "rows must be a whole number from 1"),
    ],
)
def test_what_cannot_be_swept_is_refused(options, said):
    with types_checked(check=False), pytest.raises(CircuitfindError, match=said):
        patch(problem_of("gpt2", metric="logit-difference"), **options)


@pytest.mark.parametrize(
    ("family", "site", "said"),
    [
        ("gpt-j", "resid_mid", "this model has no resid_mid"),
        ("attention-only", "mlp_out", "this model has no mlp_out"),
    ],
)
def test_a_site_that_a_model_lacks_is_refused(family, site, said):
    with pytest.raises(CircuitfindError, match=said):
        patch(problem_of(family, metric="logit-difference"), site)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_group_is_those_of_its_sites_that_the_model_has(family):
    found = patch(problem_of(family, metric="logit-difference"), positions="all")
    assert found.sites == ("resid_pre", "attn_out", "mlp_out")[: 3 if has_mlp(family) else 2]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_some_layers_and_heads_are_patched_as_in_a_whole_sweep(family):
    problem = problem_of(family, metric="logit-difference", n_layers=3)
    whole = patch(problem, "block,heads", positions="1,last")
    some = patch(problem, "block,heads", positions="1,last", layers="1-2", heads=[0, 3])
    assert some.labels["layer"] == ("1", "2") and some.labels["head"] == ("0", "3")
    of_keys = [0, 3] if family == "gpt2" else [0, 1]
    for site in whole.sites:
        expected = whole.values[site][1:]
        if "head" in whole.axes[site]:
            expected = expected[:, :, [0, 3]]
        elif "kv_head" in whole.axes[site]:
            expected = expected[:, :, of_keys]
        torch.testing.assert_close(some.values[site], expected, **BATCHES)
    n_patches = sum(values[..., 0].numel() for values in some.values.values())
    assert (
        Sweep(problem, "block,heads", positions="1,last", layers="1-2", heads=[0, 3]).n_patches
        == n_patches
    )


def has_mlp(family):
    return model_of(family).shape.has_mlp


def test_runs_that_the_metric_cannot_tell_apart_are_refused():
    prompts = collate([Pair([5, 6, 7], [8, 6, 7], answers=[[9]])])
    alike = replace(prompts, wrong_answers=prompts.answers)
    problem = assemble(model_of("gpt2"), alike, find_metric("logit-difference"))
    with pytest.raises(MetricError, match="the same metric"):
        patch(problem)


def test_named_positions_stand_in_the_order_of_the_text():
    pairs = [
        Pair([5, 6, 7, 4], [8, 6, 7, 4], [[9]], [[2]], positions={"verb": 1, "a": 2, "noun": 0})
    ]
    problem = assemble(model_of("gpt2"), collate(pairs * 2), find_metric("logit-difference"))
    assert patch(problem, "resid_pre").labels["position"] == ("noun", "verb", "a")
    # A single prompt is patched at each of its positions.
    one = replace(problem, prompts=problem.prompts.select([0]))
    assert patch(one, "resid_pre").labels["position"] == ("0 noun", "1 verb", "2 a", "3")


def test_sites_with_different_axes_cannot_be_stacked():
    found = patch(problem_of("gpt2", metric="logit-difference"), "resid,head", positions="all")
    with pytest.raises(CircuitfindError, match="have different axes and cannot be stacked"):
        found.stacked()


def test_a_run_in_which_every_output_is_zero_is_reproduced():
    model = cf.load_model("or-gate", dtype="float64")
    problem = cf.make_problem(model, "or-gate:both", n_prompts=1)
    silent = problem.model.own_logits(problem.prompts.corrupted, problem.prompts.real)
    assert not silent.any()
    patched = cf.patch(problem, "mlp_out", mode="noising")
    assert patched.mean("mlp_out").isfinite().all()
