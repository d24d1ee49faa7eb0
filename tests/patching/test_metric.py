"""Patching has one default metric, in every function and on the command line."""

from dataclasses import replace

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.directories.patch_config import PatchConfig
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.metrics import find_metric
from circuitfind.models.loading import load_model
from circuitfind.patching.circuits import circuit_of
from circuitfind.patching.path import linearised_edges, path_patch
from circuitfind.patching.sweep import patch
from circuitfind.patching.together import patch_together
from circuitfind.question import Models, make_problem, problem_again
from circuitfind.reports.patching import patch_report
from circuitfind.verbs.patch import run_patching
from tests.engine.problems import model_of, problem_of, prompts_of

FUNCTIONS = {
    "patch": lambda problem: patch(problem, "head", positions="all").values["head"],
    "path_patch": lambda problem: path_patch(problem, ["embed"]).values["path"],
    "patch_together": lambda problem: patch_together(problem, ["embed"], ["m0", "logits"]).values[
        "path"
    ],
    "linearised_edges": linearised_edges,
}


@pytest.fixture
def unchosen():
    return make_problem(model_of("gpt2"), prompts_of())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_default_metric_is_the_logit_difference(function, unchosen):
    assert unchosen.metric.name == "kl"
    found = FUNCTIONS[function](unchosen)
    expected = FUNCTIONS[function](problem_of("gpt2", metric="logit-difference"))
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_a_chosen_metric_is_kept():
    chosen = make_problem(model_of("gpt2"), prompts_of(), metric="kl")
    assert patch(chosen, "head").metric == "kl"


def test_a_metric_put_into_a_problem_is_a_chosen_one(unchosen):
    changed = replace(unchosen, metric=find_metric("probability-difference"))
    assert patch(changed, "head").metric == "probability-difference"


def test_without_wrong_answers_the_default_is_the_metric_of_the_task():
    prompts = prompts_of()
    one_sided = replace(prompts, wrong_answers=torch.full_like(prompts.wrong_answers, -1))
    assert patch(make_problem(model_of("gpt2"), one_sided), "head").metric == "kl"


def test_the_command_line_python_and_evaluation_measure_the_same(tmp_path):
    model = load_model("gpt-2l")
    config = PatchConfig("ioi", "gpt-2l", "mlp", n_prompts=4)
    ours = run_patching(tmp_path / "run", config).report.result
    problem = make_problem(model, "ioi", n_prompts=4)
    theirs = patch(problem, "mlp")
    assert ours.metric == theirs.metric == "logit-difference"
    assert ours.origin["unit"] == theirs.unit == "logits"
    torch.testing.assert_close(ours.values, theirs.values)
    circuit = Circuit(problem.graph, problem.graph.edge_mask, origin=ours.origin)
    assert (
        problem_again(circuit, tmp_path, Models(), device="cpu").metric.name == "logit-difference"
    )


def test_a_circuit_is_searched_with_the_metric_of_the_sweep(unchosen):
    swept = patch(unchosen, "mlp,head", mode="noising", positions="all")
    found = circuit_of(unchosen, swept, 0.1, edge_threshold=0.05)
    chosen = problem_of("gpt2", metric="logit-difference")
    expected = circuit_of(IncrementalEngine(chosen), swept, 0.1, edge_threshold=0.05)
    assert found.kept.equal(expected.kept)
    with pytest.raises(MethodError, match="the engine measures 'kl' and the sweep measured"):
        circuit_of(IncrementalEngine(unchosen), swept)


@pytest.mark.parametrize("does_it", [True, False])
def test_a_report_begins_with_the_result_of_the_model_itself(does_it):
    prompts = prompts_of(lengths=(6,) * 8)
    logits = model_of("gpt2").own_logits(prompts.clean)[:, -1]
    # The right answer is what the model says, or what it says least.
    said = logits.topk(1, largest=does_it).indices[:, None]
    other = logits.topk(2).indices[:, None, 1:].contiguous()
    problem = make_problem(model_of("gpt2"), replace(prompts, answers=said, wrong_answers=other))
    found = patch_report(patch(problem, "mlp", mode="noising"), problem=problem)
    first = found.markdown().splitlines()[2]
    difference = (logits.gather(1, said[:, 0]) - logits.gather(1, other[:, 0])).mean()
    assert first.startswith(f"- the model itself: logit-difference {difference:.4g}")
    assert first.endswith(f"accuracy {int(does_it)}")
    assert found.as_json()["own"]["accuracy"] == int(does_it)
    assert any("the model does not do this task" in text for text in found.warnings) != does_it
