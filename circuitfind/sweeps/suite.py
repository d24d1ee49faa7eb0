"""A suite file: methods x cases x seeds, for a benchmark. It is a sweep file with other entries.

    summary = "two models wired by hand"
    measure = "auroc"
    seeds = [0, 1]
    prompts = 16
    thresholds = [0.001, 0.1]

    [[cases]]
    models = ["reverse", "hist"]
    ablations = ["zero", "resample"]

    [methods.acdc]

    [methods.shortened]
    method = "mattr"
    steps = 100

A case is a model, a task and an ablation. Without `methods` every method is benchmarked, with its
defaults; with `others = true` all that have no table of their own are, too. `thresholds` are those
of methods that decide edge by edge.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from circuitfind.directories.ranking import FIGURES, RankingConfig
from circuitfind.errors import CircuitfindError, SweepError, quoted
from circuitfind.methods import METHODS
from circuitfind.methods.base import ScoringMethod
from circuitfind.models.zoo import HANDMADE
from circuitfind.sweeps.plan import SETTINGS
from circuitfind.sweeps.planning import (
    KINDS,
    Plan,
    PlannedRun,
    Variant,
    directory_name,
    fits,
    read_plan,
    short_name,
)
from circuitfind.tasks.program import PROGRAM

FOLDER = Path(__file__).parents[1] / "suites"
"""The suites that ship with the package."""

_CASE_LISTS, _CASE = ("models", "tasks", "ablations"), ("against", "places", "neurons")


@dataclass(frozen=True)
class PlannedRanking(PlannedRun):
    """One ranking of a benchmark.

    Attributes:
        label: What the method is called, with its settings.
        case: What it is asked.
    """

    config: RankingConfig
    label: str
    case: str


def suite_file(name: str) -> Path:
    """Return the file of a suite: one that ships with the package, or a path.

    Raises:
        SweepError: There is none.
    """
    shipped = {file.stem: file for file in sorted(FOLDER.glob("*.toml"))}
    if name in shipped:
        return shipped[name]
    if not Path(name).is_file():
        raise SweepError(
            f"there is no suite {quoted(name)}; give one of {', '.join(shipped)}, or a suite file "
            "in TOML (docs/benchmark.md)"
        )
    return Path(name)


def read_suite(path: Path, methods: Sequence[str] = ()) -> tuple[PlannedRanking, ...]:
    """Return the rankings that a suite file asks for, case by case; see `read_plan`.

    Args:
        path: The file.
        methods: The only methods that are wanted, as the file calls them; by default all.
    """
    runs = read_plan(path, Suite)
    labels = list(dict.fromkeys(run.label for run in runs))
    if unknown := [name for name in methods if name not in labels]:
        raise SweepError(
            f"{path.name} has no method {quoted(unknown[0])}; its methods are {', '.join(labels)}"
        )
    return tuple(run for run in runs if not methods or run.label in methods)


class Suite(Plan[PlannedRanking]):
    """The rankings of a suite file's content, and everything that is wrong with it."""

    noun = "suite file"
    settings: ClassVar[Mapping[str, type]] = {
        name: SETTINGS[name] for name in ("prompts", "metric", "dtype", "device", "memory")
    }
    others = ("summary", "measure", "seeds", "thresholds", "others", "cases", "methods")

    def runs(self) -> tuple[PlannedRanking, ...]:
        """Return the rankings; none where anything is wrong."""
        self._check_settings()
        measure = self._content.get("measure")
        if measure is None:
            self.errors.append(
                f"it has no measure; give measure = {' or '.join(map(quoted, FIGURES))}"
            )
        elif measure not in FIGURES:
            self.errors.append(f"measure is {quoted(measure)}; choose one of {', '.join(FIGURES)}")
        seeds = self._list(self._content, "seeds", int) or [0]
        cases, variants = list(self._cases()), list(self._variants())
        self._require_few(cases, variants, seeds)
        if self.errors:
            return ()
        found = (
            self._ranking(case, variant, seed, measure=measure, counts_memory=seed == seeds[0])
            for case, variant, seed in product(cases, variants, seeds)
        )
        return self._unique([run for run in found if run is not None])

    def _cases(self) -> Iterator[dict[str, Any]]:
        """Yield model, task and ablation of every case, what counts as true, and its graph."""
        tables = self._content.get("cases")
        if not isinstance(tables, list) or not tables:
            self.errors.append("it has no cases; give tables [[cases]]")
            return
        for number, table in enumerate(tables, 1):
            where = f"cases, table {number}"
            if not isinstance(table, dict):
                self.errors.append(f"{where} is {quoted(table)}, not a table [[cases]]")
                continue
            self._require_known(table, [*_CASE_LISTS, *_CASE], where)
            lists = [self._list(table, name, str, where) for name in ("models", "tasks")]
            ablations = self._list(table, "ablations", str, where) or ["resample"]
            if not table.get("models"):
                self.errors.append(f"{where} has no models; give models = [...]")
            given = self._of_case(table, where)
            for model, task, ablation in product(lists[0], lists[1] or [None], ablations):
                yield {
                    "model": model,
                    "task": self._task(model, task, where),
                    "ablation": ablation,
                    **given,
                }

    def _of_case(self, table: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return what counts as true, and what its edges are told apart by."""
        given = {name: table.get(name) for name in _CASE}
        for name, value in given.items():
            if value is not None and not fits(value, str):
                self.errors.append(f"{where}.{name} is {quoted(value)}, not {KINDS[str]}")
        if isinstance(given["against"], str):
            given["against"] = self._located(given["against"])
        return given

    def _task(self, model: str, task: str | None, where: str) -> str:
        """Return the task of a case; by default that of a model whose circuit is known."""
        if task is not None or model in HANDMADE:
            return task or model
        if Path(model).suffix != ".json":
            self.errors.append(
                f"{where} has the model {quoted(model)} and no tasks; give tasks = [...]"
            )
        return PROGRAM.name

    def _variants(self) -> Iterator[tuple[str, Variant, tuple[float, ...]]]:
        """Yield every method: what it is called, its options, its thresholds."""
        every: dict[str, Any] = {method.name: {} for method in METHODS}
        others = self._content.get("others", False)
        given = self._content.get("methods", every)
        if not fits(others, bool):
            self.errors.append(f"others is {quoted(others)}, not {KINDS[bool]}")
        if not isinstance(given, dict) or not given:
            self.errors.append("methods is no table; give tables such as [methods.acdc], or none")
            return
        shared = self._list(self._content, "thresholds", float)
        for label, table in ({**every, **given} if others else given).items():
            if not isinstance(table, dict):
                self.errors.append(f"methods.{label} is {quoted(table)}, not [methods.{label}]")
                continue
            name = str(table.get("method", label))
            own = self._list(table, "thresholds", float, f"methods.{label}")
            try:
                method = METHODS.find(name)
                options = self._options(name, table, ("method", "thresholds"))
            except CircuitfindError as error:
                self.errors.append(str(error))
                continue
            thresholds = own or ([] if isinstance(method, ScoringMethod) else shared)
            yield label, (name, options), tuple(map(float, thresholds))

    def _ranking(
        self,
        case: Mapping[str, Any],
        chosen: tuple[str, Variant, tuple[float, ...]],
        seed: int,
        **more: Any,
    ) -> PlannedRanking | None:
        label, variant, thresholds = chosen
        model, task, *_ = case.values()
        settings = {name: case[name] for name in ("ablation", *_CASE)}
        config = self._config(
            RankingConfig, model, task, variant, seed, thresholds=thresholds, **settings, **more
        )
        if config is None:
            return None
        names = [short_name(model), short_name(task)]
        if more["measure"] != "areas":
            names.append(case["ablation"])
        names += [f"{name} {case[name]}" for name in _CASE[1:] if case[name]]
        told = [name for name in dict.fromkeys(names) if name != PROGRAM.name]
        directory = directory_name(*dict.fromkeys(names), label, f"seed-{seed}")
        return PlannedRanking(directory, config, label, ", ".join(told))
