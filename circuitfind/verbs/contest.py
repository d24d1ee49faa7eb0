"""The search for rivals of a circuit: no larger, at least as faithful, as different as possible.

On a small graph every circuit is measured, which proves what there is. Elsewhere searches in random
orders are pushed away from the circuit (`methods/repelled.py`), with prices in turn. What a search
keeps is cut down to the circuit's size, by the sizes of effects; if that is not faithful enough,
the search is repeated with a smaller threshold.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from circuitfind.circuit import Circuit, require_same_graph
from circuitfind.comparison.rivals import (
    Rival,
    Rivals,
    is_rival,
    rival_of,
    shared_by_all,
)
from circuitfind.directories.attempts import Attempts
from circuitfind.directories.rivals import RivalsConfig
from circuitfind.errors import MethodError
from circuitfind.evaluation.exhaustive import enumerate_circuits, n_subsets
from circuitfind.evaluation.intervals import share_bound
from circuitfind.evaluation.measured import Measured
from circuitfind.limits import LIMITS
from circuitfind.methods import METHODS
from circuitfind.methods.base import Progress
from circuitfind.methods.repelled import Repulsion, largest, repelled
from circuitfind.progress import Checkpoint

PRICES = (math.inf, 1.0, 10.0)
"""What restarts pay for an edge of the circuit, in turn."""

FINER, MOST_THRESHOLDS = 4.0, 3
"""By what a threshold is divided where it does not lead to a rival, and how many are tried."""

_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-6}
"""By what circuits that do the same may differ in faithfulness; else the type's relative step."""

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
        attempts: Restarts that were made already, and where new ones are kept.
        on_progress: Called as the work proceeds; first with what was done already.
    """

    circuit: Circuit
    measured: Measured
    held_out: Measured | None
    settings: RivalsConfig
    attempts: Attempts
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None

    def __post_init__(self) -> None:
        for each in (self.measured, self.held_out):
            if each is not None:
                require_same_graph(self.circuit.graph, each.problem.graph)
        if not self.circuit.n_edges:
            raise MethodError(
                "the circuit is empty, so nothing can do its work; give one that keeps an edge"
            )
        (self.faithfulness,) = self.measured.faithfulness([self.circuit.kept.cpu()])
        self.wanted = self.faithfulness - self.settings.tolerance
        self.target = self.wanted - rounding(self.measured.problem.model.dtype)
        if self.target <= 0:
            raise MethodError(
                f"the circuit has a faithfulness of {self.faithfulness:.3g}, and with a tolerance "
                f"of {self.settings.tolerance:g} a rival needs none: no edge at all would do; give "
                "a smaller tolerance, or a more faithful circuit"
            )

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
            target=self.wanted,
            rivals=tuple(rivals),
            core=core,
            spared=spared,
            n_unused=n_unused,
            n_within=search.n_within,
            proved=search.proved,
            n_considered=search.n_considered,
            n_measured=search.n_measured,
            n_restarts=search.n_restarts,
            n_met=search.n_met,
            unseen=share_bound(0, search.n_restarts) if search.n_restarts else None,
            rounding=rounding(self.measured.problem.model.dtype),
            seconds=time.monotonic() - started,
        )
        return figures, circuits

    def _all(self, n_subsets: int) -> "_Search":
        """Measure every circuit of at most as many edges."""
        n = self.circuit.n_edges

        def say(done: int) -> None:
            # What an earlier process measured is found again, and is no step.
            if self.measured.n_made:
                self.on_progress(Checkpoint(done, n_subsets, "sets of edges"))

        self.on_progress(Checkpoint(0, n_subsets, "sets of edges"))
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
        self._tell(len(self.attempts), 0, 0)
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
        if number not in self.attempts:
            self.attempts.add(number, self._searched(number))
        return self.attempts[number]

    def _searched(self, number: int) -> Circuit | None:
        price = PRICES[number % len(PRICES)]
        asked = Repulsion(self._threshold, price, seed_of(self.settings.seed, number))
        for trial in range(MOST_THRESHOLDS):
            if (rival := self._fitted(self._repelled(number, trial, asked))) is not None:
                return rival
            asked = replace(asked, threshold=asked.threshold / FINER)
        return None

    def _repelled(self, number: int, trial: int, asked: Repulsion) -> Circuit:
        with self.attempts.searching(number, trial) as (earlier, record):

            def say(step: Progress) -> None:
                record(step)
                if step.decisions:
                    self._tell(number, trial, step.done)

            return repelled(self.measured.engine, self.circuit, asked, earlier, say)

    def _tell(self, number: int, trial: int, done: int) -> None:
        n, each = self.settings.restarts, MOST_THRESHOLDS * self.circuit.graph.n_edges
        done += number * each + trial * self.circuit.graph.n_edges
        self.on_progress(Checkpoint(min(done, n * each), n * each, "edges of all restarts"))

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
        scale = self.measured.scale
        share = _GAP_SHARE * abs(scale.full - scale.empty) / self.circuit.n_edges
        return self.settings.threshold or _threshold_of(self.circuit) or share


def _threshold_of(circuit: Circuit) -> float | None:
    """Return the threshold of the search for a circuit, if it was one in the metric's unit."""
    method, options = METHODS.get(circuit.origin.get("method")), circuit.origin.get("options")
    if method is None or not isinstance(options, Mapping):
        return None
    given: Any = options.get(method.option_for("threshold"))
    return float(given) if LIMITS["restart_threshold"].holds(given) else None


def rounding(dtype: torch.dtype) -> float:
    """Return by how much circuits that do the same may differ in faithfulness."""
    return _ROUNDING.get(dtype) or torch.finfo(dtype).eps


def seed_of(seed: int, number: int) -> int:
    """Return the seed of a restart: searches with different seeds share none."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])
