"""Evaluate the circuit of a run, or of a file, and write down what came out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuitfind.ablations import Ablation
from circuitfind.circuit import Circuit, EdgeScores, require_same_graph
from circuitfind.comparison.roles import groups
from circuitfind.constant_files import ablation_of, content_of
from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import effects_of, load_circuit_of
from circuitfind.directories.evaluation import CONSTANTS, EvaluationDirectory
from circuitfind.engine.constants import learned_constants
from circuitfind.errors import (
    CircuitFileError,
    GraphError,
    MethodError,
    MetricError,
)
from circuitfind.evaluation.assess import FULL, QUICK, USUAL, Effort, Subject, assess
from circuitfind.evaluation.assessment import Assessment
from circuitfind.evaluation.cuts import removable
from circuitfind.evaluation.roc import roc_curves
from circuitfind.evaluation.size_curve import Ranking, ranked_by_effect, ranked_by_score
from circuitfind.files import path_of
from circuitfind.methods import METHODS
from circuitfind.methods.base import ScoringMethod
from circuitfind.problem import Problem
from circuitfind.progress import Checkpoint
from circuitfind.question import Models, fingerprints, require_same
from circuitfind.verbs.against import known_circuit
from circuitfind.verbs.roles import measured_roles, read_roles, roles_file
from circuitfind.verbs.wish import (
    Wish,
    config_of,
    evaluation_config,
    path_of_evaluation,
    siblings,
)

_ELSEWHERE = "restore it, or name the model (--model) to evaluate the circuit there"


def effort_of(*, quick: bool, full: bool) -> Effort:
    """Return how much an evaluation may cost.

    Raises:
        MethodError: Both extremes are asked for.
    """
    if quick and full:
        raise MethodError("--quick and --full exclude one another; give one of them, or none")
    return QUICK if quick else FULL if full else USUAL


@dataclass(frozen=True)
class Evaluated:
    """Result of an evaluation.

    Attributes:
        path: The directory that it was written to.
        assessment: The figures.
        written: The files.
    """

    path: Path
    assessment: Assessment
    written: tuple[Path, ...]


def evaluate_run(
    path: Path | str,
    wish: Wish | None = None,
    *,
    model: Any = None,
    tell: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Evaluated:
    """Evaluate a circuit and write `evaluation.json` and the charts.

    Passes are kept as they are made, and found again if the evaluation is interrupted and repeated.
    An evaluation that is there, or a fuller one, is read and not computed again.

    Args:
        path: A run directory or a circuit file.
        wish: How.
        model: What `load_model` returned or takes; by default what the run or the wish names.
        tell: Called with the cost before it is paid, and with other things to know.
        on_progress: Called as passes are made.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    path, wish = path_of(path), wish or Wish()
    circuit = load_circuit_of(path)
    run = config_of(path, circuit, dict(wish.settings))
    config = evaluation_config(path, circuit, run, wish)
    out = wish.out or path_of_evaluation(path, wish)
    directory = EvaluationDirectory.open(out, config)
    if (found := directory.result()) is not None:
        there, assessment = found
        done = "finished" if there.effort == config.effort else f"there already ({there.effort})"
        tell(f"the evaluation in {out} is {done}: its results are read, not computed again")
        if wish.constants and not (out / CONSTANTS).is_file():
            tell(f"{out / CONSTANTS} is gone; give another --out to train it again")
        directory.drop_passes()
        return Evaluated(out, assessment, directory.files(assessment))
    model = Models(model, tell).again(config)
    # Units were chosen by the search. Chosen anew, with other settings, they would be others.
    graph = circuit.graph if circuit.graph.units else None
    problem = config.problem(model, graph=graph)
    _require_fit(path, circuit, problem, own=not wish.settings)
    subject = _subject(path, circuit, run, problem, wish.against)
    subject = replace(subject, held_out=config.held_out(model, graph, tell))
    with directory.measuring(fingerprints(problem), tell) as log:
        subject = replace(subject, roles=_roles(path, out, wish, subject, tell))
        if wish.constants:
            subject = replace(subject, constants=_constants(directory, subject, tell))
        assessment = assess(
            subject,
            wish.effort,
            seed=wish.seed,
            tell=tell,
            on_progress=on_progress,
            log=log,
            memory=config.memory,
        )
        directory.write_result(assessment)
    directory.drop_passes()
    return Evaluated(out, assessment, directory.files(assessment))


