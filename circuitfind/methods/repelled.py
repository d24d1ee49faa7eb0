"""Searches that are pushed away from a circuit: its edges have a price, or are the first to be cut.

In ACDC with a price, an edge of the circuit is cut unless its absence raises the loss by the
threshold times (1 + price); all other edges are tested as usual, so that a price of 0 is the usual
search. With an infinite price the circuit's edges are tested before all others, while everything
that could do their work is still there: an edge is only kept if nothing else does. The order is
random otherwise, and another one for each seed.

Learned masks (`edge_pruning`) have the price in their loss: for each edge of the circuit, times its
probability to be open.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.graph import Graph
from circuitfind.methods.acdc import search_from
from circuitfind.methods.base import Decision, Progress, circuit_of, without_dead_ends
from circuitfind.methods.edge_pruning import EdgePruning
from circuitfind.methods.gates import Mask
from circuitfind.methods.learned import EdgeOptions
from circuitfind.methods.order import Visit, visits
from circuitfind.methods.selection import Selection
from circuitfind.progress import Checkpoint, State


@dataclass(frozen=True)
class Repulsion:
    """Settings of one search.

    Attributes:
        threshold: Rise of the loss from which on an edge is kept, in the metric's unit.
        price: By how many thresholds more an edge of the circuit has to raise it.
        seed: Fixes the order.
    """

    threshold: float
    price: float
    seed: int


def repelled(
    engine: IncrementalEngine,
    circuit: Circuit,
    settings: Repulsion,
    resume: Sequence[Decision] = (),
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Circuit:
    """Search for a circuit that shares little with another one.

    Args:
        engine: The problem, made ready to cut edges.
        circuit: The circuit that is avoided.
        settings: How.
        resume: Decisions of an earlier, interrupted run of the same search.
        on_progress: Called after each reader that no earlier run has decided, and at the end.

    Returns:
        What the search keeps, without dead ends where removing them is free.

    Raises:
        MethodError: The metric became infinite or NaN when an edge was cut, or the earlier
            decisions are not those of this search.
    """
    avoided = {edge.name for edge in circuit.edges}
    is_last_resort = math.isinf(settings.price)
    dear = settings.threshold * (1 if is_last_resort else 1 + settings.price)

    def is_cut(edge: str, effect: float) -> bool:
        return effect < (dear if edge in avoided else settings.threshold)

    plan = visits(engine.graph, "random", settings.seed)
    if is_last_resort:
        plan = _first(plan, circuit)
    decisions = list(resume)
    with engine.staffed():
        for step in search_from(engine, engine.start(), plan, is_cut, resume):
            decisions[step.done - len(step.decisions) :] = step.decisions
            on_progress(step)
    return without_dead_ends(engine, circuit_of(engine.graph, decisions), prune=True).circuit


def _first(plan: list[Visit], circuit: Circuit) -> list[Visit]:
    """Return the visits of a circuit's edges, and then those of all others."""
    kept = circuit.kept.cpu().tolist()
    parts: tuple[list[Visit], list[Visit]] = [], []
    for reader, writers in plan:
        for part, is_in in zip(parts, (True, False), strict=True):
            if some := [writer for writer in writers if kept[writer][reader] == is_in]:
                part.append((reader, some))
    return [*parts[0], *parts[1]]


def trained_apart(
    engine: IncrementalEngine,
    circuit: Circuit,
    price: float,
    options: EdgeOptions,
    state: State | None = None,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Circuit:
    """Train masks on as few edges as another circuit has, with a price on that one's edges.

    Args:
        engine: The problem, made ready to cut edges.
        circuit: The circuit that is avoided.
        price: Of all its edges together, in units of the gap.
        options: How they are trained.
        state: What an earlier, interrupted run of the same training left.
        on_progress: Called every few steps.

    Returns:
        All edges, with their probabilities as effects.

    Raises:
        MethodError: The metric has no slope, or the loss became infinite or NaN.
    """
    method = _Apart(circuit, price)
    asked = method.adapted(options, Selection(n_edges=circuit.n_edges), engine.graph)
    last = state or {}
    for checkpoint in method.scoring(engine, asked, state):
        last = checkpoint.state or last
        on_progress(checkpoint)
    return Circuit(engine.graph, engine.graph.edge_mask, last["scores"])


class _Apart(EdgePruning):
    """Learned masks whose loss has a price on the edges of a circuit."""

    def __init__(self, circuit: Circuit, price: float) -> None:
        self._prices = circuit.kept.cpu() * (price / circuit.n_edges)

    def prices(self, graph: Graph) -> Mask:
        return self._prices


def largest(circuit: Circuit, n: int) -> Circuit:
    """Return the circuit of the n edges with the largest effects."""
    if circuit.n_edges <= n or circuit.effects is None:
        return circuit
    values = circuit.effects.masked_fill(~circuit.kept, -math.inf).nan_to_num(nan=-math.inf)
    best = values.flatten().topk(n).indices
    kept = torch.zeros_like(circuit.kept)
    kept.view(-1)[best] = True
    return Circuit(circuit.graph, kept & circuit.kept, circuit.effects)
