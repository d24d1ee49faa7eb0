"""A metric that is one number for the whole batch can be patched with, and nothing else."""

import math

import pytest
import torch
from transformer_lens import patching as lens

from circuitfind.api import discover
from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import CircuitfindError
from circuitfind.evaluation.scorecard import scorecard
from circuitfind.metrics import custom_metric
from circuitfind.patching.circuits import circuit_of
from circuitfind.patching.files import load_patching, save_patching
from circuitfind.patching.path import linearised_edges, path_patch
from circuitfind.patching.sweep import patch
from circuitfind.patching.together import patch_together
from circuitfind.reports.heatmap import draw_heatmap
from circuitfind.reports.patching import patch_report
from tests.engine.problems import EXACT, problem_of, prompts_of
from tests.patching.test_path import at_end
from tests.patching.test_transformer_lens import CLOSE, LENGTHS, lens_inputs
from tests.type_checks import types_checked

NOTE = "the metric is one number for all prompts, so effects have no standard error"


def mix(logits, scale=2.0):
    """Mix the prompts in a way that no mean over them does."""
    differences = at_end(logits, prompts_of(lengths=LENGTHS))
    return scale * differences.exp().sum().log() + differences[0] * differences[1]


METRIC = custom_metric(mix, name="mix", per="batch")


def problem_with(metric=METRIC, family="gpt2"):
    return problem_of(family, metric=metric, lengths=LENGTHS)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_sweeps_are_those_of_transformer_lens_with_its_kind_of_metric(family):
    bridge, corrupted, cache, _ = lens_inputs(family)
    inputs = (bridge, corrupted, cache, mix)
    with torch.no_grad():
        stream = lens.get_act_patch_resid_pre(*inputs)
        heads = lens.get_act_patch_attn_head_out_all_pos(*inputs)
        neurons = lens.generic_activation_patch(
            *inputs, lens.layer_pos_patch_setter, "post", ("layer", "pos")
        )
    problem = problem_with(family=family)
    found = patch(problem, "resid_pre,post", positions="each", rows=1)
    torch.testing.assert_close(found.mean("resid_pre"), stream.double(), **CLOSE)
    torch.testing.assert_close(found.mean("post"), neurons.double(), **CLOSE)
    found = patch(problem, "head", positions="all", rows=1)
    torch.testing.assert_close(found.mean("head")[:, 0], heads.double(), **CLOSE)


def loudest(logits):
    return logits[:, -1].max(-1).values


LOUDEST = custom_metric(loudest)
LARGEST = custom_metric(lambda logits: loudest(logits).max(), per="batch")


@pytest.mark.parametrize(
    "measure",
    [
        lambda problem: path_patch(problem, ["embed", "a0.h1"], rows=1),
        lambda problem: path_patch(problem, ["embed"], ["logits"], norm="frozen"),
        lambda problem: patch_together(problem, ["embed"], ["m0", "logits"], rows=1),
        lambda problem: patch(problem, "mlp_out", positions="all", mode="noising", rows=1),
    ],
)
def test_the_largest_of_all_prompts_is_that_of_the_prompts_values(measure):
    found, apart = measure(problem_with(LARGEST)), measure(problem_with(LOUDEST))
    for site, values in apart.values.items():
        expected = values.max(-1).values
        torch.testing.assert_close(found.mean(site), expected, equal_nan=True, **EXACT)
    assert found.n_prompts == apart.n_prompts


def test_a_mean_has_the_gradient_of_the_metric_of_each_prompt():
    mean = custom_metric(lambda logits, prompts: at_end(logits, prompts).mean(), per="batch")
    found = linearised_edges(problem_with(mean))
    expected = linearised_edges(problem_with("logit-difference"))
    torch.testing.assert_close(found, expected, equal_nan=True, **EXACT)


def test_the_result_has_no_intervals_and_says_why(tmp_path):
    problem = problem_of("gpt2", metric=LARGEST, lengths=(5,) * 8)
    found = patch(problem, "resid_pre")
    save_patching(found, tmp_path / "swept.json")
    again = load_patching(tmp_path / "swept.json")
    for result in (found, again):
        assert result.error("resid_pre").isnan().all()
        assert all(math.isnan(row.error) for row in result.rows())
        assert result.notes == (NOTE,)
        report = patch_report(result)
        assert report.as_json()["base_interval"] is None
        assert f"- note: {NOTE}" in report.markdown()
        assert "on 8 prompts" in draw_heatmap(result, "resid_pre").dot


@pytest.mark.parametrize(
    "ask",
    [
        lambda problem: discover(problem, "eap", n_edges=5),
        lambda problem: discover(problem, "acdc", threshold=0.1),
        lambda problem: scorecard(problem, Circuit(problem.graph, problem.graph.edge_mask)),
        IncrementalEngine,
        lambda problem: circuit_of(problem, patch(problem, "mlp,head")),
    ],
)
def test_what_needs_a_value_per_prompt_refuses_it(ask):
    said = "the metric 'mix' is one number for the whole batch, and here every prompt needs its own"
    with types_checked(check=False), pytest.raises(CircuitfindError, match=said):
        ask(problem_with())


@pytest.mark.parametrize(
    ("returned", "per", "said"),
    [
        (lambda logits: logits[:, 0, 0], "batch", r"returned shape \(2,\); return one number"),
        (lambda logits: "much", "batch", "returned 'much'; return one number"),
        (lambda logits: logits.sum(), "prompt", "custom_metric.*per='batch'"),
    ],
)
def test_what_is_not_the_number_that_was_promised_is_refused(returned, per, said):
    metric = custom_metric(returned, per=per)
    with types_checked(check=False), pytest.raises(CircuitfindError, match=said):
        patch(problem_with(metric), "mlp")


def test_a_number_of_python_will_do():
    plain = custom_metric(lambda logits: float(logits.max()), per="batch")
    tensor = custom_metric(lambda logits: logits.max(), per="batch")
    found, expected = (patch(problem_with(metric), "mlp") for metric in (plain, tensor))
    torch.testing.assert_close(found.values["mlp_out"], expected.values["mlp_out"], **EXACT)


def test_an_unknown_kind_is_refused():
    with (
        types_checked(check=False),
        pytest.raises(CircuitfindError, match="choose one of 'prompt'"),
    ):
        custom_metric(mix, per="token")
