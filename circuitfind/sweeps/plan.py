"""A sweep file: models x tasks x methods x thresholds x seeds, checked as a whole.

    models = ["ioi-small", "gpt-2l"]
    tasks = ["ioi", "induction"]
    seeds = [0, 1, 2]
    prompts = 32

    [methods.acdc]
    thresholds = [0.02, 0.05]

    [methods.eap-ig]
    edges = [20, 50]
    steps = 5

Everything that is wrong with the file is said at once, before anything runs. Every run has a name
that says what it is, and a directory of that name.
"""

import itertools
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from circuitfind.budget import allowed_bytes
from circuitfind.dictionaries.units import EMBEDDED
from circuitfind.directories.config import RunConfig
from circuitfind.errors import CircuitfindError, LimitError, SweepError, quoted
from circuitfind.files import read_bytes
from circuitfind.limits import require
from circuitfind.methods import METHODS
from circuitfind.methods.order import NamedOrder
from circuitfind.methods.settings import parsed_settings
from circuitfind.methods.shortlist import RANKED_BY, SHORTLIST
from circuitfind.methods.wanted import Wanted
from circuitfind.models.zoo import ZOO
from circuitfind.tasks import model_for, task_file

MOST_RUNS = 100_000
"""A file that asks for more is a mistake."""

_MOST_BYTES = 10**6
"""The largest sweep file: more than anyone writes by hand."""

