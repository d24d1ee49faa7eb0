"""A run that stops when its time is over, and goes on as if it had not."""

import signal
import time
from itertools import count

import pytest

from circuitfind import budget
from circuitfind.budget import BudgetSpentError, bytes_of, ended_after, seconds_of, within
from circuitfind.errors import LimitError, MethodError
from circuitfind.methods.base import Progress


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2m ", 120)]
)
def test_an_amount_of_time_is_read(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1m", "10 minutes", "1m30s", "nan"])
def test_what_is_no_amount_of_time_is_refused(text):
    with pytest.raises(
        MethodError, match="is not an amount of time; give one like 90s, 10m or 1.5h"
    ):
        seconds_of(text)


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 5 * 10**8), ("1.5GB", 15 * 10**8), (" 2 kb ", 2000), ("7B", 7)]
)
def test_an_amount_of_memory_is_read(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "1", "much", "-1MB", "1GiB", "1MB 2KB", "nanGB"])
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(
        MethodError, match="is not an amount of memory; give one like 500MB or 1.5GB"
    ):
        bytes_of(text)


@pytest.mark.parametrize("amount", ["9" * 400 + "h", "1000000000.1s"])
def test_an_amount_of_time_outside_its_range_is_refused(amount):
    with pytest.raises(LimitError, match="budget must be a number from 0 to"):
        seconds_of(amount)


@pytest.mark.parametrize("amount", ["9" * 400 + "GB", "0MB"])
def test_an_amount_of_memory_outside_its_range_is_refused(amount):
    with pytest.raises(LimitError, match="memory must be a whole number from 1 to"):
        bytes_of(amount)


def test_what_has_no_steps_is_ended_once_the_budget_and_the_grace_are_over(monkeypatch):
    monkeypatch.setattr(budget, "GRACE", 0.0)
    with pytest.raises(BudgetSpentError), ended_after(0.05):
        try:
            while True:
                time.sleep(0.01)
        except Exception:  # noqa: BLE001  (what is caught around the code of others)
            pytest.fail("the end of the budget was taken for an error")


def test_nothing_is_ended_after_what_was_timed():
    with ended_after(1000.0):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_finished_search_is_not_stopped():
    told: list[Progress] = []
    watched = within(0.0, told.append)
    watched(Progress(5, 5, ()))
    assert len(told) == 1


@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_a_run_that_stops_again_and_again_ends_like_one_that_does_not(discover, tmp_path, n_steps):
    whole = discover(tmp_path / "whole")
    stops = 0
    while True:
        watched = within(float(n_steps), lambda _: None, count().__next__)
        try:
            found = discover(tmp_path / "run", on_progress=watched)
        except BudgetSpentError:
            stops += 1
            continue
        break
    assert stops >= 1
    assert found.circuit.to_json() == whole.circuit.to_json()
    decisions = [(tmp_path / name / "decisions.jsonl").read_bytes() for name in ("run", "whole")]
    assert decisions[0] == decisions[1]
