"""Find families of a run's prompts that share a circuit, and write down what came out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuitfind.budget import share_of
from circuitfind.circuit import Circuit
from circuitfind.comparison.families import Families
from circuitfind.directories.directory import digest_of, load_circuit_of
from circuitfind.directories.families import FamiliesConfig, FamiliesDirectory
from circuitfind.directories.naming import path_beside
from circuitfind.engine.incremental import as_engine
from circuitfind.evaluation.measured import Measured
from circuitfind.evaluation.passes import PassLog
from circuitfind.files import path_of
from circuitfind.methods.shortlist import EXACT
from circuitfind.problem import HasProblem
from circuitfind.progress import Checkpoint
from circuitfind.question import (
    Models,
    Question,
    fingerprints,
    held_out_again,
    problem_again,
)
from circuitfind.verbs.discover import origin_of
from circuitfind.verbs.family_search import UNION, Search, distinct


@dataclass(frozen=True)
class FoundFamilies:
    """Result of a search for families.

    Attributes:
        path: The directory that it was written to.
        families: The figures.
        written: The files.
    """

    path: Path
    families: Families
    written: tuple[Path, ...]


def families_of(
    asked: HasProblem,
    circuit: Circuit,
    held_out: HasProblem | None,
    settings: FamiliesConfig,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Families:
    """Find families without a directory; see `find_families`."""
    return _search(circuit, [asked, held_out], settings, None, on_progress).run()[0]


def _search(
    circuit: Circuit,
    asked: Sequence[HasProblem | None],
    settings: FamiliesConfig,
    log: PassLog | None,
    on_progress: Callable[[Checkpoint], None],
) -> Search:
    found = [distinct(each) for each in asked if each is not None]
    is_exact = settings.ranked_by == EXACT
    # A pass for each edge and one for the whole graph, or scores of each prompt.
    steps = [circuit.graph.n_edges + 1 if is_exact else len(numbers) for _, numbers in found]
    n_done, total = 0, sum(steps)
    memory = share_of(settings.memory, len(found))

    def count() -> None:
        nonlocal n_done
        n_done = min(n_done + 1, total)
        on_progress(Checkpoint(n_done, total, "passes" if is_exact else "scores"))

    own, *held_out = (
        Measured(as_engine(each, memory), on_pass=count, log=log) for each, _ in found
    )
    return Search(circuit, own, held_out[0] if held_out else None, settings, found[0][1])


def find_families(
    path: Path | str,
    settings: FamiliesConfig | None = None,
    out: Path | str | None = None,
    *,
    model: Any = None,
    tell: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> FoundFamilies:
    """Find families and write `families.json`, the circuit of each, their union and drawings.

    Scores and passes are kept as they are made, and found again if the work is repeated.

    Args:
        path: A run directory or a circuit file.
        settings: How to search.
        out: The directory to write to; by default `NAME-families` beside the circuit.
        model: What `load_model` returned or takes; by default what the run names.
        tell: Called with what a user should know.
        on_progress: Called as the work proceeds.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    path = path_of(path)
    circuit = load_circuit_of(path)
    config = replace(settings or FamiliesConfig(), circuits=(digest_of(circuit),))
    place = path_of_families(path, config) if out is None else path_of(out)
    directory = FamiliesDirectory.open(place, config)
    if (there := directory.result()) is not None:
        tell(f"{place} is finished: its results are read, not computed again")
        directory.drop_passes()
        return FoundFamilies(place, there, directory.files)
    problem = problem_again(circuit, path, Models(model, tell), device=config.device)
    asked = [problem, held_out_again(circuit, path, problem, tell)]
    with directory.measuring(fingerprints(problem), tell) as log:
        found, circuits = _search(circuit, asked, config, log, on_progress).run()
        origin = origin_of(Question.of(circuit, path), problem)
        named = {name: _said(name, each, origin, config) for name, each in circuits.items()}
        directory.write_result(found, named)
    return FoundFamilies(place, found, directory.files)


def _said(name: str, of: Circuit, origin: dict[str, Any], config: FamiliesConfig) -> Circuit:
    """Return a circuit that says where it comes from."""
    made = {
        "method": "families",
        "options": {
            "ranked_by": config.ranked_by,
            "target_faithfulness": config.target_faithfulness,
        },
        "family": f"{UNION} of all families" if name == UNION else name,
    }
    return replace(of, origin={**origin, **made})


def path_of_families(path: Path | str, settings: FamiliesConfig) -> Path:
    """Return the directory of a search for families unless the user names one."""
    default = FamiliesConfig()
    names = ("ranked_by", "families", "target_faithfulness", "seed")
    changed = {
        name.replace("_", "-"): value
        for name in names
        if (value := getattr(settings, name)) != getattr(default, name)
    }
    return path_beside(path_of(path), "families", changed)
