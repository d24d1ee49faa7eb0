"""Runs of a small program, fast enough to repeat them dozens of times."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuitfind.directories.config import RunConfig
from circuitfind.directories.results import RunResult
from circuitfind.models.loading import load_model
from circuitfind.verbs.discover import run_discovery
from tests.programs import write_program

Discover = Callable[..., RunResult]


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Path:
    return write_program(tmp_path_factory.mktemp("program"), n_outputs=5)


@pytest.fixture(scope="session")
def model(program):
    return load_model(program)


@pytest.fixture
def config(program) -> RunConfig:
    """The settings of a run of 46 edges."""
    options = {"threshold": 0.01}
    return RunConfig("program", str(program), "acdc", options, metric="l2", n_prompts=4)


@pytest.fixture
def discover(config, model) -> Discover:
    """Run with the settings above or some others; the model is loaded once for all tests."""

    def run(path: Path, **changes: Any) -> RunResult:
        callbacks = {name: changes.pop(name) for name in ("tell", "on_progress") if name in changes}
        return run_discovery(path, replace(config, **changes), model=model, **callbacks)

    return run
