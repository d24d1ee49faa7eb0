"""Checks of shapes and types at run time, which would take half the time of many tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jaxtyping
import pytest

_EVERY = 4
"""Of how many sets of parameters of a test one checks types."""


@contextmanager
def types_checked(*, check: bool) -> Iterator[None]:
    """Have the package check the shapes and types of arguments and results, or not."""
    disabled: bool = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", not check)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", disabled)


def checks_types(test: pytest.Item) -> bool:
    """Return whether a test checks types.

    Of the parameter sets of a test every fourth does, the first among them; `make test-all` checks
    types in all tests.
    """
    parameters: Any = getattr(test, "callspec", None)
    if parameters is None or not test.config.option.markexpr:
        return True
    return sum(parameters.indices.values()) % _EVERY == 0
