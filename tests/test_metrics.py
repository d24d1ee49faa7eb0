"""Metrics against numbers worked out by hand."""

import math

import pytest
import torch

from circuitfind.errors import MetricError
from circuitfind.measures import distinct_answers, on_columns
from circuitfind.metrics import METRICS, Metric, check_metric, custom_metric, find_metric
from circuitfind.prompts import Pair, collate
from tests.type_checks import types_checked

LOG = math.log
OF_LOGITS = [metric for metric in METRICS if metric.reads != "stream"]
"""Those that read the stream are in tests/engine/test_direction.py."""

PROMPTS = collate(
    [
        # Two right answers and one wrong one, at one step.
        Pair([1, 2], [1, 3], answers=[[0, 1]], wrong_answers=[[2]]),
        # Two steps, the second with one right answer and two wrong ones.
        Pair([1, 2, 3], [1, 3, 3], answers=[[3], [0]], wrong_answers=[[0], [1, 2]], steps=[0, 2]),
    ]
)
P = torch.tensor(
    [
        [[0.5, 0.2, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]],
        [[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]],
    ],
    dtype=torch.float64,
)
FULL = torch.tensor(
    [
        [[0.25, 0.25, 0.25, 0.25], [0.9, 0.05, 0.03, 0.02]],
        [[0.4, 0.3, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1]],
    ],
    dtype=torch.float64,
)
"""Probabilities [prompt step token]; the first prompt's second step is padding."""

BY_HAND = {
    "kl": (
        0.25 * (LOG(0.25 / 0.5) + 2 * LOG(0.25 / 0.2) + LOG(0.25 / 0.1)),
        (
            0.4 * LOG(0.4 / 0.1) + 0.3 * LOG(0.3 / 0.2)
            + 0.2 * LOG(0.2 / 0.3) + 0.1 * LOG(0.1 / 0.4)
            + 0.7 * LOG(0.7 / 0.4) + 0.1 * LOG(0.1 / 0.3) + 0.1 * LOG(0.1 / 0.2)
        ) / 2,
    ),
    "logit-difference": (
        (LOG(0.5) + LOG(0.2)) / 2 - LOG(0.2),
        (LOG(0.4) - LOG(0.1) + LOG(0.4) - (LOG(0.3) + LOG(0.2)) / 2) / 2,
    ),
    "probability-difference": (0.5 + 0.2 - 0.2, (0.4 - 0.1 + 0.4 - 0.3 - 0.2) / 2),
    "loss": (-LOG(0.7), (-LOG(0.4) - LOG(0.4)) / 2),
    "accuracy": (1.0, 1.0),
    "l2": (
        LOG(2) ** 2 + 2 * LOG(0.8) ** 2 + LOG(0.4) ** 2,
        (
            2 * LOG(4) ** 2 + 2 * LOG(1.5) ** 2
            + LOG(4 / 7) ** 2 + LOG(3) ** 2 + LOG(2) ** 2 + LOG(1) ** 2
        ) / 2,
    ),
}  # fmt: skip


def test_every_metric_has_a_value_by_hand():
    assert set(BY_HAND) == {metric.name for metric in OF_LOGITS}
    assert [metric.name for metric in METRICS if metric not in OF_LOGITS] == ["direction"]


@pytest.mark.parametrize("metric", OF_LOGITS, ids=lambda metric: metric.name)
def test_a_metric_is_what_working_it_out_by_hand_gives(metric):
    values = metric(P.log(), PROMPTS, FULL.log())
    assert values.tolist() == pytest.approx(BY_HAND[metric.name], abs=1e-14)


@pytest.mark.parametrize("metric", OF_LOGITS, ids=lambda metric: metric.name)
def test_steps_that_a_prompt_does_not_have_are_left_out(metric):
    spoilt, spoilt_full = P.log(), FULL.log()
    spoilt[0, 1], spoilt_full[0, 1] = torch.nan, torch.inf
    expected = metric(P.log(), PROMPTS, FULL.log())
    assert torch.equal(metric(spoilt, PROMPTS, spoilt_full), expected)


@pytest.mark.parametrize("metric", OF_LOGITS, ids=lambda metric: metric.name)
def test_a_constant_added_to_all_logits_changes_no_metric_but_l2(metric):
    shifted = metric(P.log() + 3.0, PROMPTS, FULL.log())
    same = torch.allclose(shifted, metric(P.log(), PROMPTS, FULL.log()), rtol=0, atol=1e-12)
    assert same == (metric.name != "l2")


@pytest.mark.parametrize("name", ["kl", "l2"])
def test_the_distance_of_the_full_model_from_itself_is_zero(name):
    distance = find_metric(name)(P.log(), PROMPTS, P.log())
    assert distance.tolist() == pytest.approx([0.0, 0.0], abs=1e-15)


