"""Agreement of a sweep's circuits over seeds and between methods, compared with chance.

By chance: circuits with as many edges between any two layers (`comparison/chance.py`).
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import TypeVar

from circuitfind.circuit import Circuit
from circuitfind.comparison.chance import LAYER_PROFILE
from circuitfind.comparison.overlap import edges_by_profile
from circuitfind.directories.config import RunConfig
from circuitfind.reports.bars import Row
from circuitfind.reports.matrix import Cell
from circuitfind.sweeps.planning import PlannedRun, short_name

_Key = TypeVar("_Key", bound=Hashable)
Found = tuple[RunConfig, Circuit]
Likeness = tuple[float, float]
"""The Jaccard index of two circuits' edges, and what is expected of it."""


def found_circuits(runs: Sequence[PlannedRun], circuits: Mapping[str, Circuit]) -> list[Found]:
    """Return the settings and circuits of the finished runs, as planned."""
    return [(run.config, circuits[run.name]) for run in runs if run.name in circuits]


def stabilities(found: Sequence[Found]) -> list[Row]:
    """Return how alike the circuits of every setting are that ran with several seeds."""
    groups = _grouped(found, lambda config: (config.model, config.task, variant(config)))
    rows = []
    for (model, task, name), members in groups.items():
        pairs = _likenesses(combinations([circuit for _, circuit in members], 2))
        if pairs:
            label = f"{short_name(model)}, {short_name(task)}: {name}"
            values = tuple(value for value, _ in pairs)
            rows.append(Row(label, members[0][0].method, values, _means(pairs)[1]))
    return rows


def comparison(found: Sequence[Found]) -> tuple[list[str], dict[tuple[int, int], Cell]]:
    """Return the methods of a sweep, and how alike the circuits of every two are.

    The mean over all pairs of runs of one model, task and seed; of a method with itself, over pairs
    of seeds. Pairs without a common graph, or with an empty circuit, are left out.
    """
    names = list(dict.fromkeys(variant(config) for config, _ in found))
    pairs: dict[tuple[int, int], list[tuple[Circuit, Circuit]]] = defaultdict(list)
    for members in _grouped(found, lambda c: (c.model, c.task, c.seed)).values():
        for (one, ours), (other, theirs) in combinations(members, 2):
            row, column = names.index(variant(one)), names.index(variant(other))
            pairs[row, column].append((ours, theirs))
            pairs[column, row].append((ours, theirs))
    for (_, _, name), members in _grouped(found, lambda c: (c.model, c.task, variant(c))).items():
        place = names.index(name)
        pairs[place, place] += combinations([circuit for _, circuit in members], 2)
    cells = {place: _cell(_likenesses(each)) for place, each in pairs.items()}
    return names, {place: cell for place, cell in cells.items() if cell is not None}


def variant(config: RunConfig) -> str:
    """Return a method with its threshold or number of edges, in short."""
    if config.threshold is not None:
        return f"{config.method} {config.threshold:g}"
    return config.method if config.n_edges is None else f"{config.method} {config.n_edges} edges"


def _cell(pairs: Sequence[Likeness]) -> Cell | None:
    if not pairs:
        return None
    value, expected = _means(pairs)
    above = (value - expected) / (1 - expected) if expected < 1 else 0.0
    tip = f"{len(pairs)} pairs of runs: {value:.3f}, expected {expected:.3f}, corrected {above:.3f}"
    return Cell(value, expected, tip, shade=above)


def _likenesses(pairs: Iterable[tuple[Circuit, Circuit]]) -> list[Likeness]:
    found = (edges_by_profile(*pair) for pair in pairs)
    return [
        (statistic.value, statistic.chance[LAYER_PROFILE].expected)
        for statistic in found
        if statistic.value is not None
    ]


def _means(pairs: Sequence[Likeness]) -> Likeness:
    n = len(pairs)
    return sum(value for value, _ in pairs) / n, sum(expected for _, expected in pairs) / n


def _grouped(found: Sequence[Found], key: Callable[[RunConfig], _Key]) -> dict[_Key, list[Found]]:
    groups: dict[_Key, list[Found]] = {}
    for config, circuit in found:
        groups.setdefault(key(config), []).append((config, circuit))
    return groups
