"""Import a published folder, and make its run again."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import load_circuit_of
from circuitfind.directories.kinds import require_search
from circuitfind.directories.publication import is_taken, unpack, verified
from circuitfind.directories.results import RunResult, read_result
from circuitfind.directories.work import ENVIRONMENT, WorkDirectory, read_config
from circuitfind.errors import CircuitfindError, PublicationError
from circuitfind.files import path_of
from circuitfind.methods.base import Progress
from circuitfind.question import FOUND_ON, Models, located_model, require_same
from circuitfind.store import read_json
from circuitfind.verbs.discover import run_discovery


@dataclass(frozen=True)
class Repetition:
    """A published run beside the same run made again.

    Attributes:
        rows: What was compared: its name, as published, and here.
        same: Whether both have the same edges.
    """

    rows: tuple[tuple[str, str, str], ...]
    same: bool


def import_publication(
    folder: Path | str,
    out: Path | str,
    *,
    model: str | None = None,
) -> Circuit:
    """Verify a published folder and write its run into a directory of ours.

    Args:
        folder: A folder that `publish_run` wrote.
        out: The directory, new or empty.
        model: What `load_model` takes for the model here; by default as where it was published.

    Raises:
        PublicationError: A file is missing or not the one published, or `out` is not empty.
    """
    folder, out = path_of(folder), path_of(out)
    manifest, contents = verified(folder)
    if is_taken(folder, out):
        return load_circuit_of(out)
    if not WorkDirectory.is_fresh(out):
        raise PublicationError(f"{out} is not empty; choose another --out")
    try:
        here = None if model is None else located_model(model)
        unpack(folder, manifest, contents, out, here)
        return load_circuit_of(out)
    except (CircuitfindError, ValueError, LookupError, TypeError, AttributeError) as error:
        shutil.rmtree(out, ignore_errors=True)
        raise PublicationError(
            f"the run in {folder} cannot be used ({error}); ask who published it"
        ) from error


def rerun(
    path: Path,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda message: None,
) -> Repetition:
    """Make the run in a directory again, beside it, and compare both.

    Args:
        path: A run directory; the repetition is in `NAME-repeated`.
        on_progress: Called as the search proceeds.
        tell: Called with what a user should know.

    Raises:
        RunDirectoryError: It holds no search, or the model is another one here.
    """
    require_search(path)
    theirs, config = read_result(path), read_config(RunConfig, path)
    place, models = path.resolve(), Models(tell=tell)
    now = {"model_fingerprint": models.of(config).fingerprint}
    require_same(theirs.circuit.origin, now, f"the run in {path}", FOUND_ON)
    beside = place.with_name(f"{place.name}-repeated")
    ours = run_discovery(beside, config, models=models, on_progress=on_progress, tell=tell)
    rows = (*_versions(path, beside), *_differences(theirs, ours))
    return Repetition(rows, theirs.circuit.edges == ours.circuit.edges)


def _versions(theirs: Path, ours: Path) -> Iterator[tuple[str, str, str]]:
    """Yield what differs between the environments of two runs."""
    left, right = (_facts(path / ENVIRONMENT) for path in (theirs, ours))
    for name in sorted({*left, *right} - {"foreword"}):
        if left.get(name) != right.get(name):
            yield name, str(left.get(name, "-")), str(right.get(name, "-"))


def _facts(file: Path) -> dict[str, Any]:
    found = read_json(file)
    return found if isinstance(found, dict) else {}


def _differences(theirs: RunResult, ours: RunResult) -> Iterator[tuple[str, str, str]]:
    left, right = ({edge.name for edge in each.circuit.edges} for each in (theirs, ours))
    yield "edges", str(len(left)), str(len(right))
    yield "edges missing in the other", str(len(left - right)), str(len(right - left))
    for old, new in zip(theirs.card.measurements, ours.card.measurements, strict=False):
        yield f"faithfulness, {old.metric}", _number(old.faithfulness), _number(new.faithfulness)
    effects = [
        abs(a - b)
        for edge in theirs.circuit.edges
        if edge.name in right
        for a, b in [(theirs.circuit.effect(edge), ours.circuit.effect(edge))]
        if a is not None and b is not None
    ]
    if effects:
        yield "largest difference of an effect", "", f"{max(effects):.1e}"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.6f}"
