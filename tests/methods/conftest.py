"""Models of these tests compute in float64 throughout, so that 1e-9 can be asked for."""

from collections.abc import Iterator

import jaxtyping
import pytest

from tests.oracles.checkpoints import float64_throughout


@pytest.fixture(autouse=True)
def exact_arithmetic() -> Iterator[None]:
    with float64_throughout():
        yield


@pytest.fixture
def without_type_checks() -> Iterator[None]:
    """Let a wrong value of a `Literal` reach the package's own check, as it does for users."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
