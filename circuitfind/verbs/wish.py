"""Settings of an evaluation: the circuit, the question, and the directory."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import config_of_run, digest_of, load_circuit_of
from circuitfind.directories.evaluation import EvaluationConfig, EvaluationDirectory
from circuitfind.directories.kinds import content_kind
from circuitfind.directories.naming import path_beside
from circuitfind.directories.work import CIRCUIT, read_config
from circuitfind.errors import CircuitFileError, MethodError, quoted
from circuitfind.evaluation.assess import USUAL, Effort
from circuitfind.methods import METHODS
from circuitfind.question import settings_of
from circuitfind.records import from_json
from circuitfind.verbs.against import KNOWN


@dataclass(frozen=True)
class Wish:
    """Settings of an evaluation, as the user gives them.

    Attributes:
        effort: How much it may cost.
        against: A known circuit to compare with: `known`, a run directory or a circuit file.
        settings: Fields of `RunConfig` that the circuit's file does not hold, or that are to be
            others than those that it was found with.
        out: Where to write; by default the run directory, or one beside it or the circuit's file
            whose name follows the settings.
        seed: Fixes random circuits and sets.
        device: Where to compute.
        memory: How many bytes may be taken beside the model; by default what the search was
            allowed.
        constants: Whether constants are trained for what the circuit cuts.
    """

    effort: Effort = USUAL
    against: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    out: Path | None = None
    seed: int = 0
    device: str = "cpu"
    memory: int | None = None
    constants: bool = False


def path_of_evaluation(path: Path, wish: Wish) -> Path:
    """Return the directory of an evaluation unless the user names one.

    An evaluation with a run's own settings is written into its directory; others have directories
    beside it, whose names follow the settings.

    Raises:
        CircuitfindError: The circuit cannot be read, or a setting is impossible.
    """
    circuit = load_circuit_of(path)
    config = config_of(path, circuit, dict(wish.settings))
    asked = evaluation_config(path, circuit, config, wish)

    def is_free(place: Path) -> bool:
        return EvaluationDirectory.can_take(place, asked)

    changed = _changed(path, circuit, config, wish)
    own = path.is_dir() and not any(changed.values())
    first = path if own else path_beside(path, "evaluation", changed)
    if is_free(first):
        return first
    named = {**changed, "against": wish.against and Path(wish.against).stem}
    return path_beside(path, "evaluation", named, is_free)


def _changed(path: Path, circuit: Circuit, config: RunConfig, wish: Wish) -> dict[str, Any]:
    """Return the settings that are others than those that the circuit was found with."""
    there = settings_of(circuit)
    if path.is_dir() and content_kind(path) == "search":
        # Not checked: a file that they name may be gone, and be replaced by this wish.
        there = asdict(config_of_run(path, circuit))
    values = {
        name.removeprefix("n_"): value
        for name, value in wish.settings
        if name in there and there[name] != getattr(config, name)
    }
    if "task" in values:
        values["task"] = Path(values["task"]).stem
    if "model" in values:
        values["model"] = Path(values["model"]).name
    return {**values, "seed": wish.seed or None}


def evaluation_config(
    path: Path, circuit: Circuit, config: RunConfig, wish: Wish
) -> EvaluationConfig:
    """Return the settings of an evaluation of a circuit.

    Args:
        path: The run directory or the circuit file.
        circuit: Its circuit.
        config: What the circuit was found with, changed as wished.
        wish: How to evaluate.
    """
    against = wish.against
    if against not in (None, KNOWN):
        against = f"{Path(against).name} {digest_of(load_circuit_of(Path(against)))}"
    memory = config.memory if wish.memory is None else wish.memory
    return EvaluationConfig.extending(
        replace(config, device=wish.device, memory=memory),
        circuits=tuple(map(digest_of, (circuit, *siblings(path, config)))),
        of_a_run=path.is_dir(),
        evaluation_seed=wish.seed,
        effort=wish.effort.name,
        against=against,
        constants=wish.constants,
    )


def config_of(path: Path, circuit: Circuit, settings: dict[str, Any]) -> RunConfig:
    """Return what the circuit was found with, changed as asked for."""
    known = [field.name for field in fields(RunConfig)]
    if unknown := [name for name in settings if name not in known]:
        raise MethodError(
            f"a run has no setting {quoted(unknown[0])}; its settings are {', '.join(known)}"
        )
    if path.is_dir() and content_kind(path) == "search":
        found = config_of_run(path, circuit)
    else:
        found = _config_of_origin(path, circuit, settings)
    config = replace(found, **settings)
    if settings:
        config = replace(config, task_digest=None, ablation_digest=None)
    config.validate()
    return config.pinned()


def _config_of_origin(path: Path, circuit: Circuit, settings: dict[str, Any]) -> RunConfig:
    known = {field.name for field in fields(RunConfig)}
    origin = {
        name: value
        for name, value in settings_of(circuit).items()
        if name in known and value is not None
    }
    if METHODS.get(origin.get("method")) is None:
        # Found by patching, or elsewhere: nothing of the search is known here.
        origin |= {"method": "", "options": {}, "selection": {}}
    values = {**origin, **settings}
    missing = [name for name in ("task", "model") if values.get(name) is None]
    if missing:
        raise CircuitFileError(
            f"{path} does not say which {' and '.join(missing)} it is about; give "
            f"{' and '.join(f'--{name}' for name in missing)} to `circuitfind evaluate`, or both "
            "to `circuitfind import`, for every command"
        )
    graph = circuit.graph
    values |= {"split_qkv": graph.split_qkv, "split_embedding": graph.split_embedding}
    try:
        found: RunConfig = from_json(RunConfig, values, "its origin")
    except ValueError as error:
        raise CircuitFileError(f"the origin in {path} cannot be used: {error}") from None
    return found


def siblings(path: Path, config: RunConfig) -> tuple[Circuit, ...]:
    """Return the circuits of the same search at other thresholds, in directories beside it."""
    if not path.is_dir() or not path.name.startswith("threshold-"):
        return ()
    found = []
    for other in sorted(path.parent.glob("threshold-*")):
        if other.name == path.name or not (other / CIRCUIT).is_file():
            continue
        there = read_config(RunConfig, other)
        if not config.differences(there.at(config.threshold)):
            found.append(load_circuit_of(other))
    return tuple(found)