def test_the_columns_of_the_answers_give_the_same_value_as_the_whole_vocabulary():
    restricted = [metric for metric in METRICS if metric.reads == "answers"]
    assert [metric.name for metric in restricted] == ["logit-difference"]
    logits = torch.randn(2, 2, 50, generator=torch.Generator().manual_seed(0)).double()
    pairs = collate(
        [
            Pair([1], [2], answers=[[41, 3]], wrong_answers=[[17]]),
            Pair([1, 2], [2, 2], answers=[[3], [0]], wrong_answers=[[0], [49, 3]], steps=[0, 1]),
        ]
    )
    columns = distinct_answers(pairs)
    assert len(columns) == 5
    for metric in restricted:
        whole = metric(logits, pairs, logits)
        few = metric(logits[..., columns], on_columns(pairs, columns), logits[..., columns])
        assert torch.equal(few, whole)


def test_the_loss_is_the_mean_turned_so_that_lower_is_better():
    values = torch.tensor([1.0, 2.0])
    for metric in METRICS:
        assert float(metric.loss(values)) == (1.5 if metric.better == "lower" else -1.5)
    assert {m.name for m in METRICS if m.better == "lower"} == {"kl", "loss", "l2"}


def test_the_loss_is_taken_in_float64():
    values = torch.tensor([1.0] * 7 + [2.0**-24])
    assert float(find_metric("kl").loss(values)) == (7 + 2.0**-24) / 8


def test_any_function_can_be_a_metric():
    metric = custom_metric(lambda logits, prompts: logits[:, 0, 3], name="third", better="lower")
    assert metric(P, PROMPTS, FULL).tolist() == pytest.approx([0.1, 0.4])
    assert (metric.name, metric.sign, metric.reads) == ("third", 1, "vocabulary")


@pytest.mark.parametrize(
    ("function", "shape"),
    [(lambda x, p: x.mean(), r"\(\)"), (lambda x, p: x[:, :, 0], r"\(2, 2\)")],
)
def test_a_function_that_averages_or_returns_too_much_is_refused(function, shape):
    metric = custom_metric(function, name="mine")
    line = f"'mine' returned shape {shape} for 2 prompts; return one"
    with types_checked(check=False), pytest.raises(MetricError, match=line):
        metric(P, PROMPTS, FULL)


def test_a_list_and_a_table_entry_with_an_axis_too_many_are_refused_too():
    with (
        types_checked(check=False),
        pytest.raises(MetricError, match=r"'mine' returned \[1, 2\]; return a tensor"),
    ):
        custom_metric(lambda logits, prompts: [1, 2], name="mine")(P, PROMPTS, FULL)
    for_table = Metric("mine", "", "higher", lambda logits, prompts, full: logits[:, :, 0])
    with (
        types_checked(check=False),
        pytest.raises(MetricError, match=r"'mine' returned shape \(2, 2\)"),
    ):
        for_table.of_candidates(P[None], PROMPTS, FULL)


@pytest.mark.parametrize(
    ("field", "given"), [("better", "up"), ("better", None), ("reads", "all"), ("needs", "wrong")]
)
def test_a_metric_with_an_unknown_field_is_refused(field, given):
    fields = {"better": "lower", field: given}
    with (
        types_checked(check=False),
        pytest.raises(MetricError, match=f"'mine' has {field}={given!r}; choose one of"),
    ):
        Metric("mine", "", measure=lambda logits, prompts, full: logits[:, 0, 0], **fields)


def test_an_unknown_metric_lists_the_known_ones():
    with pytest.raises(MetricError, match="no metric named 'f1'; the metrics are kl, logit-diff"):
        find_metric("f1")


@pytest.mark.parametrize("metric", OF_LOGITS, ids=lambda metric: metric.name)
def test_a_metric_that_compares_answers_refuses_prompts_without_them(metric):
    right = collate([Pair([1], [2], answers=[[5]])])
    neither = collate(
        [Pair([1], [2], answers=[[5]], wrong_answers=[[6]]), Pair([1], [3], answers=[])]
    )
    check_metric(metric, PROMPTS)
    if metric.needs == "right and wrong":
        with pytest.raises(
            MetricError, match="needs a wrong answer at every step and prompt 0 has"
        ):
            check_metric(metric, right)
    else:
        check_metric(metric, right)
    if metric.needs != "none":
        with pytest.raises(
            MetricError, match="needs a right answer at every step and prompt 1 has"
        ):
            check_metric(metric, neither)
    else:
        check_metric(metric, neither)