def _constants(
    directory: EvaluationDirectory, subject: Subject, tell: Callable[[str], None]
) -> Ablation:
    """Return the constants of a circuit: those that are there, or else trained ones."""
    file, problem = directory.path / CONSTANTS, subject.problem
    if file.is_file():
        tell(f"the constants in {file} are read, not trained again")
        return ablation_of(str(file), problem.model, problem.graph)
    tell("training the constants of the circuit, at most about 125 passes forward and back")
    trained = learned_constants(problem, subject.circuit)
    directory.write(CONSTANTS, content_of(trained))
    return trained


def _roles(
    path: Path, out: Path, wish: Wish, subject: Subject, tell: Callable[[str], None]
) -> Mapping[str, tuple[str, ...]]:
    """Return which of the circuit's components share a role, measured or read."""
    if not wish.effort.edges:
        return {}
    own = not wish.settings and path.is_dir()
    found = read_roles(roles_file(path), subject.circuit) if own else None
    if found is None:
        file = roles_file(path) if own and out == path else None
        try:
            found = measured_roles(subject.problem, file, tell)
        except MetricError as error:
            tell(f"no roles of heads: {error}")
            return {}
    return groups(found, removable(subject.circuit))


def _require_fit(path: Path, circuit: Circuit, problem: Problem, *, own: bool) -> None:
    """Refuse to evaluate a circuit on a model that it does not belong to.

    Raises:
        CircuitFileError: The graphs differ.
        RunDirectoryError: The model is no longer what it was.
    """
    try:
        require_same_graph(circuit.graph, problem.graph)
    except GraphError as error:
        raise CircuitFileError(f"the circuit in {path} does not fit the model: {error}") from None
    if own:
        now = fingerprints(problem)
        # A circuit may be evaluated on other prompts.
        del now["prompts_fingerprint"]
        require_same(circuit.origin, now, f"the circuit in {path}", _ELSEWHERE)


def _subject(
    path: Path, circuit: Circuit, config: RunConfig, problem: Problem, against: str | None
) -> Subject:
    others, scores = siblings(path, config), _scores(path, circuit, config)
    subject = Subject(circuit, problem, others=others)
    if scores is not None and not others:
        subject = replace(subject, ranking=_ranking(circuit, scores, config))
    if against is None:
        return subject
    truth = known_circuit(against, problem, config.task)
    by = "threshold" if others else "score" if scores is not None and _ranks(config) else "circuit"
    ranked = scores if by == "score" else None
    curves = roc_curves(truth, circuit, others=others, scores=ranked, by=by)
    return replace(subject, roc=curves, against=truth.name)


def _scores(path: Path, circuit: Circuit, config: RunConfig) -> EdgeScores | None:
    """Return what the run's decisions say of all edges, where there is such a file."""
    effects = effects_of(path, circuit) if path.is_dir() else None
    return None if effects is None else EdgeScores(circuit.graph, effects, "", config.method)


def _ranking(circuit: Circuit, scores: EdgeScores, config: RunConfig) -> Ranking:
    if _ranks(config):
        return ranked_by_score(scores, signed=bool(config.selection.get("signed")))
    return ranked_by_effect(replace(circuit, effects=scores.values))


def _ranks(config: RunConfig) -> bool:
    """Return whether the method ranks all edges, so that its circuits of any size are nested."""
    return isinstance(METHODS.get(config.method), ScoringMethod)
