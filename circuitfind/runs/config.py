"""What identifies a run: two runs with equal configurations give the same circuit."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from circuitfind.errors import RunDirectoryError
from circuitfind.methods import find_method
from circuitfind.metrics import find_metric
from circuitfind.problem import ABLATIONS
from circuitfind.tasks import find_task

_PACKAGES = ("circuitfind", "torch", "transformer_lens", "transformers", "networkx", "numpy")


@dataclass(frozen=True)
class RunConfig:
    """A run's identity.

    Attributes:
        task: Name of a task, or the path of a .jsonl or .csv file.
        model: What `load_model` takes, as text.
        method: Name of the method.
        options: The method's options, by name.
        metric: Name of the metric.
        ablation: What a cut edge carries.
        n_prompts: How many pairs of prompts; a custom file may hold fewer.
        seed: Fixes the prompts and every random choice.
        dtype: Number type of the weights; None means that of the file.
        device: Where to compute.
        split_qkv: Whether a head's query, key and value are separate readers.
        split_embedding: Whether token and position embedding are separate writers.
    """

    task: str
    model: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "kl"
    ablation: str = "resample"
    n_prompts: int = 64
    seed: int = 0
    dtype: str | None = None
    device: str = "cpu"
    split_qkv: bool = True
    split_embedding: bool = False

    def validate(self) -> None:
        """Check every name and option before anything is loaded.

        Raises:
            CircuitfindError: One of them is unknown or impossible; the message lists the choices.
        """
        find_task(self.task)
        find_metric(self.metric)
        find_method(self.method).options(**self.options)
        if self.ablation not in ABLATIONS:
            raise RunDirectoryError(
                f"no ablation named {self.ablation!r}; choose one of {', '.join(ABLATIONS)}"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What must agree for two runs to be the same.

        Paths count by where they lead, the device not at all.
        """
        values = asdict(self)
        for name in ("task", "model"):
            path = Path(values[name])
            if path.exists():
                values[name] = str(path.resolve())
        del values["device"]
        return values

    def to_json(self) -> str:
        """Return the configuration as JSON text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def config_from(text: str) -> RunConfig:
    """Read a configuration back.

    Raises:
        RunDirectoryError: The text is no configuration.
    """
    try:
        values = json.loads(text)
        return RunConfig(**{item.name: values[item.name] for item in fields(RunConfig)})
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"the run's config.json cannot be read: {error}") from None


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
    return "" if there == here else f"{name} is {there} there and {here} here"


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
