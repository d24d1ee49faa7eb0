"""Runs that a file asks for, checked as a whole: what files of sweeps and of suites share.

Everything that is wrong with the file is said at once, before anything runs. Every run has a name
that says what it is, and a directory of that name.
"""

import math
import re
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, get_args

from circuitfind.budget import allowed_bytes
from circuitfind.constant_files import constants_file
from circuitfind.dictionaries.units import EMBEDDED
from circuitfind.directories.config import RunConfig
from circuitfind.errors import CircuitfindError, LimitError, PluginError, SweepError, quoted
from circuitfind.files import read_bytes
from circuitfind.limits import require
from circuitfind.methods import METHODS
from circuitfind.methods.order import NamedOrder
from circuitfind.methods.settings import parsed_settings
from circuitfind.models.pretrained import PRETRAINED, require_pretrained
from circuitfind.models.zoo import ZOO
from circuitfind.plugins import load_plugin
from circuitfind.tasks import model_for, task_file

MOST_RUNS = 100_000
"""A file that asks for more is a mistake."""

_MOST_BYTES = 10**6
"""The largest file: more than anyone writes by hand."""

_LARGEST = 1e300
KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


Variant = tuple[str, dict[str, Any]]
"""A method, and its options."""

Asked = TypeVar("Asked", bound=RunConfig)


@dataclass(frozen=True)
class PlannedRun:
    """One run that a file asks for.

    Attributes:
        name: What its directory is called.
        config: Its settings.
    """

    name: str
    config: RunConfig


Run = TypeVar("Run", bound=PlannedRun)


