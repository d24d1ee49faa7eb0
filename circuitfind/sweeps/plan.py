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
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from circuitfind.directories.config import RunConfig
from circuitfind.errors import CircuitfindError, quoted
from circuitfind.methods.wanted import Wanted
from circuitfind.sweeps.planning import (
    Plan,
    PlannedRun,
    Variant,
    directory_name,
    read_plan,
    short_name,
)

_LISTS: dict[str, type] = {"models": str, "tasks": str, "seeds": int}
SETTINGS: dict[str, type] = {
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


def read_sweep(path: Path) -> tuple[PlannedRun, ...]:
    """Return the runs that a sweep file asks for, model by model; see `read_plan`."""
    return read_plan(path, Sweep)


class Sweep(Plan[PlannedRun]):
    """The runs of a sweep file's content, and everything that is wrong with it."""

    noun = "sweep file"
    settings = SETTINGS
    others = (*_LISTS, "methods")

    def runs(self) -> tuple[PlannedRun, ...]:
        """Return the runs; none where anything is wrong."""
        lists = {name: self._list(self._content, name, kind) for name, kind in _LISTS.items()}
        self._check_settings()
        if not self._content.get("tasks"):
            self.errors.append("it has no tasks; give tasks = [...]")
        variants = list(self._variants())
        models: Sequence[str | None] = lists["models"] or [None]
        seeds = lists["seeds"] or [0]
        self._require_few(lists["tasks"], models, variants, seeds)
        if self.errors:
            return ()
        found = (
            self._config(RunConfig, model, task, variant, seed)
            for model, task, variant, seed in product(models, lists["tasks"], variants, seeds)
        )
        return self._unique([PlannedRun(_name(config), config) for config in found if config])

    def _variants(self) -> Iterator[Variant]:
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

    def _choices(self, method: str, table: Mapping[str, Any]) -> Iterator[Variant]:
        options = self._options(method, table, _CHOICES)
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


def _name(config: RunConfig) -> str:
    task, model = (short_name(name) for name in (config.task, config.model))
    asked = {"threshold": config.threshold, "edges": config.n_edges}
    choice = [f"{name}-{value}" for name, value in asked.items() if value is not None]
    return directory_name(model, task, config.method, *choice, f"seed-{config.seed}")
