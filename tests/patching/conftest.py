"""Models of these tests compute in float64 throughout, so that 1e-9 can be asked for."""

from collections.abc import Iterator

import pytest

from tests.oracles.checkpoints import float64_throughout


@pytest.fixture(autouse=True)
def exact_arithmetic() -> Iterator[None]:
    with float64_throughout():
        yield
