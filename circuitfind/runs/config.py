"""What identifies a run: two runs with equal configurations give the same circuit."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from circuitfind.ablations import find_ablation
from circuitfind.errors import ModelError, RunDirectoryError, quoted
from circuitfind.files import read_bytes
from circuitfind.limits import require_fields
from circuitfind.methods import find_method
from circuitfind.methods.settings import (
    check_settings,
    completed,
    divided,
    known_method,
    size_asked,
    threshold_name,
)
from circuitfind.metrics import find_metric
from circuitfind.models.precision import DTYPES
from circuitfind.models.zoo import ZOO
from circuitfind.stored import parse_json
from circuitfind.tasks import find_task, task_file

DEVICES = ("cpu", "cuda")
SETTINGS = ("options", "selection")
"""Fields of `RunConfig` that hold the settings of the method."""

_PACKAGES = ("circuitfind", "torch", "transformer_lens", "transformers", "networkx", "numpy")


@dataclass(frozen=True)
class RunConfig:
    """A run's identity.

    Attributes:
        task: Name of a task, or the path of a .jsonl or .csv file.
        model: What `load_model` takes, as text.
        method: Name of the method; empty for a circuit that no method of the table found.
        options: The method's own options, by name. What belongs to the selection may be given
            here as well.
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
        selection: How edges are chosen, by name of the fields of `Selection`.
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
    selection: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.metric:
            object.__setattr__(self, "metric", find_task(self.task).metric)
        options, selection = divided(known_method(self.method), self.options, self.selection)
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "selection", selection)

    @property
    def threshold(self) -> float | None:
        """The threshold of the method or of the selection."""
        return size_asked(self.method, self.options, self.selection).get("threshold")

    @property
    def n_edges(self) -> int | None:
        """How many edges are asked for."""
        return size_asked(self.method, self.options, self.selection).get("n_edges")

    def at(self, threshold: float | None) -> "RunConfig":
        """Return the same settings with another threshold."""
        name = threshold_name(find_method(self.method)) or "threshold"
        return replace(self, options={**self.options, name: threshold})

    def validate(self, *, any_threshold: bool = False) -> None:
        """Check every name and option before anything is loaded.

        Args:
            any_threshold: Whether the threshold is found later, so that it is not asked for.

        Raises:
            CircuitfindError: One of them is unknown or impossible; the message lists the choices.
        """
        find_task(self.task)
        find_metric(self.metric)
        if self.method:
            check_settings(self.method, self.options, self.selection, any_threshold=any_threshold)
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
        if not self.method:
            return self.located()
        options, selection = completed(self.method, self.options, self.selection, self.seed)
        return replace(self.located(), options=options, selection=selection)

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
            raise ValueError("it is not a JSON object")
        # Earlier versions stored the selection among the options.
        values = {"selection": {}, **values}
        if missing := sorted({item.name for item in fields(RunConfig)} - set(values)):
            raise ValueError(f"it has no {quoted(missing[0])}")
        _require_kinds(values)
        return RunConfig(**values)
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
    there, here = (
        {**config.selection, **config.options, **_without_settings(config.identity)}
        for config in (found, wanted)
    )
    lines = [_difference(name, there.get(name), here.get(name)) for name in {**there, **here}]
    return [line for line in lines if line]


def _without_settings(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in SETTINGS}


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
