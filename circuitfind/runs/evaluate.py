"""Evaluate the circuit of a run, or of a file, and write down what came out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit, EdgeScores, require_same_graph
from circuitfind.comparison.roles import groups
from circuitfind.errors import (
    CircuitFileError,
    GraphError,
    MethodError,
    MetricError,
    quoted,
)
from circuitfind.evaluation.assess import FULL, QUICK, USUAL, Effort, Subject, assess
from circuitfind.evaluation.assessment import Assessment
from circuitfind.evaluation.cuts import removable
from circuitfind.evaluation.roc import roc_curves
from circuitfind.evaluation.size_curve import Ranking, ranked_by_effect, ranked_by_score
from circuitfind.methods import METHODS
from circuitfind.methods.base import circuit_of
from circuitfind.models.base import ResidualModel
from circuitfind.problem import Problem
from circuitfind.runs.again import model_again, settings_of
from circuitfind.runs.against import known_circuit
from circuitfind.runs.config import RunConfig, config_from, differences
from circuitfind.runs.decisions import read_decisions
from circuitfind.runs.directory import (
    CIRCUIT,
    CONFIG,
    DECISIONS,
    load_circuit_of,
    reported,
)
from circuitfind.runs.discover import held_out_problem, problem_of
from circuitfind.runs.evaluation_files import (
    drop_passes,
    kept_passes,
    require_replaceable,
    write_assessment,
)
from circuitfind.runs.kinds import kind_of
from circuitfind.runs.roles import measured_roles, read_roles, roles_file

STEPWISE = ("acdc", "hybrid")
"""Methods that decide edge by edge, so that the circuits of several thresholds are not nested."""


@dataclass(frozen=True)
class Wish:
    """How a circuit is to be evaluated.

    Attributes:
        effort: How much it may cost.
        against: A known circuit to compare with: `known`, a run directory or a circuit file.
        settings: Fields of `RunConfig` that the circuit's file does not hold, or that are to be
            others than those that it was found with.
        out: Where to write; by default the run directory, or one beside the circuit's file.
        seed: Fixes random circuits and sets.
        device: Where to compute.
    """

    effort: Effort = USUAL
    against: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    out: Path | None = None
    seed: int = 0
    device: str = "cpu"


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
    """What an evaluation gave.

    Attributes:
        path: The directory that it was written to.
        assessment: The figures.
        written: The files.
    """

    path: Path
    assessment: Assessment
    written: tuple[Path, ...]


def evaluate_run(
    path: Path,
    wish: Wish | None = None,
    *,
    model: Any = None,
    load: Callable[[RunConfig], ResidualModel] | None = None,
    tell: Callable[[str], None] = lambda message: None,
    on_pass: Callable[[float, int], None] = lambda done, total: None,
) -> Evaluated:
    """Evaluate a circuit and write `scorecard.json` and the charts.

    Passes are kept as they are made, and found again if the evaluation is interrupted and repeated.

    Args:
        path: A run directory or a circuit file.
        wish: How.
        model: What `load_model` returned or takes; by default what the run or the wish names.
        load: Returns the model of a configuration, in place of `model`.
        tell: Called with the cost before it is paid, and with other things to know.
        on_pass: Called with the passes made and to be made.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    wish = wish or Wish()
    circuit = load_circuit_of(path)
    config = replace(_config(path, circuit, dict(wish.settings)), device=wish.device)
    model = load(config) if load else _model(config, model)
    problem = problem_of(config, model, seed=config.seed)
    _require_fit(path, circuit, problem, own=not wish.settings)
    subject = _subject(path, circuit, config, problem, wish.against)
    subject = replace(subject, held_out=held_out_problem(config, model))
    out = wish.out or _default_out(path)
    require_replaceable(out, subject, wish.effort)
    with kept_passes(out, tell) as log:
        subject = replace(subject, roles=_roles(path, wish, subject, tell))
        assessment = assess(
            subject, wish.effort, seed=wish.seed, tell=tell, on_pass=on_pass, log=log
        )
        written = write_assessment(out, assessment)
    drop_passes(out)
    return Evaluated(out, assessment, written)


def _model(config: RunConfig, given: Any) -> ResidualModel:
    return model_again(config.model, given, dtype=config.dtype, device=config.device)


def _roles(
    path: Path, wish: Wish, subject: Subject, tell: Callable[[str], None]
) -> Mapping[str, tuple[str, ...]]:
    """Return which of the circuit's components share a role, measured or read."""
    if not wish.effort.edges:
        return {}
    own = not wish.settings and path.is_dir()
    found = read_roles(roles_file(path), subject.circuit) if own else None
    if found is None:
        file = roles_file(path) if own and wish.out is None else None
        try:
            found = measured_roles(subject.problem, file, tell)
        except MetricError as error:
            tell(f"no roles of heads: {error}")
            return {}
    return groups(found, removable(subject.circuit))


