"""Every number that a user can give has one range, the same wherever it is given."""

import math
from dataclasses import dataclass, fields
from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitfind.budget import bytes_of
from circuitfind.commands import COMMANDS
from circuitfind.directories.config import RunConfig
from circuitfind.errors import LimitError
from circuitfind.limits import LIMITS, limit_of, require, require_fields
from circuitfind.methods import METHODS


@pytest.mark.parametrize("name", LIMITS)
def test_both_ends_of_a_range_are_in_it_and_what_lies_beyond_is_not(name):
    limit = LIMITS[name]
    assert limit.holds(limit.high)
    assert limit.holds(limit.low) == (not limit.excluded)
    for beyond in (
        limit.high * 1.01 + 1,
        limit.low - abs(limit.low) * 0.01 - 1,
        math.inf,
        math.nan,
    ):
        with pytest.raises(LimitError, match=f"^{limit.option or name.replace('_', ' ')} must be "):
            require(**{name: beyond})


@pytest.mark.parametrize("value", [True, "3", 2.5, None, [1]])
def test_what_is_not_a_whole_number_in_the_range_is_no_number_of_prompts(value):
    assert not LIMITS["prompts"].holds(value)


@given(st.integers() | st.floats() | st.text() | st.binary() | st.none())
def test_a_refusal_is_one_short_line(value):
    try:
        require(seed=value)
    except LimitError as error:
        assert len(str(error)) < 400
        assert "\n" not in str(error)
    else:
        assert value is None or 0 <= value <= 10**15


def test_a_number_of_thousands_of_digits_is_refused_in_one_line():
    with pytest.raises(LimitError, match=r"not 10\^5000 or so"):
        require(seed=10**5000)


def test_numbers_of_numpy_are_numbers():
    require(prompts=np.int64(3), threshold=np.float32(0.5))


def test_a_number_that_is_not_given_is_not_checked():
    require(prompts=None)


def test_every_numeric_option_of_every_command_has_a_range():
    unlimited = []
    for command in COMMANDS:
        for name, hint in get_type_hints(command, include_extras=True).items():
            kinds = {hint, *get_args(hint), *(k for part in get_args(hint) for k in get_args(part))}
            options = getattr(hint, "__metadata__", ())
            # `bytes_of` holds what it reads to the range of memories.
            checked = [option.callback or option.parser is bytes_of for option in options]
            if kinds & {int, float} and not any(checked):
                unlimited.append(f"{command.__name__} {name}")
    assert not unlimited


def test_every_numeric_option_of_every_method_has_a_range():
    for method in METHODS:
        for item in fields(method.options):
            if item.type in (int, float, int | None, float | None):
                assert limit_of(item.name) is not None, f"{method.name} {item.name}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_prompts": 0}, "prompts must be a whole number from 1 to 1,000,000, not 0"),
        ({"seed": -1}, "seed must be a whole number from 0 to .*, not -1"),
        ({"seed": 2**64}, r"seed must be a whole number .*, not 10\^19 or so"),
        ({"memory": 0}, "memory must be a whole number from 1 to .* bytes, not 0"),
        ({"options": {"threshold": math.nan}}, "threshold must be a number from .*, not nan"),
    ],
)
def test_stored_settings_are_held_to_the_same_ranges(change, said):
    settings = {"task": "ioi", "model": "gpt-4l", "method": "acdc", "options": {"threshold": 1.0}}
    with pytest.raises(LimitError, match=said):
        RunConfig(**{**settings, **change}).validate()


def test_fields_without_a_range_are_left_alone():
    @dataclass(frozen=True)
    class Settings:
        prompts: int
        name: str

    require_fields(Settings(3, "anything"))
    with pytest.raises(LimitError, match="prompts must be"):
        require_fields(Settings(0, "anything"))
