"""Does the circuit hold everything that the behaviour rests on?

A complete circuit breaks as the model does: knock the same components K out of both, and
|F(circuit without K) - F(model without K)| is small for every K (Wang et al. 2022, arXiv
2211.00593). A circuit that lacks a backup breaks, and the model does not. K is each component,
each group of components that a role names, random sets, and a set that grows greedily by the
component that makes the difference largest. For the worst set, the components outside the circuit
are found that keep the model going: those whose knock-out on top of it costs the model most.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circuitfind.circuit import Circuit
from circuitfind.evaluation.cuts import removable, without
from circuitfind.evaluation.meter import Mask, Meter


@dataclass(frozen=True)
class KnockOut:
    """Components knocked out of the circuit and of the model.

    Attributes:
        kind: Why these: `component`, `role NAME`, `random` or `greedy`.
        components: Which.
        circuit: Faithfulness of the circuit without them.
        full: Faithfulness of the model without them.
        difference: The size of the difference: 0 if both break alike.
    """

    kind: str
    components: tuple[str, ...]
    circuit: float
    full: float
    difference: float


@dataclass(frozen=True)
class Backup:
    """A component outside the circuit that keeps the model going.

    Attributes:
        component: Which.
        effect: How much of the model's faithfulness goes if it is knocked out too.
    """

    component: str
    effect: float


@dataclass(frozen=True)
class Completeness:
    """How alike circuit and model break.

    Attributes:
        knock_outs: All that were tried, the worst one first.
        mean: The mean difference over them.
        worst: The largest.
        backups: What keeps the model going without the worst set, the strongest first; those of an
            effect of at least 0.01.
    """

    knock_outs: tuple[KnockOut, ...]
    mean: float
    worst: float
    backups: tuple[Backup, ...]


_WEAKEST_BACKUP = 0.01


def completeness(
    meter: Meter,
    circuit: Circuit,
    *,
    n_random: int = 10,
    n_greedy: int = 2,
    roles: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Completeness | None:
    """Knock sets of a circuit's components out of it and out of the model.

    Args:
        meter: Measures both.
        circuit: The circuit.
        n_random: How many random sets are tried; each holds every component with chance 1/2.
        n_greedy: To how many components the greedy set grows.
        roles: Groups of components by what they do.
        seed: Fixes the random sets.

    Returns:
        What was found, or None where the circuit has no component but the embedding, or the metric
        no gap.
    """
    measured = _Shares(meter, circuit)
    components = removable(circuit)
    if not components or not measured.gap:
        return None
    sets: list[tuple[str, tuple[str, ...]]] = [("component", (name,)) for name in components]
    sets += [(f"role {role}", tuple(names)) for role, names in (roles or {}).items()]
    sets += [("random", names) for names in _random_sets(components, n_random, seed)]
    found = measured.knocked_out(sets)
    found += _greedy(measured, components, found, n_greedy)
    found.sort(key=lambda each: -each.difference)
    return Completeness(
        tuple(found),
        float(np.mean([each.difference for each in found])),
        found[0].difference,
        _backups(measured, circuit, found[0]),
    )


def n_knock_out_passes(circuit: Circuit, n_random: int, n_greedy: int, n_roles: int = 0) -> int:
    """Return how many passes `completeness` takes, the limits not counted."""
    n = len(removable(circuit))
    if not n:
        return 0
    n_steps = min(n_greedy, n) - 1
    greedy = sum(n - step for step in range(1, n_steps + 1))
    outside = len(circuit.graph.heads_and_mlps) - n
    return 2 * (n + n_roles + n_random + greedy) + outside


class _Shares:
    """Faithfulness of the circuit and the model with components knocked out."""

    def __init__(self, meter: Meter, circuit: Circuit) -> None:
        self._meter, self._graph = meter, circuit.graph
        self._circuit, self._full = circuit.kept.cpu(), circuit.graph.edge_mask
        self._name = meter.problem.metric.name
        full, empty = (float(limit[self._name].mean()) for limit in meter.limits)
        self._empty = empty
        self.gap = full - empty

    def of_model(self, sets: Sequence[Sequence[str]]) -> list[float]:
        return self._shares([without(self._graph, self._full, names) for names in sets])

    def knocked_out(self, sets: Sequence[tuple[str, tuple[str, ...]]]) -> list[KnockOut]:
        names = [names for _, names in sets]
        ours = self._shares([without(self._graph, self._circuit, each) for each in names])
        rows = zip(sets, ours, self.of_model(names), strict=True)
        return [
            KnockOut(kind, each, circuit, full, abs(circuit - full))
            for (kind, each), circuit, full in rows
        ]

    def _shares(self, masks: Sequence[Mask]) -> list[float]:
        if not masks:
            return []
        values = self._meter.values(masks)[self._name].mean(dim=1)
        shares: list[float] = ((values - self._empty) / self.gap).tolist()
        return shares


def _random_sets(components: Sequence[str], n: int, seed: int) -> Iterator[tuple[str, ...]]:
    generator = np.random.default_rng(seed)
    for _ in range(n):
        chosen = generator.random(len(components)) < 0.5
        if not chosen.any():
            chosen[generator.integers(len(components))] = True
        yield tuple(name for name, inside in zip(components, chosen, strict=True) if inside)


def _greedy(
    measured: _Shares, components: Sequence[str], singles: Sequence[KnockOut], n: int
) -> list[KnockOut]:
    """Grow a set from the worst component by the one that makes the difference largest."""
    alone = [each for each in singles if each.kind == "component"]
    worst = max(alone, key=lambda each: each.difference)
    grown = []
    while len(worst.components) < min(n, len(components)):
        rest = [name for name in components if name not in worst.components]
        tried = measured.knocked_out([("greedy", (*worst.components, name)) for name in rest])
        worst = max(tried, key=lambda each: each.difference)
        grown.append(worst)
    return grown


def _backups(measured: _Shares, circuit: Circuit, worst: KnockOut) -> tuple[Backup, ...]:
    inside = {*removable(circuit), *worst.components}
    outside = [w.name for w in circuit.graph.writers if w.stage > 0 and w.name not in inside]
    left = measured.of_model([(*worst.components, name) for name in outside])
    found = [Backup(name, worst.full - share) for name, share in zip(outside, left, strict=True)]
    strong = [backup for backup in found if backup.effect >= _WEAKEST_BACKUP]
    return tuple(sorted(strong, key=lambda backup: -backup.effect))
