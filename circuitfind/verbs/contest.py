"""The search for rivals of a circuit: no larger, at least as faithful, as different as possible.

On a small graph every circuit is measured, which proves what there is. Elsewhere searches in random
orders are pushed away from the circuit (`methods/repelled.py`), with prices in turn. What a search
keeps is cut down to the circuit's size, by the sizes of effects; if that is not faithful enough,
the search is repeated with a smaller threshold.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

from circuitfind.circuit import Circuit, require_same_graph
from circuitfind.comparison.rivals import (
    Rival,
    Rivals,
    is_rival,
    rival_of,
    shared_by_all,
    unseen_share,
)
from circuitfind.directories.rivals import RivalsConfig
from circuitfind.errors import MethodError
from circuitfind.evaluation.exhaustive import enumerate_circuits, n_subsets
from circuitfind.evaluation.measured import Measured
from circuitfind.methods.repelled import Repulsion, largest, repelled
from circuitfind.progress import Checkpoint

PRICES = (math.inf, 1.0, 10.0)
"""What restarts pay for an edge of the circuit, in turn."""

FINER, MOST_THRESHOLDS = 4.0, 3
"""By what a threshold is divided where it does not lead to a rival, and how many are tried."""

_ROUNDING = 1e-9
_GAP_SHARE = 0.1


@dataclass(frozen=True)
class _Search:
    """What a search for rivals came to; see `Rivals`."""

    found: Sequence[Circuit]
    _: KW_ONLY
    proved: bool
    n_within: int = 0
    n_considered: int = 0
    n_measured: int = 0
    n_restarts: int = 0
    n_met: int = 0


@dataclass
class Contest:
    """A circuit whose rivals are looked for.

    Attributes:
        circuit: The circuit.
        measured: Measures on the prompts of the search.
        held_out: Measures on other prompts, where there are any.
        settings: How to search.
        attempts: Rivals that earlier restarts ended in, by number; None for a restart without one.
        keep: Called with the number of a restart and its rival.
        on_progress: Called as the work proceeds.
    """

    circuit: Circuit
    measured: Measured
    held_out: Measured | None
    settings: RivalsConfig
    attempts: dict[int, list[str] | None] = field(default_factory=dict)
    keep: Callable[[int, list[str] | None], None] = lambda number, edges: None
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None

    def __post_init__(self) -> None:
        require_same_graph(self.circuit.graph, self.measured.problem.graph)
        if not self.circuit.n_edges:
            raise MethodError(
                "the circuit is empty, so nothing can do its work; give one that keeps an edge"
            )
        (self.faithfulness,) = self.measured.faithfulness([self.circuit.kept.cpu()])
        self.target = self.faithfulness - self.settings.tolerance - _ROUNDING

    @cached_property
    def n_subsets(self) -> int | None:
        """How many sets of at most as many edges as the circuit has there are; None if too many."""
        return n_subsets(self.circuit.graph, self.circuit.n_edges)

    @property
    def cost(self) -> str:
        """What will be done, for people."""
        n = self.circuit.n_edges
        if self.n_subsets is not None:
            return f"every circuit of at most {n} edges: {self.n_subsets} sets of edges"
        restarts, edges = self.settings.restarts, self.circuit.graph.n_edges
        return (
            f"{restarts} restart{'s' * (restarts != 1)}, each 1 to {MOST_THRESHOLDS} searches "
            f"among {edges} edges; too many circuits of at most {n} edges to measure them all"
        )

    def run(self) -> tuple[Rivals, list[Circuit]]:
        """Return the figures, and the rivals, the one that shares least first."""
        started = time.monotonic()
        search = self._restarts() if self.n_subsets is None else self._all(self.n_subsets)
        rivals, circuits = self._compared(search.found)
        core, spared, n_unused = shared_by_all(self.circuit, rivals)
        figures = Rivals(
            n_edges=self.circuit.n_edges,
            faithfulness=self.faithfulness,
            held_out=self._held_out([self.circuit])[0],
            target=self.target + _ROUNDING,
            rivals=tuple(rivals),
            core=core if rivals or search.proved else (),
            spared=spared,
            n_unused=n_unused,
            n_within=search.n_within,
            proved=search.proved,
            n_considered=search.n_considered,
            n_measured=search.n_measured,
            n_restarts=search.n_restarts,
            n_met=search.n_met,
            unseen=unseen_share(search.n_restarts),
            seconds=time.monotonic() - started,
        )
        return figures, circuits

    def _all(self, n_subsets: int) -> "_Search":
        """Measure every circuit of at most as many edges."""
        n = self.circuit.n_edges

        def say(done: int) -> None:
            self.on_progress(Checkpoint(done, n_subsets, "sets of edges"))

        every = enumerate_circuits(self.measured, n, self.target, say)
        circuits = [circuit for circuit, _ in every.circuits]
        found = [each for each in circuits if is_rival(self.circuit, each)]
        n_within = sum(each.n_edges < n and not is_rival(self.circuit, each) for each in circuits)
        return _Search(
            found,
            proved=True,
            n_within=n_within,
            n_considered=every.n_subsets,
            n_measured=every.n_measured,
        )

    def _restarts(self) -> "_Search":
        """Search again and again, pushed away from the circuit."""
        n = self.settings.restarts
        met = [each for each in map(self._restarted, range(n)) if each is not None]
        found = list({each.kept.numpy().tobytes(): each for each in met}.values())
        return _Search(found, proved=False, n_restarts=n, n_met=len(met))

    def _compared(self, found: Sequence[Circuit]) -> tuple[list[Rival], list[Circuit]]:
        shares = self.measured.faithfulness([each.kept for each in found]) if found else []
        rows = zip(found, shares, self._held_out(found), strict=True)
        pairs = [
            (rival_of(self.circuit, each, share, elsewhere), each)
            for each, share, elsewhere in rows
        ]
        pairs.sort(key=lambda pair: (pair[0].jaccard, -pair[0].faithfulness, pair[0].edges))
        return [rival for rival, _ in pairs], [circuit for _, circuit in pairs]

    def _held_out(self, circuits: Sequence[Circuit]) -> list[float | None]:
        if self.held_out is None or not self.held_out.scale.has_gap:
            return [None] * len(circuits)
        found = self.held_out.faithfulness([each.kept.cpu() for each in circuits])
        return list[float | None](found)

    def _restarted(self, number: int) -> Circuit | None:
        """Return the rival that a restart ends in, if it does."""
        graph = self.circuit.graph
        if number in self.attempts:
            edges = self.attempts[number]
            return None if edges is None else Circuit.of_edges(graph, edges)
        rival = self._searched(number)
        self.keep(number, None if rival is None else [edge.name for edge in rival.edges])
        return rival

    def _searched(self, number: int) -> Circuit | None:
        threshold = self._threshold
        for _ in range(MOST_THRESHOLDS):
            asked = Repulsion(threshold, PRICES[number % len(PRICES)], self.settings.seed + number)
            found = repelled(self.measured.engine, self.circuit, asked, self._said(number))
            if (rival := self._fitted(found)) is not None:
                return rival
            threshold /= FINER
        return None

    def _said(self, number: int) -> Callable[[Any], None]:
        total = self.settings.restarts * self.circuit.graph.n_edges

        def say(step: Any) -> None:
            done = number * self.circuit.graph.n_edges + step.done
            self.on_progress(Checkpoint(done, total, "edges of all restarts"))

        return say

    def _fitted(self, found: Circuit) -> Circuit | None:
        """Return what a search found at the circuit's size, if that is a rival."""
        found = largest(found, self.circuit.n_edges)
        if self.measured.problem.pruning_is_free:
            found = found.connected()
        if not found.n_edges or not is_rival(self.circuit, found):
            return None
        (share,) = self.measured.faithfulness([found.kept])
        return found if share >= self.target else None

    @property
    def _threshold(self) -> float:
        given = self.settings.threshold
        if given is None:
            options = self.circuit.origin.get("options") or {}
            given = options.get("threshold")
        if isinstance(given, int | float) and given > 0:
            return float(given)
        scale = self.measured.scale
        return _GAP_SHARE * abs(scale.full - scale.empty) / self.circuit.n_edges
