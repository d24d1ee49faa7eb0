"""How small is a circuit that is equal to its model on every input?

How small the circuit is has four levels, each of which includes those before it: no single edge can
be cut without a case that differs; no one or two edges; no set of its edges; and no circuit of the
graph has fewer edges. Cutting more may mend what cutting less breaks, so the levels differ. The
hierarchy of minimality is an idea of Hadad, Katz and Bassan, arXiv 2602.16823, who certify over
continuous inputs; the levels here are those just stated.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch

from circuitfind.circuit import Circuit
from circuitfind.evaluation.exhaustive import masks_of, n_sets
from circuitfind.evaluation.measured import Mask
from circuitfind.paths import on_paths
from circuitfind.problem import Problem
from circuitfind.progress import Checkpoint


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


def levels(
    check: Equality,
    circuit: Circuit,
    most: int,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Iterator[Level]:
    """Yield the levels of minimality; one that fails, or is not tried, settles those after it."""
    n, total = circuit.n_edges, circuit.graph.n_edges
    without, of_all = partial(_without, circuit), partial(_of_all, circuit, check.problem)
    tries = {
        "edge": (n, [1], without),
        "pair": (n, [2], without),
        "subset": (n, range(3, n + 1), without),
        "least": (total, range(n), of_all),
    }
    settled: Level | None = None
    for name, (n_edges, sizes, masks) in tries.items():
        n_masks = n_sets(n_edges, sizes, most)
        if settled is None and n_masks is None:
            note = f"more than {most:,} circuits to try, which is the most that are allowed"
            settled = Level(name, None, 0, note=note)
        if settled is not None:
            yield replace(settled, name=name, n_tried=0)
            continue
        step = f"circuits of the level {name}"
        found, n_tried = check.first_equal(_told(masks(sizes), n_masks or 0, step, on_progress))
        edges = () if found is None else tuple(e.name for e in Circuit(circuit.graph, found).edges)
        level = Level(name, found is None, n_tried, edges)
        settled = None if level.holds else level
        yield level


def _told(
    masks: Iterator[Mask], total: int, step: str, on_progress: Callable[[Checkpoint], None]
) -> Iterator[Mask]:
    """Yield masks, and say how many were taken."""
    for done, mask in enumerate(masks):
        on_progress(Checkpoint(done, total, step))
        yield mask


def _without(circuit: Circuit, sizes: Sequence[int]) -> Iterator[Mask]:
    """Yield a circuit without every set of its edges of some sizes."""
    own = [circuit.graph.index(edge) for edge in circuit.edges]
    for cut in masks_of(circuit.graph, own, sizes):
        yield circuit.kept.cpu() & ~cut


def _of_all(circuit: Circuit, problem: Problem, sizes: Sequence[int]) -> Iterator[Mask]:
    """Yield every circuit of some sizes; where dead ends change nothing, those without any.

    With dead ends that change nothing, a circuit is equal to one with fewer edges still.
    """
    graph = circuit.graph
    every = [graph.index(edge) for edge in graph.edges()]
    for mask in masks_of(graph, every, sizes):
        if not problem.pruning_is_free or torch.equal(on_paths(graph, mask), mask):
            yield mask
