"""Outputs with radii: what is equal, what differs, and what neither is, whatever rounding does."""

from dataclasses import replace

import pytest
import torch

import circuitfind as cf
from circuitfind.evaluation.outputs import Outputs, compared, within
from circuitfind.evaluation.tally import tally
from circuitfind.rounding.balls import Ball
from circuitfind.rounding.numbers import Unproved

REAL = torch.ones(1, 1, dtype=torch.bool)


def with_radius(values, radius, steps=1):
    values = torch.tensor([[values] * steps], dtype=torch.float64)
    return Ball(values, torch.full_like(values, radius))


def seen(full, of_full, ours, of_ours, *, labels=True):
    outputs, limits = within(with_radius(full, of_full), with_radius(ours, of_ours), 1e-6)
    return compared(outputs[1], outputs[0], REAL, limits, labels=labels)


@pytest.mark.parametrize(
    ("full", "of_full", "ours", "of_ours", "differs", "refuted"),
    [
        # The model surely says the first output, the circuit perhaps the second.
        ([1e-9, 0.0], 1e-15, [0.0, 1e-9], 7e-8, True, False),
        # It surely says the second one.
        ([1e-8, 0.0], 1e-12, [0.0, 5e-8], 1e-8, True, True),
        # Both surely say the first, and other numbers.
        ([1.0, 0.0], 1e-12, [5.0, 0.0], 0.6, False, False),
        ([1.0, 0.0], 1e-12, [3.0, 3.0], 0.6, True, False),
        # The circuit says nothing, and that is exact.
        ([1.0, 0.0], 1e-12, [0.0, 0.0], 0.0, True, True),
        # The model perhaps says nothing: numbers count.
        ([1e-9, 0.0], 1e-8, [0.0, 1e-9], 1e-8, False, False),
        ([1e-9, 0.0], 4e-7, [0.0, 3e-7], 4e-7, True, False),
        ([1e-9, 0.0], 1e-8, [0.0, 2e-6], 1e-8, True, True),
        ([1e-9, 0.0], 1e-8, [0.0, 1.01e-6], 1e-8, True, False),
    ],
)
def test_labels_and_numbers_count_by_the_radii_of_their_own_outputs(
    full, of_full, ours, of_ours, differs, refuted
):
    found = seen(full, of_full, ours, of_ours)
    assert (bool(found.differs), bool(found.refuted)) == (differs, refuted)
    assert bool(found.is_tie) == (full[0] <= 2 * of_full)


@pytest.mark.parametrize(
    ("apart", "differs", "refuted"),
    [(0.7e-6, False, False), (0.9e-6, True, False), (1.1e-6, True, False), (1.3e-6, True, True)],
)
def test_numbers_differ_where_radii_cannot_change_that(apart, differs, refuted):
    found = seen([1.0, 0.0], 1e-7, [1.0, apart], 1e-7, labels=False)
    assert (bool(found.differs), bool(found.refuted)) == (differs, refuted)


def test_outputs_without_radii_are_not_proved():
    plain = torch.zeros(1, 1, 2)
    with pytest.raises(Unproved, match="not computed in the context"):
        within(plain, with_radius([1.0, 0.0], 0.0), 1e-6)


@pytest.fixture(scope="module")
def problem():
    model = cf.load_model("two-circuits", dtype="float64")
    found = cf.make_problem(model, "two-circuits", n_prompts=4)
    return replace(found, prompts=found.prompts.rows(slice(1)))


def certificate(problem, *cases, proved=True):
    def batches():
        for full, of_full, ours, of_ours in cases:
            balls = with_radius(full, of_full, 2), with_radius(ours, of_ours, 2)
            outputs, limits = within(*balls, 1e-6)
            yield Outputs(problem.prompts, *outputs, limits)

    return tally(problem, batches(), 1e-6, lambda done: None, labels=True, proved=proved)


def test_a_margin_is_said_with_what_is_needed_in_its_own_case(problem):
    faint, loud = ([1e-3, 0, 0], 0.0, [1e-3, 0, 0], 1e-16), ([9, 0, 0], 0.0, [5.0, 0, 0], 1e-8)
    found = certificate(problem, faint, loud)
    assert found.equal and found.n_cases == 2
    assert (found.smallest_margin, found.margin_needed) == (5.0, pytest.approx(2e-8))
    assert found.rounding == pytest.approx(2e-8)


def test_cases_in_which_neither_is_proved_are_counted_apart(problem):
    same, unsure = ([1, 0, 0], 0.0, [1.0, 0, 0], 0.0), ([1, 0, 0], 0.0, [0.1, 0, 0], 0.1)
    other = [1, 0, 0], 0.0, [0.0, 1, 0], 0.1
    found = certificate(problem, same, unsure)
    assert (found.equal, found.n_different, found.n_open) == (False, 0, 1)
    assert list(found.counterexample.circuit.values())[0] == pytest.approx(0.1)
    found = certificate(problem, same, unsure, other)
    assert (found.equal, found.n_different, found.n_open) == (False, 1, 1)
    # One that surely differs is shown.
    assert list(found.counterexample.circuit.values())[0] == 0
    found = certificate(problem, same, unsure, other, proved=False)
    assert (found.equal, found.n_different, found.n_open) == (False, 2, 0)