def read_plan(path: Path, kind: "type[Plan[Run]]") -> tuple[Run, ...]:
    """Return the runs that a file asks for.

    Raises:
        SweepError: The file cannot be read, or something in it is wrong; the message says all that
            is.
    """
    try:
        content = tomllib.loads(read_bytes(path, most=_MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise SweepError(f"cannot read the {kind.noun} {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SweepError(f"{path} is not TOML: {error}") from None
    plan = kind(content, path.parent)
    runs = plan.runs()
    if plan.errors:
        raise SweepError(f"{path}: {'; '.join(dict.fromkeys(plan.errors))}")
    return runs


class Plan(ABC, Generic[Run]):
    """The runs of a file's content, and everything that is wrong with it.

    Attributes:
        noun: What the file is called.
        settings: The entries that hold for all runs, and their types.
        others: The other entries.
        errors: What is wrong.
    """

    noun: ClassVar[str]
    settings: ClassVar[Mapping[str, type]]
    others: ClassVar[Sequence[str]]

    def __init__(self, content: Mapping[str, Any], folder: Path) -> None:
        self.errors: list[str] = []
        self._here: set[str] = set()
        self._content, self._folder = content, folder
        self._require_known(content, [*self.others, *self.settings, "plugins"], "the file")
        self._load_plugins()

    def _load_plugins(self) -> None:
        """Load the plug-ins that the file names, by paths from its own folder."""
        for path in self._list(self._content, "plugins", str):
            try:
                load_plugin(self._folder / path)
            except PluginError as error:
                self.errors.append(str(error))

    @abstractmethod
    def runs(self) -> tuple[Run, ...]:
        """Return the runs; none where anything is wrong."""

    def _check_settings(self) -> None:
        given = {name: self._content[name] for name in self.settings if name in self._content}
        for name, value in given.items():
            if not fits(value, self.settings[name]):
                self.errors.append(f"{name} is {quoted(value)}, not {KINDS[self.settings[name]]}")
        if not self.errors:
            self._require(prompts=given.get("prompts"))
        if str(given.get("device", "")).startswith("cuda:"):
            self.errors.append('device names one GPU; give "cuda", and every worker has one')

    def _require_few(self, *lists: Sequence[Any]) -> None:
        if (n_runs := math.prod(map(len, lists))) > MOST_RUNS:
            self.errors.append(f"it asks for {n_runs:,} runs; at most {MOST_RUNS:,} are possible")

    def _options(
        self, method: str, table: Mapping[str, Any], others: Iterable[str]
    ) -> dict[str, Any]:
        """Return the options of a method that its table gives, some entries left out."""
        texts = [f"{name}={value}" for name, value in table.items() if name not in others]
        options = parsed_settings(method, texts)
        order = METHODS.find(method).option_for("order") or "order"
        if options.get(order) not in (None, *get_args(NamedOrder)):
            options[order] = self._located(options[order])
        return options

    def _config(
        self,
        kind: type[Asked],
        model: str | None,
        task: str,
        variant: Variant,
        seed: int,
        **more: Any,
    ) -> Asked | None:
        """Return the settings of a run; None where something is wrong with them."""
        settings = {name: v for name, v in self._content.items() if name in self.settings}
        method, options = variant
        try:
            task = self._located(task) if task_file(task) else task
            if constants_file(given := str(settings.get("ablation", ""))):
                settings["ablation"] = self._located(given)
            model = model_for(task, model)
            config = kind(
                task=task,
                model=self._located(model),
                method=method,
                options=options,
                seed=seed,
                n_prompts=settings.pop("prompts", 64),
                memory=allowed_bytes(settings.pop("memory", None)),
                split_qkv=not settings.pop("merge_qkv", False),
                latents=self._latents(settings.pop("latents", None)),
                **settings,
                **more,
            )
            config.validate()
            self._require_here(model)
            return config.pinned()
        except CircuitfindError as error:
            self.errors.append(str(error))
            return None

    def _require_here(self, model: str) -> None:
        """Refuse a model that was not downloaded yet, once."""
        if model not in self._here:
            self._here.add(model)
            if (pretrained := PRETRAINED.get(model)) is not None:
                require_pretrained(pretrained)

    def _require(self, **numbers: Any) -> None:
        try:
            require(**numbers)
        except LimitError as error:
            self.errors.append(str(error))

    def _latents(self, name: str | None) -> str | None:
        return name if name in (None, EMBEDDED) else self._located(name)

    def _located(self, name: str) -> str:
        """Return the path of what is named beside the file, or else the name."""
        beside = self._folder / name
        return name if name in ZOO or not beside.exists() else str(beside)

    def _unique(self, runs: Sequence[Run]) -> tuple[Run, ...]:
        named: dict[str, Run] = {}
        for run in runs:
            if run.name in named:
                self.errors.append(
                    f"two runs would be called {quoted(run.name)}; list nothing twice"
                )
            named[run.name] = run
        return tuple(runs)

    def _list(self, table: Mapping[str, Any], name: str, kind: type, where: str = "") -> list[Any]:
        values, place = table.get(name, []), f"{where}.{name}".lstrip(".")
        if not isinstance(values, list):
            self.errors.append(f"{place} is {quoted(values)}, not a list")
            return []
        wrong = [value for value in values if not fits(value, kind)]
        self.errors += [f"{place} holds {quoted(value)}, not {KINDS[kind]}" for value in wrong]
        return [] if wrong else values

    def _require_known(self, table: Mapping[str, Any], known: Sequence[str], what: str) -> None:
        self.errors += [
            f"{what} has an entry {quoted(name)}; its entries are {', '.join(known)}"
            for name in table
            if name not in known
        ]


def fits(value: object, kind: type) -> bool:
    """Return whether a value of a file is of a type."""
    if isinstance(value, bool):
        return kind is bool
    if kind in (bool, str):
        return isinstance(value, kind)
    if kind is float:
        return isinstance(value, int | float) and abs(value) < _LARGEST
    return isinstance(value, int) and abs(value) < 2**63


def directory_name(*parts: str) -> str:
    """Return what the directory of a run is called."""
    return "-".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts)


def short_name(name: str) -> str:
    """Return what a task or a model is called where its place does not matter."""
    path = Path(name)
    return path.stem if path.suffix in (".json", ".jsonl", ".csv") else path.name
