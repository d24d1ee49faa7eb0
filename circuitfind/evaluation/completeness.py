"""Does the circuit hold everything that the behaviour rests on?

A complete circuit breaks as the model does: knock the same components K out of both, and
|F(circuit without K) - F(model without K)| is small for every K (Wang et al. 2022, arXiv
2211.00593). A circuit that lacks a backup breaks, and the model does not. K is each component,
each group of components that a role names, random sets, and a set that grows greedily by the
component that makes the difference largest. For the worst set, the components outside the circuit
are found that keep the model going: those whose knock-out on top of it costs the model most. In a
deep model these are too many to try all: the likeliest are tried, by the slope of the loss there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circuitfind.circuit import Circuit
from circuitfind.engine.soft_mask import slope
from circuitfind.evaluation.cuts import removable, without
from circuitfind.evaluation.measured import Measured


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
        effect: Faithfulness that the model loses if it is knocked out too.
    """

    component: str
    effect: float


@dataclass(frozen=True)
class Completeness:
    """Similarity of circuit and model when the same components are knocked out.

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
    measured: Measured,
    circuit: Circuit,
    *,
    n_random: int = 10,
    n_greedy: int = 2,
    n_backups: int | None = None,
    roles: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Completeness | None:
    """Knock sets of a circuit's components out of it and out of the model.

    Args:
        measured: Measures both.
        circuit: The circuit.
        n_random: How many random sets are tried; each holds every component with chance 1/2.
        n_greedy: To how many components the greedy set grows.
        n_backups: How many components are tried as backups; by default all outside the circuit.
        roles: Groups of components by what they do.
        seed: Fixes the random sets.

    Returns:
        What was found, or None where the circuit has no component but the embedding, or the metric
        no gap.
    """
    components = removable(circuit)
    if not components or not measured.scale.has_gap:
        return None
    sets: list[tuple[str, tuple[str, ...]]] = [("component", (name,)) for name in components]
    sets += [(f"role {role}", tuple(names)) for role, names in (roles or {}).items()]
    sets += [("random", names) for names in _random_sets(components, n_random, seed)]
    found = _knocked_out(measured, circuit, sets)
    found += _greedy(measured, circuit, found, n_greedy)
    found.sort(key=lambda each: -each.difference)
    return Completeness(
        tuple(found),
        float(np.mean([each.difference for each in found])),
        found[0].difference,
        _backups(measured, circuit, found[0], n_backups),
    )


def n_knock_out_passes(
    circuit: Circuit,
    n_random: int,
    n_greedy: int,
    n_backups: int | None = None,
    n_roles: int = 0,
) -> int:
    """Return how many passes `completeness` takes, the limits not counted."""
    n = len(removable(circuit))
    if not n:
        return 0
    n_steps = min(n_greedy, n) - 1
    greedy = sum(n - step for step in range(1, n_steps + 1))
    outside = len(circuit.graph.heads_and_mlps) - n
    tried = outside if n_backups is None else min(n_backups, outside)
    return 2 * (n + n_roles + n_random + greedy) + tried


def _knocked_out(
    measured: Measured, circuit: Circuit, sets: Sequence[tuple[str, tuple[str, ...]]]
) -> list[KnockOut]:
    kept, graph = circuit.kept.cpu(), circuit.graph
    ours = measured.faithfulness([without(graph, kept, names) for _, names in sets])
    rows = zip(sets, ours, _model_without(measured, [names for _, names in sets]), strict=True)
    return [
        KnockOut(kind, each, circuit, full, abs(circuit - full))
        for (kind, each), circuit, full in rows
    ]


def _model_without(measured: Measured, sets: Sequence[Sequence[str]]) -> list[float]:
    graph = measured.problem.graph
    return measured.faithfulness([without(graph, graph.edge_mask, names) for names in sets])


def _random_sets(components: Sequence[str], n: int, seed: int) -> Iterator[tuple[str, ...]]:
    generator = np.random.default_rng(seed)
    for _ in range(n):
        chosen = generator.random(len(components)) < 0.5
        if not chosen.any():
            chosen[generator.integers(len(components))] = True
        yield tuple(name for name, inside in zip(components, chosen, strict=True) if inside)


def _greedy(
    measured: Measured, circuit: Circuit, singles: Sequence[KnockOut], n: int
) -> list[KnockOut]:
    """Grow a set from the worst component by the one that makes the difference largest."""
    components = removable(circuit)
    alone = [each for each in singles if each.kind == "component"]
    worst = max(alone, key=lambda each: each.difference)
    grown = []
    while len(worst.components) < min(n, len(components)):
        rest = [name for name in components if name not in worst.components]
        larger = [("greedy", (*worst.components, name)) for name in rest]
        tried = _knocked_out(measured, circuit, larger)
        worst = max(tried, key=lambda each: each.difference)
        grown.append(worst)
    return grown


def _backups(
    measured: Measured, circuit: Circuit, worst: KnockOut, most: int | None
) -> tuple[Backup, ...]:
    inside = {*removable(circuit), *worst.components}
    outside = [w.name for w in circuit.graph.heads_and_mlps if w.name not in inside]
    if most is not None and len(outside) > most:
        outside = _likeliest(measured, outside, worst.components, most)
    left = _model_without(measured, [(*worst.components, name) for name in outside])
    found = [Backup(name, worst.full - share) for name, share in zip(outside, left, strict=True)]
    strong = [backup for backup in found if backup.effect >= _WEAKEST_BACKUP]
    return tuple(sorted(strong, key=lambda backup: -backup.effect))


def _likeliest(measured: Measured, names: list[str], gone: Sequence[str], n: int) -> list[str]:
    """Return the components whose knock-out raises the loss most, to first order.

    All of them where the metric has no slope.

    Args:
        measured: Measures the model.
        names: The components to choose from.
        gone: Components that are knocked out already.
        n: How many.
    """
    graph = measured.problem.graph
    mask = without(graph, graph.edge_mask, gone)
    rises = -slope(measured.engine, mask.double()).sum(1)
    if not bool(rises.any()):
        return names
    return sorted(names, key=lambda name: -float(rises[graph.writer_index[name]]))[:n]