def _config(path: Path, circuit: Circuit, settings: dict[str, Any]) -> RunConfig:
    """Return what the circuit was found with, changed as asked for."""
    known = [field.name for field in fields(RunConfig)]
    if unknown := [name for name in settings if name not in known]:
        raise MethodError(
            f"a run has no setting {quoted(unknown[0])}; its settings are {', '.join(known)}"
        )
    if path.is_dir() and kind_of(path) == "search":
        with reported(path):
            found = config_from(path / CONFIG)
    else:
        found = _config_of_origin(path, circuit, settings)
    config = replace(found, **settings)
    if settings:
        config = replace(config, task_digest=None)
    config.validate()
    return config.pinned()


def _config_of_origin(path: Path, circuit: Circuit, settings: dict[str, Any]) -> RunConfig:
    known = {field.name for field in fields(RunConfig)}
    origin = {
        name: value
        for name, value in settings_of(circuit).items()
        if name in known and value is not None
    }
    if all(method.name != origin.get("method") for method in METHODS):
        # Found by patching, or elsewhere: nothing of the search is known here.
        origin |= {"method": "random", "options": {"n_edges": circuit.n_edges}}
    values = {**origin, **settings}
    missing = [name for name in ("task", "model") if values.get(name) is None]
    if missing:
        raise CircuitFileError(
            f"{path} does not say which {' and '.join(missing)} it is about; give "
            f"{' and '.join(f'--{name}' for name in missing)}"
        )
    graph = circuit.graph
    values |= {"split_qkv": graph.split_qkv, "split_embedding": graph.split_embedding}
    try:
        return RunConfig(**values)
    except TypeError as error:
        raise CircuitFileError(f"the origin in {path} cannot be used: {error}") from None


def _require_fit(path: Path, circuit: Circuit, problem: Problem, *, own: bool) -> None:
    """Refuse to evaluate a circuit on a model that it does not belong to.

    Raises:
        CircuitFileError: The graphs differ, or the model is no longer what it was.
    """
    try:
        require_same_graph(circuit.graph, problem.graph)
    except GraphError as error:
        raise CircuitFileError(f"the circuit in {path} does not fit the model: {error}") from None
    fingerprint = circuit.origin.get("model_fingerprint")
    if own and fingerprint is not None and fingerprint != problem.model.fingerprint:
        raise CircuitFileError(
            f"the weights of {problem.model.name!r} are no longer those that the circuit in {path} "
            "was found in; restore them, or name the model (--model) to evaluate it there"
        )


def _subject(
    path: Path, circuit: Circuit, config: RunConfig, problem: Problem, against: str | None
) -> Subject:
    others, scores = _siblings(path, config), _scores(path, circuit, config)
    stepwise = config.method in STEPWISE
    subject = Subject(circuit, problem, others=others)
    if scores is not None and not others:
        subject = replace(subject, ranking=_ranking(circuit, scores, config))
    if against is None:
        return subject
    truth = known_circuit(against, problem, config.task)
    by = "threshold" if others else "circuit" if stepwise or scores is None else "score"
    ranked = scores if by == "score" else None
    curves = roc_curves(truth, circuit, others=others, scores=ranked, by=by)
    return replace(subject, roc=curves, against=truth.name)


def _scores(path: Path, circuit: Circuit, config: RunConfig) -> EdgeScores | None:
    """Return what the run's decisions say of all edges, where there is such a file."""
    file = path / DECISIONS
    decisions = read_decisions(file) if file.is_file() else ()
    if not decisions:
        return None
    decided = circuit_of(circuit.graph, decisions)
    assert decided.effects is not None
    return EdgeScores(circuit.graph, decided.effects, "", config.method)


def _ranking(circuit: Circuit, scores: EdgeScores, config: RunConfig) -> Ranking:
    if config.method in STEPWISE:
        return ranked_by_effect(replace(circuit, effects=scores.values))
    return ranked_by_score(scores, signed=bool(config.options.get("signed")))


def _siblings(path: Path, config: RunConfig) -> tuple[Circuit, ...]:
    """Return the circuits of the same search at other thresholds, in directories beside it."""
    if not path.is_dir() or not path.name.startswith("threshold-"):
        return ()
    found = []
    for other in sorted(path.parent.glob("threshold-*")):
        if other.name == path.name or not (other / CIRCUIT).is_file():
            continue
        there = config_from(other / CONFIG)
        alike = replace(there, options={**there.options, **_threshold(config)})
        if not differences(alike, config):
            found.append(load_circuit_of(other))
    return tuple(found)


def _threshold(config: RunConfig) -> dict[str, Any]:
    return {"threshold": config.options.get("threshold")}


def _default_out(path: Path) -> Path:
    return path if path.is_dir() else path.with_name(f"{path.stem}-evaluation")
