"""Small sweeps of a program whose runs take a fraction of a second."""

from collections.abc import Callable
from pathlib import Path

import pytest

from circuitfind.sweeps.launching import CrewLauncher
from circuitfind.sweeps.plan import read_sweep
from circuitfind.sweeps.planning import PlannedRun
from circuitfind.workers.processes import Place, ProcessCrew
from tests.programs import write_program

SMALL = """
models = ["scramble.json"]
tasks = ["program"]
seeds = [0, 1]
prompts = 4

[methods.acdc]
thresholds = [0.01]

[methods.exact]
edges = [5]
"""


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Path:
    return write_program(tmp_path_factory.mktemp("program"), n_outputs=5)


@pytest.fixture
def planned(program, tmp_path) -> Callable[[str], tuple[PlannedRun, ...]]:
    """Read a sweep file that lies beside the program."""

    def read(text: str) -> tuple[PlannedRun, ...]:
        file = program.with_name("sweep.toml")
        file.write_text(text)
        return read_sweep(file)

    return read


@pytest.fixture
def workers() -> Callable[[], CrewLauncher]:
    """Make two workers that are there at once, because this process has loaded the libraries."""
    return lambda: CrewLauncher(ProcessCrew([Place(1), Place(1)], "fork"))


TIMED = ("scorecard.json", "evaluation.json", "environment.json", "rivals.json", "families.json")
"""Files that tell how long something took."""


def files_of(path: Path) -> dict[str, bytes]:
    """The content of files below a directory, without what tells how long something took."""
    found = {}
    for file in sorted(path.rglob("*")):
        name = str(file.relative_to(path))
        if file.is_file() and file.name != "attempts.jsonl":
            content = file.read_bytes()
            if file.name in TIMED:
                content = b"".join(x for x in content.splitlines() if b'"seconds' not in x)
            found[name] = content
    return found
