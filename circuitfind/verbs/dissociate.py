"""Knock the circuits of several runs of one model out of it, and measure every run's task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuitfind.directories.dissociation import DissociationConfig, DissociationDirectory
from circuitfind.directories.naming import default_path
from circuitfind.errors import PromptError, require_kind
from circuitfind.evaluation.dissociate import TEXT, Design, Member, dissociate
from circuitfind.evaluation.dissociation import Dissociation
from circuitfind.evaluation.text import text_problem
from circuitfind.files import path_of, read_text
from circuitfind.progress import Checkpoint
from circuitfind.question import (
    Models,
    Question,
    fingerprints,
    held_out_again,
    problem_again,
)
from circuitfind.verbs.compare import load_all
from circuitfind.verbs.comparison_pairs import Loaded

_SMALL_P = 0.05


@dataclass(frozen=True)
class Dissociated:
    """Result of a dissociation.

    Attributes:
        path: The directory that it was written to.
        dissociation: The figures.
        written: The files.
    """

    path: Path
    dissociation: Dissociation
    written: tuple[Path, ...]


def dissociate_runs(
    paths: Sequence[Path | str],
    settings: DissociationConfig | None = None,
    out: Path | str | None = None,
    *,
    model: Any = None,
    tell: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Dissociated:
    """Knock circuits out of their model and write `dissociation.json`, a table and a matrix.

    Passes are kept as they are made, and found again if the work is interrupted and repeated.

    Args:
        paths: Run directories or circuit files of one model, two or more.
        settings: How to measure.
        out: The directory to write to; by default one named by the circuits.
        model: What `load_model` returned or takes; by default what the runs name.
        tell: Called with the cost before it is paid, and with other things to know.
        on_progress: Called as passes are made.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    require_kind(paths, (list, tuple), "run directories; give a list of paths")
    loaded = load_all([path_of(path) for path in paths])
    config = _of(loaded, settings)
    path = path_of_dissociation(paths, config) if out is None else path_of(out)
    directory = DissociationDirectory.open(path, config)
    if (there := directory.result()) is not None:
        tell(f"{path} is finished: its results are read, not computed again")
        directory.drop_passes()
        return Dissociated(path, there, directory.files)
    models = Models(model, tell)
    members = [
        _member(each, name, models, config.device) for each, name in _named(loaded, config.text)
    ]
    first = members[0]
    other = None
    if config.text is not None:
        text = read_unrelated(config.text)
        other = text_problem(first.problem.model, first.circuit.graph, text)
    design = Design(members, other, config.own_edges, config.draws, config.seed)
    tell(f"{design.n_passes} passes: {len(members)} circuits, {config.draws} random ones for each")
    if (least := 1 / (config.draws + 1)) >= _SMALL_P:
        tell(f"warning: with so few random circuits p is at least {least:.2g}; give --draws 20")
    with directory.measuring(_facts(members), tell) as log:
        found = dissociate(design, memory=config.memory, log=log, on_progress=on_progress)
        directory.write_result(found)
    return Dissociated(path, found, directory.files)


def path_of_dissociation(paths: Sequence[Path | str], settings: DissociationConfig) -> Path:
    """Return the directory of a dissociation unless the user names one.

    Raises:
        CircuitfindError: A circuit cannot be read.
    """
    loaded = load_all([path_of(path) for path in paths])
    config = _of(loaded, settings)
    about = ["dissociation", *(each.name.replace("/", "-") for each in loaded)]
    changed = {
        "own-edges": config.own_edges,
        "text": config.text and Path(config.text).stem,
        "draws": config.draws if config.draws != DissociationConfig.draws else None,
        "seed": config.seed or None,
    }
    return default_path(about, changed, lambda path: DissociationDirectory.can_take(path, config))


def read_unrelated(path: Path | str) -> str:
    """Return a file of unrelated text.

    Raises:
        PromptError: It cannot be read, or is not text.
    """
    try:
        return read_text(path_of(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PromptError(
            f"the text {path} cannot be read ({why}); give a file of plain text"
        ) from None


def _of(loaded: Sequence[Loaded], settings: DissociationConfig | None) -> DissociationConfig:
    found = settings or DissociationConfig()
    if found.text is not None:
        read_unrelated(found.text)
    return replace(found, circuits=tuple(each.digest for each in loaded))


def _named(loaded: Sequence[Loaded], text: str | None) -> list[tuple[Loaded, str]]:
    """Return the circuits with the names of their tasks, or with their own where two share one."""
    tasks = [Path(Question.of(each.circuit, each.path).task).stem for each in loaded]
    is_clear = len(set(tasks)) == len(tasks) and (text is None or TEXT not in tasks)
    names = tasks if is_clear else [each.name for each in loaded]
    return list(zip(loaded, names, strict=True))


def _member(each: Loaded, name: str, models: Models, device: str) -> Member:
    """Return a circuit with its task, on held-out prompts where there are any."""
    circuit, path = each.circuit, each.path
    problem = problem_again(circuit, path, models, device=device)
    held_out = held_out_again(
        circuit, path, problem, lambda message: models.tell(f"{name}: {message}")
    )
    if held_out is None:
        return Member(name, circuit, problem, "discovery")
    return Member(name, circuit, held_out, "held-out")


def _facts(members: Sequence[Member]) -> dict[str, str]:
    """Return the fingerprints of the model, and of the prompts of all tasks."""
    every = [fingerprints(member.problem) for member in members]
    prompts = " ".join(each["prompts_fingerprint"] for each in every)
    return {**every[0], "prompts_fingerprint": prompts}
