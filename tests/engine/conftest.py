"""What all tests of the engine share.

Models compute in float64 throughout, so that 1e-9 can be asked for, and read through composed
weights wherever they can, though they are so small that it saves nothing.
"""

from collections.abc import Iterator

import pytest

from circuitfind.engine import composed
from tests.oracles.checkpoints import float64_throughout


@pytest.fixture(autouse=True)
def exact_arithmetic() -> Iterator[None]:
    with float64_throughout():
        yield


@pytest.fixture(autouse=True)
def composed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composed, "_WORTH", 0)
