"""Pairs of prompts: what tensors they become, and what is refused."""

import dataclasses

import pytest
import torch

from circuitfind.errors import PromptError
from circuitfind.measures import distinct_answers, on_columns
from circuitfind.prompts import (
    NO_TOKEN,
    Pair,
    collate,
    named_positions,
)

LONG = Pair(
    [5, 6, 7, 8],
    [5, 9, 7, 8],
    answers=[[1, 2], [3]],
    wrong_answers=[[4], []],
    steps=[1, 3],
    positions={"IO": 1, "end": 3},
    template=2,
)
SHORT = Pair([5, 6], [4, 6], answers=[[2]], wrong_answers=[[1]], positions={"IO": 0, "end": 1})
PAIRS = collate([LONG, SHORT])


def test_rows_are_padded_to_the_longest_and_say_where_they_end():
    assert PAIRS.clean.tolist() == [[5, 6, 7, 8], [5, 6, 0, 0]]
    assert PAIRS.corrupted.tolist() == [[5, 9, 7, 8], [4, 6, 0, 0]]
    assert PAIRS.lengths.tolist() == [4, 2]
    assert PAIRS.real.tolist() == [[True] * 4, [True, True, False, False]]
    assert PAIRS.padded and len(PAIRS) == 2


def test_steps_and_answers_are_filled_up_and_say_where():
    assert PAIRS.steps.tolist() == [[1, 3], [1, NO_TOKEN]]
    assert PAIRS.step_is_real.tolist() == [[True, True], [True, False]]
    no = NO_TOKEN
    assert PAIRS.answers.tolist() == [[[1, 2], [3, no]], [[2, no], [no, no]]]
    assert PAIRS.wrong_answers.tolist() == [[[4], [no]], [[1], [no]]]
    assert PAIRS.positions["IO"].tolist() == [1, 0]
    assert PAIRS.template is not None and PAIRS.template.tolist() == [2, 0]


def test_the_last_position_is_the_step_unless_others_are_given():
    assert collate([SHORT]).steps.tolist() == [[1]]


def test_at_steps_selects_the_steps_of_each_prompt():
    values = torch.arange(8).reshape(2, 4)
    assert PAIRS.at_steps(values).tolist() == [[1, 3], [5, 4]]
    deep = torch.arange(16).reshape(2, 4, 2)
    assert PAIRS.at_steps(deep)[0].tolist() == [[2, 3], [6, 7]]


def test_selected_rows_lose_the_padding_that_they_no_longer_need():
    alone = PAIRS.select([1])
    assert alone.clean.tolist() == [[5, 6]] and not alone.padded
    assert alone.positions["end"].tolist() == [1]
    assert PAIRS.select(slice(0, 2)).fingerprint == PAIRS.fingerprint
    assert PAIRS.select([1, 0]).lengths.tolist() == [2, 4]


def test_equal_prompts_have_equal_fingerprints_and_any_change_shows():
    assert collate([LONG, SHORT]).fingerprint == PAIRS.fingerprint
    changes = [
        {"clean": [5, 6, 7, 9]},
        {"corrupted": [5, 9, 7, 9]},
        {"answers": [[1, 2], [4]]},
        {"steps": [1, 2]},
        {"wrong_answers": [[5], []]},
    ]
    prints = {
        collate([dataclasses.replace(LONG, **change), SHORT]).fingerprint for change in changes
    }
    assert len(prints | {PAIRS.fingerprint}) == len(changes) + 1


def test_moving_to_a_device_keeps_everything():
    moved = PAIRS.to("cpu")
    assert moved.fingerprint == PAIRS.fingerprint
    assert moved.positions["IO"].tolist() == [1, 0]


def test_distinct_answers_are_sorted_and_once_each():
    assert distinct_answers(PAIRS).tolist() == [1, 2, 3, 4]


def test_answers_are_renumbered_to_the_columns_that_hold_them():
    columns = torch.tensor([0, 1, 2, 3, 4, 9])[1:5]
    renumbered = on_columns(PAIRS, columns)
    given = PAIRS.answers != NO_TOKEN
    assert torch.equal(columns[renumbered.answers[given]], PAIRS.answers[given])
    assert (renumbered.answers[~given] == NO_TOKEN).all()


def test_named_positions_come_in_the_order_asked_for():
    assert named_positions(PAIRS, ["end", "IO"]).tolist() == [[3, 1], [1, 0]]
    with pytest.raises(PromptError, match="no position is named 'S'; these prompts name IO, end"):
        named_positions(PAIRS, ["S"])


# ------------------------------------------------------------------------------- refusals


def test_no_prompts_at_all_are_refused():
    with pytest.raises(PromptError, match="there are no prompts; give at least one pair"):
        collate([])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"corrupted": [4]}, "pair 1 is misaligned: its clean prompt has 2 tokens and .* one 1"),
        ({"corrupted": [5, 6]}, "pair 1: the corruption changes nothing"),
        ({"steps": [2]}, "pair 1: position 2 lies outside its prompt of 2 tokens"),
        ({"steps": [-1]}, "pair 1: position -1 lies outside its prompt"),
        ({"positions": {"IO": 7, "end": 1}}, "pair 1: position 7 lies outside its prompt"),
        ({"positions": {"IO": 0}}, "pair 1 does not name the position 'end' that others do"),
    ],
)
def test_a_bad_pair_is_refused_by_number_and_reason(change, line):
    with pytest.raises(PromptError, match=line):
        collate([LONG, dataclasses.replace(SHORT, **change)])


def test_more_rows_of_answers_than_steps_are_refused():
    with pytest.raises(PromptError, match="pair 0 has answers for 2 steps and reads 1"):
        collate([dataclasses.replace(LONG, steps=[1])])


def test_a_prompt_that_reads_at_no_step_is_refused():
    with pytest.raises(PromptError, match="pair 0 reads at no position"):
        collate([dataclasses.replace(SHORT, steps=[], answers=[], wrong_answers=[])])


def test_an_empty_prompt_is_refused():
    with pytest.raises(PromptError, match="pair 0"):
        collate([Pair([], [], answers=[[1]])])
