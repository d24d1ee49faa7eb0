"""Does the circuit hold anything that it does not need?

An edge matters if cutting it changes the metric, in the circuit or in the circuit without some
set K: of two edges that stand in for one another each matters only where the other one is cut
(Wang et al. 2022, arXiv 2211.00593, for nodes). For an edge that makes no difference in the whole
circuit, K is all other edges into the same component, and some random sets. Where places are told
apart, it is those into the component at the same place, and into its keys and values at any. An
edge that changes nothing for any K never matters, as far as was tried, and is listed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from circuitfind.circuit import Circuit
from circuitfind.evaluation.cuts import removable, without
from circuitfind.evaluation.measured import Mask, Measured
from circuitfind.graph import Graph, Reader

MATTERS = 0.002
"""From which share of the gap between full and empty graph on a change counts."""

_SHARES_CUT = (0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Need:
    """Change of the metric when a part of the circuit is removed.

    Attributes:
        name: An edge or a component.
        effect: Faithfulness lost when it is cut in the circuit; negative: gained.
        largest: The largest size of its effect over all sets K, the empty one included.
        tried: How many sets K were tried.
        matters: Whether `largest` counts.
    """

    name: str
    effect: float
    largest: float
    tried: int
    matters: bool


@dataclass(frozen=True)
class Minimality:
    """Parts of a circuit that it needs, and parts that it does not.

    Attributes:
        edges: All its edges, by the size of their effect.
        components: All its components but the embedding, likewise.
        useless_edges: Names of the edges that never mattered.
        useless_components: Names of the components that changed nothing.
    """

    edges: tuple[Need, ...]
    components: tuple[Need, ...]
    useless_edges: tuple[str, ...]
    useless_components: tuple[str, ...]


def minimality(
    measured: Measured,
    circuit: Circuit,
    *,
    n_sets: int = 4,
    seed: int = 0,
) -> Minimality | None:
    """Cut every edge and every component of a circuit.

    Args:
        measured: Measures it.
        circuit: The circuit.
        n_sets: How many random sets K are tried for an edge without effect.
        seed: Fixes the random sets.

    Returns:
        What was found, or None where the metric has no gap.
    """
    scale, kept = measured.scale, circuit.kept.cpu()
    if not scale.has_gap:
        return None
    names = [edge.name for edge in circuit.edges]
    (whole,) = measured.faithfulness([kept])
    left = scale.faithfulness(measured.without_each_edge(kept).mean(dim=1)).tolist()
    effects = [whole - share for share in left]
    edges = [_need(name, effect) for name, effect in zip(names, effects, strict=True)]
    edges = _retried(measured, circuit, edges, n_sets, seed)
    parts = removable(circuit)
    rest = measured.faithfulness([without(circuit.graph, kept, [name]) for name in parts])
    components = [_need(name, whole - share) for name, share in zip(parts, rest, strict=True)]
    edges, components = (
        sorted(needs, key=lambda need: -abs(need.effect)) for needs in (edges, components)
    )
    return Minimality(
        tuple(edges),
        tuple(components),
        tuple(need.name for need in edges if not need.matters),
        tuple(need.name for need in components if not need.matters),
    )


def _need(name: str, effect: float) -> Need:
    return Need(name, effect, abs(effect), 1, abs(effect) >= MATTERS)


def _retried(
    measured: Measured, circuit: Circuit, needs: Sequence[Need], n_sets: int, seed: int
) -> list[Need]:
    """Try edges that made no difference again where other edges are cut."""
    return [
        need if need.matters else _with_sets(measured, circuit, need, n_sets, seed + number)
        for number, need in enumerate(needs)
    ]


def _with_sets(measured: Measured, circuit: Circuit, need: Need, n_sets: int, seed: int) -> Need:
    place = circuit.graph.index(need.name)
    masks = list(_contexts(circuit, place, n_sets, seed))
    pairs = []
    for mask in masks:
        cut = mask.clone()
        cut[place] = False
        pairs += [mask, cut]
    shares = measured.faithfulness(pairs)
    effects = [abs(a - b) for a, b in zip(shares[::2], shares[1::2], strict=True)]
    largest = max([need.largest, *effects])
    return replace(need, largest=largest, tried=1 + len(masks), matters=largest >= MATTERS)


def _contexts(circuit: Circuit, place: tuple[int, int], n_sets: int, seed: int) -> Iterator[Mask]:
    """Yield the circuit without sets K that do not hold the edge."""
    graph, kept = circuit.graph, circuit.kept.cpu()
    siblings = kept & _into_same(graph, graph.readers[place[1]])
    siblings[place] = False
    if bool(siblings.any()):
        yield kept & ~siblings
    generator = np.random.default_rng(seed)
    for number in range(n_sets):
        share = _SHARES_CUT[number % len(_SHARES_CUT)]
        drawn = torch.from_numpy(generator.random(kept.shape) < share)
        drawn[place] = False
        yield kept & ~drawn


def _into_same(graph: Graph, own: Reader) -> Bool[Tensor, " reader"]:
    """Return the inputs that a component uses together with one of its own.

    All of them; where places are told apart, those at its place, and keys and values at any. Of
    moves inside attention: the others that arrive at the same place.
    """
    return torch.tensor(
        [
            each.component == own.component
            and (each.kind == "move") == (own.kind == "move")
            and (each.place == own.place or each.looks_back or own.looks_back)
            for each in graph.readers
        ]
    )
