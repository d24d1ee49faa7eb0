"""How small is a circuit that is equal to its model on every input?

How small the circuit is has four levels, each of which includes those before it: no single edge can
be cut without a case that differs; no one or two edges; no set of its edges; and no circuit of the
graph has fewer edges. Cutting more may mend what cutting less breaks, so the levels differ. The
hierarchy of minimality is an idea of Hadad, Katz and Bassan, arXiv 2602.16823, who certify over
continuous inputs; the levels here are those just stated.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch

from circuitfind.circuit import Circuit
from circuitfind.evaluation.exhaustive import masks_of
from circuitfind.evaluation.measured import Mask
from circuitfind.paths import on_paths
from circuitfind.problem import Problem


@dataclass(frozen=True)
class Level:
    """One level of minimality.

    Attributes:
        name: `edge`, `pair`, `subset` or `least`.
        holds: Whether it was proved; None where it was not tried.
        n_tried: How many circuits were tried for it.
        smaller: The edges of a smaller circuit that is equal to the model, where there is one.
        note: Why it was not tried.
    """

    name: str
    holds: bool | None
    n_tried: int
    smaller: tuple[str, ...] = ()
    note: str = ""


@runtime_checkable
class Equality(Protocol):
    """What says whether circuits are equal to the model.

    Attributes:
        problem: The question.
    """

    problem: Problem

    def first_equal(self, masks: Iterator[Mask]) -> tuple[Mask | None, int]:
        """Return the first circuit that is equal in all cases, and how many were tried."""
        ...


def levels(check: Equality, circuit: Circuit, most: int) -> Iterator[Level]:
    """Yield the levels of minimality; one that fails, or is not tried, settles those after it."""
    n, total = circuit.n_edges, circuit.graph.n_edges
    tries = {
        "edge": (n, _without(circuit, [1])),
        "pair": (math.comb(n, 2), _without(circuit, [2])),
        "subset": (2**n - 1 - n - math.comb(n, 2), _without(circuit, range(3, n + 1))),
        "least": (
            sum(math.comb(total, size) for size in range(n)),
            _fewer(circuit, connected=check.problem.pruning_is_free),
        ),
    }
    settled: Level | None = None
    for name, (count, masks) in tries.items():
        if settled is None and count > most:
            note = f"{count:,} circuits to try, and at most {most:,} are allowed"
            settled = Level(name, None, 0, note=note)
        if settled is not None:
            yield replace(settled, name=name, n_tried=0)
            continue
        found, n_tried = check.first_equal(masks)
        edges = () if found is None else tuple(e.name for e in Circuit(circuit.graph, found).edges)
        level = Level(name, found is None, n_tried, edges)
        settled = None if level.holds else level
        yield level


def _without(circuit: Circuit, sizes: Sequence[int]) -> Iterator[Mask]:
    """Yield a circuit without every set of its edges of some sizes."""
    own = [circuit.graph.index(edge) for edge in circuit.edges]
    for cut in masks_of(circuit.graph, own, sizes):
        yield circuit.kept.cpu() & ~cut


def _fewer(circuit: Circuit, *, connected: bool) -> Iterator[Mask]:
    """Yield every circuit with fewer edges; if only connected ones, those without dead ends.

    With dead ends that change nothing, a circuit is equal to one with fewer edges still.
    """
    graph = circuit.graph
    every = [graph.index(edge) for edge in graph.edges()]
    for mask in masks_of(graph, every, range(circuit.n_edges)):
        if not connected or torch.equal(on_paths(graph, mask), mask):
            yield mask