_LISTS: dict[str, type] = {"models": str, "tasks": str, "seeds": int}
_SETTINGS: dict[str, type] = {
    "prompts": int,
    "metric": str,
    "ablation": str,
    "system": str,
    "dtype": str,
    "device": str,
    "memory": str,
    "merge_qkv": bool,
    "split_embedding": bool,
    "places": str,
    "crossing": bool,
    "neurons": str,
    "latents": str,
    "shortlist": int,
    "ranked_by": str,
}
_CHOICES: dict[str, type] = {"thresholds": float, "edges": int}
_LARGEST = 1e300
_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        name: What its directory is called.
        config: Its settings.
    """

    name: str
    config: RunConfig


def read_sweep(path: Path) -> tuple[PlannedRun, ...]:
    """Return the runs that a sweep file asks for, model by model.

    Raises:
        SweepError: The file cannot be read, or something in it is wrong; the message says all that
            is.
    """
    try:
        content = tomllib.loads(read_bytes(path, most=_MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise SweepError(f"cannot read the sweep file {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SweepError(f"{path} is not TOML: {error}") from None
    plan = _Plan(content, path.parent)
    runs = plan.runs()
    if plan.errors:
        raise SweepError(f"{path}: {'; '.join(dict.fromkeys(plan.errors))}")
    return runs


class _Plan:
    """The runs of a sweep file's content, and everything that is wrong with it."""

    def __init__(self, content: Mapping[str, Any], folder: Path) -> None:
        self.errors: list[str] = []
        self._content, self._folder = content, folder
        self._require_known(content, [*_LISTS, *_SETTINGS, "methods"], "the file")

    def runs(self) -> tuple[PlannedRun, ...]:
        lists = {name: self._list(self._content, name, kind) for name, kind in _LISTS.items()}
        settings = {name: self._content[name] for name in _SETTINGS if name in self._content}
        for name, value in settings.items():
            if not _fits(value, _SETTINGS[name]):
                self.errors.append(f"{name} is {quoted(value)}, not {_KINDS[_SETTINGS[name]]}")
        if not self.errors:
            self._require(prompts=settings.get("prompts"))
        if str(settings.get("device", "")).startswith("cuda:"):
            self.errors.append('device names one GPU; give "cuda", and every worker has one')
        if not self._content.get("tasks"):
            self.errors.append("it has no tasks; give tasks = [...]")
        variants = list(self._variants())
        models: Sequence[str | None] = lists["models"] or [None]
        seeds = lists["seeds"] or [0]
        n_runs = math.prod(map(len, (lists["tasks"], models, variants, seeds)))
        if n_runs > MOST_RUNS:
            self.errors.append(f"it asks for {n_runs:,} runs; at most {MOST_RUNS:,} are possible")
        if self.errors:
            return ()
        each = itertools.product(models, lists["tasks"], variants, seeds)
        return self._unique(
            [
                run
                for model, task, variant, seed in each
                for run in self._run(model, task, variant, seed, settings)
            ]
        )

    def _variants(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every method with every choice of its threshold or number of edges."""
        methods = self._content.get("methods")
        if not isinstance(methods, dict) or not methods:
            self.errors.append("it has no methods; give a table such as [methods.acdc]")
            return
        for method, table in methods.items():
            if not isinstance(table, dict):
                self.errors.append(
                    f"methods.{method} is {quoted(table)}, not a table [methods.{method}]"
                )
                continue
            try:
                yield from self._choices(method, table)
            except CircuitfindError as error:
                self.errors.append(str(error))

    def _choices(
        self, method: str, table: Mapping[str, Any]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        texts = [f"{name}={value}" for name, value in table.items() if name not in _CHOICES]
        options = parsed_settings(method, texts)
        order = METHODS.find(method).option_for("order") or "order"
        if options.get(order) not in (None, *get_args(NamedOrder)):
            options[order] = self._located(options[order])
        thresholds = self._list(table, "thresholds", float, f"methods.{method}")
        edges = self._list(table, "edges", int, f"methods.{method}")
        if any(table.get(name) for name in _CHOICES) and not (thresholds or edges):
            return
        wanted = [Wanted(threshold=repr(float(number))) for number in thresholds]
        wanted += [Wanted(n_edges=number) for number in edges] or ([] if wanted else [Wanted()])
        for choice in wanted:
            choice.require_fit(method)
            found = choice.options_for(method)
            if not found:
                self.errors.append(f"methods.{method} needs thresholds = [...]")
            yield from ((method, {**options, **one}) for one in found)

    def _run(
        self,
        model: str | None,
        task: str,
        variant: tuple[str, dict[str, Any]],
        seed: int,
        settings: Mapping[str, Any],
    ) -> list[PlannedRun]:
        method, options = variant
        try:
            task = self._located(task) if task_file(task) else task
            config = RunConfig(
                task=task,
                model=self._located(model_for(task, model)),
                method=method,
                options=options,
                metric=settings.get("metric"),
                ablation=settings.get("ablation", "resample"),
                n_prompts=settings.get("prompts", 64),
                seed=seed,
                system=settings.get("system"),
                dtype=settings.get("dtype"),
                device=settings.get("device", "cpu"),
                memory=allowed_bytes(settings.get("memory")),
                split_qkv=not settings.get("merge_qkv", False),
                split_embedding=settings.get("split_embedding", False),
                places=settings.get("places"),
                crossing=settings.get("crossing", False),
                neurons=settings.get("neurons"),
                latents=self._latents(settings.get("latents")),
                shortlist=settings.get("shortlist", SHORTLIST),
                ranked_by=settings.get("ranked_by", RANKED_BY),
            )
            config.validate()
            return [PlannedRun(_name(config), config.pinned())]
        except CircuitfindError as error:
            self.errors.append(str(error))
            return []

    def _require(self, **numbers: Any) -> None:
        try:
            require(**numbers)
        except LimitError as error:
            self.errors.append(str(error))

    def _latents(self, name: str | None) -> str | None:
        return name if name in (None, EMBEDDED) else self._located(name)

    def _located(self, name: str) -> str:
        """Return the path of what is named beside the sweep file, or else the name."""
        beside = self._folder / name
        return name if name in ZOO or not beside.exists() else str(beside)

    def _unique(self, runs: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
        named: dict[str, PlannedRun] = {}
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
        wrong = [value for value in values if not _fits(value, kind)]
        self.errors += [f"{place} holds {quoted(value)}, not {_KINDS[kind]}" for value in wrong]
        return [] if wrong else values

    def _require_known(self, table: Mapping[str, Any], known: Sequence[str], what: str) -> None:
        self.errors += [
            f"{what} has an entry {quoted(name)}; its entries are {', '.join(known)}"
            for name in table
            if name not in known
        ]


def _fits(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind in (bool, str):
        return isinstance(value, kind)
    if kind is float:
        return isinstance(value, int | float) and abs(value) < _LARGEST
    return isinstance(value, int) and abs(value) < 2**63


def _name(config: RunConfig) -> str:
    task, model = (short_name(name) for name in (config.task, config.model))
    asked = {"threshold": config.threshold, "edges": config.n_edges}
    choice = [f"{name}-{value}" for name, value in asked.items() if value is not None]
    parts = (model, task, config.method, *choice, f"seed-{config.seed}")
    return "-".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts)


def short_name(name: str) -> str:
    """Return what a task or a model is called where its place does not matter."""
    path = Path(name)
    return path.stem if path.suffix in (".json", ".jsonl", ".csv") else path.name
