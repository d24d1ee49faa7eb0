"""How much the circuits of a sweep agree: over seeds, and between methods."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

from circuitfind.circuit import Circuit
from circuitfind.runs.config import RunConfig
from circuitfind.sweeps.plan import PlannedRun, short_name
from circuitfind.sweeps.table import overlap

_Key = TypeVar("_Key", bound=Hashable)
Found = tuple[RunConfig, Circuit]


@dataclass(frozen=True)
class Stability:
    """How alike the circuits of one setting are over seeds.

    Attributes:
        label: The setting.
        method: Its method.
        values: The Jaccard index of every pair of seeds.
    """

    label: str
    method: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)


def found_circuits(runs: Sequence[PlannedRun], circuits: Mapping[str, Circuit]) -> list[Found]:
    """Return the settings and circuits of the finished runs, as planned."""
    return [(run.config, circuits[run.name]) for run in runs if run.name in circuits]


def stabilities(found: Sequence[Found]) -> list[Stability]:
    """Return the stability of every setting that ran with several seeds."""
    groups = _grouped(found, lambda config: (config.model, config.task, variant(config)))
    return [
        Stability(f"{short_name(model)}, {short_name(task)}: {name}", members[0][0].method, values)
        for (model, task, name), members in groups.items()
        if (values := _overlaps([circuit for _, circuit in members]))
    ]


def comparison(found: Sequence[Found]) -> tuple[list[str], dict[tuple[str, str], float]]:
    """Return the methods of a sweep, and how alike the circuits of every two are.

    The mean Jaccard index over all pairs of runs of one model, task and seed; of a method with
    itself, over pairs of seeds. Pairs without a common graph are left out.
    """
    names = list(dict.fromkeys(variant(config) for config, _ in found))
    same = _grouped(found, lambda config: (config.model, config.task, config.seed))
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for members in same.values():
        for (one, ours), (other, theirs) in combinations(members, 2):
            if (shared := overlap(ours, theirs)) is not None:
                values[variant(one), variant(other)].append(shared)
                values[variant(other), variant(one)].append(shared)
    for name in names:
        of_one = [(config, circuit) for config, circuit in found if variant(config) == name]
        groups = _grouped(of_one, lambda config: (config.model, config.task))
        for members in groups.values():
            values[name, name] += _overlaps([circuit for _, circuit in members])
    return names, {pair: sum(each) / len(each) for pair, each in values.items() if each}


def variant(config: RunConfig) -> str:
    """Return a method with its threshold or number of edges, in short."""
    threshold, n_edges = (config.options.get(name) for name in ("threshold", "n_edges"))
    if threshold is not None:
        return f"{config.method} {threshold:g}"
    return config.method if n_edges is None else f"{config.method} {n_edges} edges"


def _overlaps(circuits: Sequence[Circuit]) -> tuple[float, ...]:
    pairs = (overlap(one, other) for one, other in combinations(circuits, 2))
    return tuple(value for value in pairs if value is not None)


def _grouped(found: Sequence[Found], key: Callable[[RunConfig], _Key]) -> dict[_Key, list[Found]]:
    groups: dict[_Key, list[Found]] = {}
    for config, circuit in found:
        groups.setdefault(key(config), []).append((config, circuit))
    return groups
