"""What all tests of the engine share.

Models compute in float64 throughout, so that 1e-9 can be asked for, and read through virtual
weights wherever they can, though they are so small that it saves nothing.
"""

from collections.abc import Iterator

import pytest

from circuitfind.engine import virtual_weights
from tests.oracles.checkpoints import float64_throughout


@pytest.fixture(autouse=True)
def exact_arithmetic() -> Iterator[None]:
    with float64_throughout():
        yield


@pytest.fixture(autouse=True)
def virtual_weights_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_weights, "_WORTH", 0)
