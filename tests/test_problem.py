"""A problem whose parts do not fit together is refused when it is put together."""

import pytest

from circuitfind.ablations import ABLATIONS, Ablation
from circuitfind.errors import MethodError, MetricError, PromptError
from circuitfind.granularity import heads_and_mlps
from circuitfind.metrics import find_metric
from circuitfind.models.loading import load_model
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from circuitfind.question import make_problem
from tests.programs import write_program
from tests.type_checks import types_checked

PAIRS = collate([Pair([0, 1, 2], [0, 2, 1], answers=[[1]])])


@pytest.mark.parametrize("ablation", list(ABLATIONS), ids=lambda ablation: ablation.name)
def test_parts_that_fit_make_a_problem(model, ablation):
    problem = assemble(model, PAIRS, find_metric("kl"), ablation)
    assert problem.graph == heads_and_mlps(model.shape)
    assert problem.ablation is ablation
    assert assemble(model, PAIRS, find_metric("kl"), ablation.name).ablation is ablation


def test_an_unknown_ablation_lists_the_known_ones(model):
    with pytest.raises(MethodError, match="no ablation named 'noise'; the ablations are resample"):
        assemble(model, PAIRS, find_metric("kl"), "noise")


def test_a_graph_of_another_shape_is_refused(model, tmp_path):
    other = load_model(write_program(tmp_path, "other", n_layers=1))
    with pytest.raises(MethodError, match="belongs to a model of another shape than 'scramble'"):
        assemble(model, PAIRS, find_metric("kl"), graph=heads_and_mlps(other.shape))


def test_a_prompt_that_the_model_cannot_hold_is_refused(model):
    long = collate([Pair([0] * 6, [1] * 6, answers=[[1]])])
    with pytest.raises(
        PromptError, match="longest prompt has 6 tokens and 'scramble' reads at most"
    ):
        assemble(model, long, find_metric("kl"))


def test_a_metric_that_the_prompts_cannot_answer_is_refused(model):
    with pytest.raises(MetricError, match="'logit-difference' needs a wrong answer"):
        assemble(model, PAIRS, find_metric("logit-difference"))


@pytest.mark.parametrize("token", [-1, 5, 1000])
def test_a_token_that_the_model_does_not_know_is_refused(model, token):
    pairs = collate([Pair([0, 1], [0, 2], answers=[[1]]), Pair([0, token], [0, 1], answers=[[1]])])
    with pytest.raises(PromptError, match=f"prompt 1 holds the token {token} and 'scramble' knows"):
        assemble(model, pairs, find_metric("kl"))


def test_an_answer_that_the_model_cannot_give_is_refused(model):
    pairs = collate([Pair([0, 1], [0, 2], answers=[[3]])])
    with pytest.raises(
        PromptError, match="prompt 0 has the answer 3 and 'scramble' gives logits for"
    ):
        assemble(model, pairs, find_metric("loss"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A program of random weights: five tokens, three logits, five positions."""
    return load_model(write_program(tmp_path_factory.mktemp("program")))


@pytest.mark.parametrize(
    ("part", "given", "line"),
    [
        ("model", "scramble", "'scramble' is not a model; give what `load_model` returned"),
        ("task", [Pair([0], [1], answers=[[1]])], r"is not prompts; .*`collate\(pairs\)`"),
        ("metric", len, "is not a metric; give one of `METRICS`"),
        ("ablation", None, "None is not an ablation; give its name"),
        ("graph", "all", "'all' is not a graph; give what `heads_and_mlps"),
    ],
)
def test_a_part_of_another_kind_is_refused(model, part, given, line):
    parts = {"model": model, "task": PAIRS, "metric": "kl", part: given}
    with types_checked(check=False), pytest.raises(MethodError, match=line):
        make_problem(**parts)


def test_an_ablation_of_tokens_that_the_model_does_not_know_is_refused(model):
    far = Ablation("far", ((1.0, lambda prompts: prompts.clean + 100),))
    with pytest.raises(PromptError, match="prompt 0 holds the token 100 and 'scramble' knows"):
        assemble(model, PAIRS, find_metric("kl"), far)
