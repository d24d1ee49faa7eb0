"""A summary says when its figures cannot be trusted, and only then."""

import dataclasses

import pytest
import torch

import circuitfind as cf
from circuitfind.circuit import Circuit
from circuitfind.evaluation.scorecard import measurement
from circuitfind.evaluation.trust import mean_with_interval, own_result, within_noise
from circuitfind.measures import Reference, accuracy, logit_difference
from circuitfind.metrics import find_metric


@pytest.fixture(scope="module")
def problem():
    return cf.make_problem(cf.load_model("ioi-small"), "ioi", n_prompts=16)


@pytest.fixture(scope="module")
def engine(problem):
    return cf.IncrementalEngine(problem)


def swapped(problem):
    """The same prompts with right and wrong answers exchanged: a task that no model here does."""
    prompts = problem.prompts
    turned = dataclasses.replace(
        prompts, answers=prompts.wrong_answers, wrong_answers=prompts.answers
    )
    return dataclasses.replace(problem, prompts=turned)


def whole(problem):
    return Circuit(problem.graph, problem.graph.edge_mask)


def test_the_model_s_own_result_is_that_of_its_own_forward_pass(problem, engine):
    prompts = problem.prompts
    logits = prompts.at_steps(problem.model.own_logits(prompts.clean))
    full = Reference(logits)
    own = cf.scorecard(engine, whole(problem)).own
    assert own.metric == "logit-difference"
    expected = float(logit_difference(logits, prompts, full).mean())
    assert own.value == pytest.approx(expected, rel=1e-4)
    assert own.accuracy == float(accuracy(logits, prompts, full).mean()) == 1
    assert own.low < own.value < own.high
    assert own.does_the_task


def test_a_circuit_that_does_the_task_is_not_doubted(problem, engine):
    assert cf.scorecard(engine, whole(problem)).doubts == ()


def test_a_model_that_does_not_do_the_task_is_said_first(problem):
    turned = swapped(problem)
    card = cf.scorecard(cf.IncrementalEngine(turned), whole(turned))
    assert card.own.value < 0
    assert card.doubts[0].startswith("the model does not do this task (logit-difference -")


def test_an_empty_circuit_is_said_to_be_empty(problem, engine):
    nothing = Circuit(problem.graph, torch.zeros_like(problem.graph.edge_mask))
    (doubt,) = cf.scorecard(engine, nothing).doubts
    assert doubt.startswith("the circuit is empty")


def test_a_circuit_that_loses_the_accuracy_of_the_model_is_said_to(problem, engine):
    one_edge = Circuit(problem.graph, problem.graph.mask_of(["embed->logits"]))
    (doubt,) = cf.scorecard(engine, one_edge).doubts
    assert doubt.startswith(
        "the circuit does not do the task: its accuracy is 0.00 and the model's 1"
    )


def test_a_gap_within_noise_is_said_where_faithfulness_is_undefined(problem):
    prompts = problem.prompts
    # Answers that no prompt is about: what is left of the two runs' difference is chance.
    others = prompts.answers.roll(1, 0)
    unrelated = dataclasses.replace(
        problem,
        prompts=dataclasses.replace(prompts, answers=others, wrong_answers=others.roll(3, 0)),
        metric=find_metric("logit-difference"),
    )
    card = cf.scorecard(cf.IncrementalEngine(unrelated), whole(unrelated))
    assert card.measurements[0].faithfulness is None
    assert any("so faithfulness is undefined" in doubt for doubt in card.doubts)


def test_pairs_that_repeat_one_another_are_said_to(problem):
    twice = dataclasses.replace(problem, prompts=problem.prompts.select([0, 1] * 8))
    card = cf.scorecard(cf.IncrementalEngine(twice), whole(twice))
    assert card.doubts[0].startswith("only 2 of 16 pairs of prompts differ from one another")


def test_the_evaluation_says_the_same(problem):
    turned = swapped(problem)
    nothing = Circuit(problem.graph, torch.zeros_like(problem.graph.edge_mask))
    found = cf.evaluate(turned, nothing, "quick")
    card = cf.scorecard(cf.IncrementalEngine(turned), nothing)
    assert found.doubts == card.doubts
    assert len(found.doubts) == 2
    assert found.own.value == pytest.approx(card.own.value, rel=1e-4)


def test_prompts_without_answers_say_nothing_of_the_model(problem):
    bare = dataclasses.replace(
        problem.prompts,
        answers=problem.prompts.answers[..., :0],
        wrong_answers=problem.prompts.wrong_answers[..., :0],
    )
    logits = problem.model.own_logits(bare.clean)
    assert own_result(bare, bare.at_steps(logits)) is None


def test_faithfulness_is_undefined_where_the_gap_is_within_noise():
    generator = torch.Generator().manual_seed(0)
    full = torch.randn(40, generator=generator)
    empty = full + 0.5 * torch.randn(40, generator=generator)
    metric = find_metric("logit-difference")
    assert within_noise(full, empty)
    assert measurement(metric, full, full - 3, empty).faithfulness is None
    assert not within_noise(full + 1, empty)
    assert measurement(metric, full + 1, full - 3, empty).faithfulness is not None


def test_the_interval_covers_a_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(2000, 12, generator=generator)
    ends = [mean_with_interval(sample) for sample in samples]
    covered = sum(low <= 0 <= high for low, high in ends) / len(ends)
    assert 0.935 < covered < 0.965


def test_few_prompts_give_no_interval():
    assert mean_with_interval(torch.ones(7)) is None
    assert not within_noise(torch.zeros(7), torch.zeros(7))
