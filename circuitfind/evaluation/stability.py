"""Stability of a circuit under other prompts, seeds, orders and thresholds.

The same search is run again and again with one thing changed. An edge's inclusion frequency is the
share of runs that keep it; the Jaccard index of two runs is the share of their edges that both
keep. Circuits of one model overlap by chance alone, the more the larger they are: the chance value
is the mean index of random circuits with as many edges between any two layers as the runs have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind import records
from circuitfind.circuit import Circuit, as_circuit, require_same_graph
from circuitfind.errors import require_kind
from circuitfind.evaluation.random_circuits import random_circuits
from circuitfind.limits import require

_CHANCE_DRAWS = 20


@dataclass(frozen=True)
class Variation:
    """Runs that differ in one thing.

    Attributes:
        varied: What differs: `resamples`, `seeds`, `orders` or `thresholds`.
        n_runs: How many, the original one counted in.
        jaccard: Mean Jaccard index of two of them.
        chance: Its value for random circuits of the same layers.
        smallest: Edges of the smallest circuit.
        largest: Of the largest.
    """

    varied: str
    n_runs: int
    jaccard: float
    chance: float
    smallest: int
    largest: int


@dataclass(frozen=True)
class Frequency:
    """Share of the runs that keep an edge.

    Attributes:
        edge: Its name.
        share: Share of all runs that keep it.
    """

    edge: str
    share: float


@dataclass(frozen=True)
class Stability:
    """Stability of a search.

    Attributes:
        variations: By what was varied.
        n_runs: All runs, the original one counted once.
        edges: Every edge that a run keeps, the most frequent first.
        consensus_share: From which share of the runs on an edge is in the consensus.
        n_consensus: How many edges are.
    """

    variations: tuple[Variation, ...]
    n_runs: int
    edges: tuple[Frequency, ...]
    consensus_share: float
    n_consensus: int

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return records.as_json(self)


def stability(
    original: Circuit, varied: Mapping[str, Sequence[Circuit]], *, share: float = 0.8, seed: int = 0
) -> Stability:
    """Compare a circuit with those of the same search under other conditions.

    Args:
        original: The circuit.
        varied: The other circuits, by what was changed.
        share: From which share of the runs on an edge is in the consensus.
        seed: Fixes the random circuits of the chance values.

    Raises:
        GraphError: The circuits belong to different graphs.
        LimitError: The share or the seed is outside its range.
    """
    require(share=share, seed=seed)
    original = as_circuit(original)
    require_kind(varied, Mapping, "circuits by what was changed; give a mapping to lists of them")
    runs = [original, *(circuit for circuits in varied.values() for circuit in circuits)]
    kept = frequencies(runs)
    rows = [
        Frequency(edge.name, float(kept[place]))
        for edge in original.graph.edges(kept > 0)
        for place in [_place(original, edge.name)]
    ]
    return Stability(
        tuple(_variation(name, [original, *found], seed) for name, found in varied.items()),
        len(runs),
        tuple(sorted(rows, key=lambda row: -row.share)),
        share,
        consensus(runs, share).n_edges,
    )


def frequencies(runs: Sequence[Circuit]) -> Float[Tensor, "writer reader"]:
    """Return the share of circuits that keep each edge."""
    for other in runs[1:]:
        require_same_graph(other.graph, runs[0].graph)
    return torch.stack([circuit.kept.cpu() for circuit in runs]).double().mean(dim=0)


def consensus(runs: Sequence[Circuit], share: float) -> Circuit:
    """Return the edges that at least a share of the circuits keep; effects are frequencies.

    Raises:
        LimitError: The share is not above 0 and at most 1.
    """
    require(share=share)
    kept = frequencies(runs)
    # What no run keeps is in no consensus, however small the share.
    return Circuit(runs[0].graph, (kept > 0) & (kept >= share - 1e-9), kept)


def mean_jaccard(runs: Sequence[Circuit]) -> float:
    """Return the mean over pairs of the share of their edges that both keep; 1 for a single one."""
    pairs = list(combinations([circuit.kept.cpu() for circuit in runs], 2))
    indices = [_jaccard(one, other) for one, other in pairs]
    return sum(indices) / len(indices) if indices else 1.0


def _jaccard(one: Tensor, other: Tensor) -> float:
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def _variation(name: str, runs: Sequence[Circuit], seed: int) -> Variation:
    drawn = [
        random_circuits(circuit, _CHANCE_DRAWS, null="layer", seed=seed + number)
        for number, circuit in enumerate(runs)
    ]
    chance = [mean_jaccard(circuits) for circuits in zip(*drawn, strict=True)]
    sizes = [circuit.n_edges for circuit in runs]
    return Variation(
        name, len(runs), mean_jaccard(runs), sum(chance) / len(chance), min(sizes), max(sizes)
    )


def _place(circuit: Circuit, name: str) -> tuple[int, int]:
    return circuit.graph.index(name)
