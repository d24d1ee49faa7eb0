"""Checks of shapes and types at run time, which would take half the time of many tests."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping
import pytest

_EVERY = 4
"""Of how many sets of parameters of a test one checks types."""

_NUMBER = pytest.StashKey[int]()


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

    Of the parameter sets of a test that run, every fourth does, the first among them; `make
    test-all` checks types in all tests.
    """
    n = test.stash.get(_NUMBER, 0)
    # Shifted by one after each four, so that each value of a second parameter has its turn.
    return not test.config.option.markexpr or (n + n // _EVERY) % _EVERY == 0


def number(tests: list[pytest.Item]) -> None:
    """Count the parameter sets of each test, of all tests that are to run."""
    counts = Counter[str]()
    for test in tests:
        name = test.nodeid.partition("[")[0]
        test.stash[_NUMBER] = counts[name]
        counts[name] += 1
