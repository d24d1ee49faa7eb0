"""Find rivals of a circuit of a run, or of a file, and write down what came out."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuitfind.budget import share_of
from circuitfind.circuit import Circuit
from circuitfind.comparison.rivals import Rivals
from circuitfind.directories.attempts import Attempts
from circuitfind.directories.directory import digest_of, load_circuit_of
from circuitfind.directories.naming import path_beside
from circuitfind.directories.rivals import RivalsConfig, RivalsDirectory
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.evaluation.measured import Measured
from circuitfind.evaluation.passes import PassLog
from circuitfind.files import path_of
from circuitfind.problem import HasProblem
from circuitfind.progress import Checkpoint
from circuitfind.question import (
    Models,
    Question,
    fingerprints,
    held_out_again,
    problem_again,
)
from circuitfind.verbs.contest import Contest
from circuitfind.verbs.discover import origin_of


@dataclass(frozen=True)
class FoundRivals:
    """Result of a search for rivals.

    Attributes:
        path: The directory that it was written to.
        rivals: The figures.
        written: The files.
    """

    path: Path
    rivals: Rivals
    written: tuple[Path, ...]


def rivals_of(
    asked: HasProblem,
    circuit: Circuit,
    held_out: HasProblem | None,
    settings: RivalsConfig,
    tell: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Rivals:
    """Find rivals without a directory; see `find_rivals`."""
    others = None if held_out is None else Measured(held_out)
    attempts = Attempts(circuit.graph)
    contest = Contest(circuit, Measured(asked), others, settings, attempts, on_progress)
    tell(contest.cost)
    return contest.run()[0]


def find_rivals(
    path: Path | str,
    settings: RivalsConfig | None = None,
    out: Path | str | None = None,
    *,
    model: Any = None,
    tell: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> FoundRivals:
    """Find rivals of a circuit and write `rivals.json`, the one that shares least and a drawing.

    Restarts and passes are kept as they are made, and found again if the work is repeated.

    Args:
        path: A run directory or a circuit file.
        settings: How to search.
        out: The directory to write to; by default `NAME-rivals` beside the circuit.
        model: What `load_model` returned or takes; by default what the run names.
        tell: Called with the cost before it is paid, and with other things to know.
        on_progress: Called as the work proceeds.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    path = path_of(path)
    circuit = load_circuit_of(path)
    config = replace(settings or RivalsConfig(), circuits=(digest_of(circuit),))
    place = path_of_rivals(path, config) if out is None else path_of(out)
    directory = RivalsDirectory.open(place, config)
    if (there := directory.result()) is not None:
        tell(f"{place} is finished: its results are read, not computed again")
        directory.drop_passes()
        return FoundRivals(place, there, directory.files)
    problem = problem_again(circuit, path, Models(model, tell), device=config.device)
    question = Question.of(circuit, path)
    other = held_out_again(circuit, path, problem, tell)

    memory = share_of(config.memory, 1 if other is None else 2)

    def measuring(asked: Any, log: PassLog) -> Measured:
        return Measured(IncrementalEngine(asked, memory), log=log)

    with (
        directory.measuring(fingerprints(problem), tell) as log,
        closing(Attempts(circuit.graph, place)) as attempts,
    ):
        others = None if other is None else measuring(other, log)
        contest = Contest(circuit, measuring(problem, log), others, config, attempts, on_progress)
        tell(contest.cost)
        for line in attempts.told:
            tell(line)
        found, rivals = contest.run()
        origin = {**origin_of(question, problem), "method": "rivals"}
        rivals = [replace(each, origin=origin) for each in rivals]
        directory.write_result(found, circuit, rivals)
    return FoundRivals(place, found, directory.files)


def path_of_rivals(path: Path | str, settings: RivalsConfig) -> Path:
    """Return the directory of a search for rivals unless the user names one."""
    changed = {
        "restarts": settings.restarts if settings.restarts != RivalsConfig.restarts else None,
        "threshold": settings.threshold,
        "tolerance": settings.tolerance or None,
        "seed": settings.seed or None,
    }
    return path_beside(path_of(path), "rivals", changed)
