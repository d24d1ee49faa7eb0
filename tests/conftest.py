"""Fixtures that cost something, and what every test needs."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from circuitfind import plugins, registry
from tests.type_checks import checks_types, number, types_checked

SHARED = Path(__file__).parents[2] / "shared"

# The same examples every time, however slow the machine is.
settings.register_profile(
    "steady",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, and count parameter sets."""
    number(items)
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device here"))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Threads that wait for one another make tiny models many times slower."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def types(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check shapes and types at run time with some of a test's parameters."""
    with types_checked(check=checks_types(request.node)):
        yield


@pytest.fixture
def unchecked(types: None) -> Iterator[None]:
    """Let a wrong type or `Literal` reach the package's own check, as it does for users."""
    with types_checked(check=False):
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of models and tokenizers beside the repository, where there is one."""
    if not SHARED.is_dir():
        pytest.skip("the models and tokenizers beside the repository (../shared) are not here")
    return SHARED


@pytest.fixture(autouse=True)
def _without_plugins() -> Iterator[None]:
    """Leave no plug-in of one test to the next."""
    yield
    if plugins._LOADED or registry.EXPECTED or registry.USED:
        forget_plugins()


def forget_plugins() -> None:
    """Forget plug-ins, as a new process would."""
    from circuitfind.commands.doctor import _tables

    for plugin in plugins._LOADED.values():
        for table in _tables():
            for what in plugin.adds:
                kind, _, name = what.rpartition(" ")
                if table.what == kind:
                    table._entries.pop(name, None)
    for name in plugins._LOADED:
        sys.modules.pop(name, None)
    for known in (plugins._LOADED, registry.EXPECTED, registry.USED):
        known.clear()
    os.environ.pop(plugins.VARIABLE, None)
