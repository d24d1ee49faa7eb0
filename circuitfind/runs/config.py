"""What identifies a run: two runs with equal configurations give the same circuit."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from circuitfind.ablations import find_ablation
from circuitfind.errors import MethodError, ModelError, RunDirectoryError, quoted
from circuitfind.files import read_bytes
from circuitfind.limits import require_fields
from circuitfind.methods import find_method
from circuitfind.metrics import find_metric
from circuitfind.models.precision import DTYPES
from circuitfind.models.zoo import ZOO
from circuitfind.stored import parse_json
from circuitfind.tasks import find_task, task_file

DEVICES = ("cpu", "cuda")
_PACKAGES = ("circuitfind", "torch", "transformer_lens", "transformers", "networkx", "numpy")


@dataclass(frozen=True)
class RunConfig:
    """A run's identity.

    Attributes:
        task: Name of a task, or the path of a .jsonl or .csv file.
        model: What `load_model` takes, as text.
        method: Name of the method.
        options: The method's options, by name.
        metric: Name of the metric; the task's own unless given.
        ablation: What a cut edge carries.
        n_prompts: How many pairs of prompts; a custom file may hold fewer.
        seed: Fixes the prompts and every random choice.
        dtype: Number type of the weights; None means that of the file.
        device: Where to compute.
        memory: How many bytes a search may take beside the model; None is what it takes.
        split_qkv: Whether a head's query, key and value are separate readers.
        split_embedding: Whether token and position embedding are separate writers.
        task_digest: A hash of the task's file, where it has one, so that an edited file is
            another run; filled in by `pinned`.
        automatic: Whether the program chose the threshold. Two runs that differ in nothing else are
            the same.
    """

    task: str
    model: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    metric: str = ""
    ablation: str = "resample"
    n_prompts: int = 64
    seed: int = 0
    dtype: str | None = None
    device: str = "cpu"
    memory: int | None = None
    split_qkv: bool = True
    split_embedding: bool = False
    task_digest: str | None = None
    automatic: bool = False

    def __post_init__(self) -> None:
        if not self.metric:
            object.__setattr__(self, "metric", find_task(self.task).metric)

    def validate(self) -> None:
        """Check every name and option before anything is loaded.

        Raises:
            CircuitfindError: One of them is unknown or impossible; the message lists the choices.
        """
        find_task(self.task)
        find_metric(self.metric)
        check_options(self.method, self.options)
        find_ablation(self.ablation)
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ModelError(
                f"no number type named {quoted(self.dtype)}; choose one of {', '.join(DTYPES)}"
            )

        if self.device.partition(":")[0] not in DEVICES:
            raise ModelError(
                f"no device named {quoted(self.device)}; choose {' or '.join(DEVICES)}"
            )
        require_fields(self)

    def pinned(self) -> "RunConfig":
        """Return the same settings in a form that means the same everywhere and later on.

        Files are named by their absolute path, the task's file also by its content, and options
        that were not given have their defaults.
        """
        return replace(self.located(), options=_complete(self.method, self.options, self.seed))

    def located(self) -> "RunConfig":
        """Return the same settings with files named by absolute path and content."""
        file, model = task_file(self.task), Path(self.model)
        return replace(
            self,
            task=self.task if file is None else str(file.resolve()),
            task_digest=None if file is None else _digest(file),
            model=str(model.resolve()) if self.model not in ZOO and model.exists() else self.model,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What must agree for two runs to be the same: all but where and in what they ran."""
        values = asdict(self)
        del values["device"], values["memory"], values["automatic"]
        return values

    def to_json(self) -> str:
        """Return the configuration as JSON text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def _complete(method: str, options: Mapping[str, Any], seed: int) -> dict[str, Any]:
    kind = find_method(method).options
    known = fields(kind)
    defaults = {option.name: option.default for option in known if option.default is not MISSING}
    if "seed" in defaults:
        defaults["seed"] = seed
    values = {**defaults, **options}
    if values.get("order") is not None:
        # What a file of an order says, not where it lies: an edited file is another run.
        order = kind(**values).order
        values["order"] = order if isinstance(order, str) else list(order)
    return values


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a method does not have, or whose values are impossible.

    Raises:
        MethodError: The method or an option is unknown, or a value is impossible.
    """
    found = find_method(method)
    known = {option.name: option.default is MISSING for option in fields(found.options)}
    for name in options:
        if name not in known:
            raise MethodError(
                f"the method {quoted(method)} has no option {quoted(name)}; its options are "
                f"{', '.join(known)}"
            )
    for name, required in known.items():
        if required and name not in options:
            raise MethodError(
                f"the method {quoted(method)} needs the option {quoted(name)}; give it"
            )
    found.options(**options)


def _digest(file: Path) -> str:
    return hashlib.sha256(read_bytes(file)).hexdigest()[:16]


def config_from(path: Path) -> RunConfig:
    """Read a configuration back from a file.

    Raises:
        RunDirectoryError: The file holds no configuration.
        OSError: The file cannot be read.
    """
    try:
        values = parse_json(read_bytes(path))
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        if missing := sorted({item.name for item in fields(RunConfig)} - set(values)):
            raise ValueError(f"it has no {quoted(missing[0])}")
        _require_kinds(values)
        return RunConfig(**{**values, "options": dict(values["options"])})
    except (ValueError, TypeError) as error:
        raise RunDirectoryError(
            f"{path} is damaged ({error}); choose another --out, or delete the directory to begin "
            "again"
        ) from None


def _require_kinds(values: Mapping[str, Any]) -> None:
    for name, hint in get_type_hints(RunConfig).items():
        kinds = get_args(hint) if isinstance(hint, UnionType) else (get_origin(hint) or hint,)
        value = values[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"its {name} is {quoted(value)}")


def differences(found: RunConfig, wanted: RunConfig) -> list[str]:
    """Say which settings of two configurations differ: `seed is 0 there and 1 here`."""
    there, here = found.identity, wanted.identity
    options = sorted({*there["options"], *here["options"]})
    lines = [
        _difference(name, there["options"].get(name), here["options"].get(name)) for name in options
    ]
    lines += [_difference(name, there[name], here[name]) for name in there if name != "options"]
    return list(dict.fromkeys(line for line in lines if line))


def _difference(name: str, there: Any, here: Any) -> str:
    if there == here:
        return ""
    if name == "task_digest":
        return "the task's file has changed since"
    if isinstance(there, list) or isinstance(here, list):
        return f"its {name} is another"
    there, here = ("not given" if value is None else value for value in (there, here))
    return f"{name} is {there} there and {here} here"


def environment() -> dict[str, str]:
    """Return the versions that a result depends on."""
    import platform

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
