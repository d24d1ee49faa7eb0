"""How small is a circuit that is equal to its model on every input?

How small the circuit is has four levels, each of which includes those before it: no single edge can
be cut without a case that differs; no one or two edges; no set of its edges; and no circuit of the
graph has fewer edges. Cutting more may mend what cutting less breaks, so the levels differ. The
hierarchy of minimality is an idea of Hadad, Katz and Bassan, arXiv 2602.16823, who certify over
continuous inputs; the levels here are those just stated.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from circuitfind.circuit import Circuit
from circuitfind.evaluation.exhaustive import masks_of, n_sets
from circuitfind.evaluation.measured import Mask
from circuitfind.graph import Graph
from circuitfind.paths import on_paths
from circuitfind.problem import Problem
from circuitfind.progress import Checkpoint


@dataclass(frozen=True)
class Level:
    """One level of minimality.

    Attributes:
        name: `edge`, `pair`, `subset` or `least`.
        holds: Whether each circuit that was tried differs; None where the level was not tried, or
            rounding leaves open if some of them are equal.
        n_tried: How many circuits were tried for it.
        smaller: The edges of a smaller circuit that is equal to the model, where there is one.
        note: Why it is not known.
        proved: Whether rounding cannot change that: each circuit that was tried is proved to
            differ, or the smaller one to be equal. Else it is so as far as rounding was measured.
    """

    name: str
    holds: bool | None
    n_tried: int
    smaller: tuple[str, ...] = ()
    note: str = ""
    proved: bool = False


class Tried(NamedTuple):
    """Circuits that were tried.

    Attributes:
        equal: The first that is equal to the model in all cases; None where all differ.
        n: How many were tried.
        proved: Whether rounding cannot change that.
        n_open: Of how many neither is proved, and the measured rounding does not tell them apart.
    """

    equal: Mask | None
    n: int
    proved: bool
    n_open: int


@runtime_checkable
class Equality(Protocol):
    """What says whether circuits are equal to the model.

    Attributes:
        problem: The question.
    """

    problem: Problem

    def first_equal(self, masks: Iterator[Mask], on_tried: Callable[[], None]) -> Tried:
        """Return the first circuit that is equal in all cases, and what is known of the others.

        Args:
            masks: The circuits.
            on_tried: Called when none of those taken so far is found equal.
        """
        ...


def levels(
    check: Equality,
    circuit: Circuit,
    most: int,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Iterator[Level]:
    """Yield the levels of minimality; one that fails, or is not tried, settles those after it."""
    n = circuit.n_edges
    own, every = (
        [circuit.graph.index(edge) for edge in edges]
        for edges in (circuit.edges, circuit.graph.edges())
    )
    without, of_all = partial(_without, circuit), partial(_without_dead_ends, check.problem)
    tries = {
        "edge": (own, [1], without),
        "pair": (own, [2], without),
        "subset": (own, range(3, n + 1), without),
        "least": (every, range(n), of_all),
    }
    settled: Level | None = None
    for name, (edges, sizes, masks) in tries.items():
        n_masks = n_sets(len(edges), sizes, most)
        if settled is None and n_masks is None:
            note = f"more than {most:,} circuits to try, which is the most that are allowed"
            settled = Level(name, None, 0, note=note)
        if settled is not None:
            yield replace(settled, name=name, n_tried=0)
            continue
        sets = _Counted(masks_of(circuit.graph, edges, sizes))

        def tell(sets: _Counted = sets, total: int = n_masks or 0, name: str = name) -> None:
            on_progress(Checkpoint(sets.n_taken, total, f"circuits of the level {name}"))

        tell()
        level = _level(name, circuit.graph, check.first_equal(masks(sets), tell))
        settled = None if level.holds else level
        yield level


def _level(name: str, graph: Graph, tried: Tried) -> Level:
    if tried.equal is not None:
        smaller = tuple(edge.name for edge in Circuit(graph, tried.equal).edges)
        return Level(name, holds=False, n_tried=tried.n, smaller=smaller, proved=tried.proved)
    if tried.n_open:
        note = f"of {tried.n_open:,} circuits neither is proved: equal, or different"
        return Level(name, holds=None, n_tried=tried.n, note=note)
    return Level(name, holds=True, n_tried=tried.n, proved=tried.proved)


class _Counted:
    """Sets of edges, and how many of them were taken."""

    def __init__(self, masks: Iterator[Mask]) -> None:
        self._masks, self.n_taken = masks, 0

    def __iter__(self) -> Iterator[Mask]:
        for mask in self._masks:
            self.n_taken += 1
            yield mask


def _without(circuit: Circuit, sets: Iterable[Mask]) -> Iterator[Mask]:
    """Yield a circuit without each of some sets of its edges."""
    for cut in sets:
        yield circuit.kept.cpu() & ~cut


def _without_dead_ends(problem: Problem, sets: Iterable[Mask]) -> Iterator[Mask]:
    """Yield some circuits; where dead ends change nothing, those without any.

    With dead ends that change nothing, a circuit is equal to one with fewer edges still.
    """
    for mask in sets:
        if not problem.pruning_is_free or torch.equal(on_paths(problem.graph, mask), mask):
            yield mask
