"""The strongest path of a circuit: how much of the effect it carries, and chance without it.

Random circuits of the same degrees can be as faithful as the circuit because one path carries
nearly everything and the degrees leave it in place. The strongest path leads from an embedding to
the logits along kept edges. It is the widest one: the width of an edge is the rise in loss when it
alone is cut from the circuit, and of two paths that is stronger whose weakest edge is wider; where
these are equal, the next weakest decides.

The random circuits without it are those of the same degrees, except that each that holds the whole
path has one edge of it, drawn at random, replaced by another edge between components of that random
circuit; where there is no other one, it is cut. So they have the circuit's size, but for these, and
its degrees but at the ends of these two edges. The found circuit holds the path, so it is not one
of them: their p-value does not test whether the circuit is a random one, but says how often a
circuit that lacks the path does as well.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
import torch

from circuitfind.circuit import Circuit
from circuitfind.evaluation.baseline import Baseline, among
from circuitfind.evaluation.measured import Mask, Measured
from circuitfind.evaluation.random_circuits import random_circuits
from circuitfind.evaluation.random_walks import exchanged

N_PASSES = 3
"""Passes that it takes beside those of the random circuits and of each edge's cut."""


@dataclass(frozen=True)
class StrongestPath:
    """The strongest path of a circuit, by the problem's own metric.

    Attributes:
        edges: Names of its edges, from the embedding to the logits.
        alone: Faithfulness of the circuit of these edges alone.
        without: Faithfulness of the found circuit with all of them cut.
        n_holding: How many of the random circuits of the same degrees hold all of them.
        baseline: The circuit among as many random circuits that do not.
    """

    edges: tuple[str, ...]
    alone: float
    without: float
    n_holding: int
    baseline: Baseline


def strongest_path(
    measured: Measured, circuit: Circuit, n: int, *, seed: int = 0
) -> StrongestPath | None:
    """Measure the strongest path of a circuit, and n random circuits that lack it.

    Returns:
        What was found, or None where no path leads to the logits or the metric has no gap.

    Raises:
        MethodError: No random circuit could be drawn.
    """
    if not measured.scale.has_gap:
        return None
    kept = circuit.kept.cpu()
    # What the loss of the circuit itself takes off every width changes no order.
    losses = measured.problem.metric.sign * measured.without_each_edge(kept).mean(dim=1)
    names = [edge.name for edge in circuit.edges]
    edges = widest_path(circuit, dict(zip(names, losses.tolist(), strict=True)))
    if not edges:
        return None
    path = circuit.graph.mask_of(edges)
    drawn = [each.kept for each in random_circuits(circuit, n, null="degree", seed=seed)]
    holding = [bool(each[path].all()) for each in drawn]
    generator = np.random.default_rng(seed)
    broken = [
        _broken(circuit, each, path, generator) if holds else each
        for each, holds in zip(drawn, holding, strict=True)
    ]
    alone, without, own, *others = measured.faithfulness([path, kept & ~path, kept, *broken])
    return StrongestPath(edges, alone, without, sum(holding), among("degree", own, others))


def widest_path(circuit: Circuit, widths: Mapping[str, float]) -> tuple[str, ...]:
    """Return the edges of the widest path to the logits; none where no path leads there.

    Args:
        circuit: The circuit.
        widths: The width of each of its edges, by name.
    """
    network = circuit.connected().network()
    best: dict[str, tuple[str, ...]] = {}
    for node in nx.topological_sort(network):
        ways = [
            (*best[before], *([data["name"]] if data["kind"] == "edge" else []))
            for before, _, data in network.in_edges(node, data=True)
            if before in best
        ]
        if network.nodes[node]["kind"] == "embedding":
            ways.append(())
        if ways:
            best[node] = max(ways, key=lambda way: _strength(way, widths))
    ends = [path for node, path in best.items() if network.nodes[node]["kind"] == "logits"]
    return max(ends, key=lambda way: _strength(way, widths), default=())


def _strength(way: Sequence[str], widths: Mapping[str, float]) -> tuple[float, ...]:
    """Return the widths of a path's edges in order, so that the larger tuple is the stronger."""
    return (*sorted(widths[name] for name in way), math.inf)


def _broken(circuit: Circuit, kept: Mask, path: Mask, generator: np.random.Generator) -> Mask:
    """Replace a random edge of a path by another one; cut it where there is none."""
    writer, reader = generator.choice(path.nonzero().numpy())
    return torch.from_numpy(
        exchanged(circuit.graph, kept.numpy(), (int(writer), int(reader)), generator)
    )
