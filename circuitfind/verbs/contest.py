"""The search for rivals of a circuit: no larger, at least as faithful, as different as possible.

On a small graph every circuit is measured, which proves what there is. Elsewhere searches are
pushed away from the circuit again and again (`restarts`). What a search keeps is cut down to the
circuit's size, by the sizes of effects or probabilities; if that is not faithful enough, the search
is repeated with less of a push.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property

import torch

from circuitfind.circuit import Circuit, require_same_graph
from circuitfind.comparison.rivals import (
    Restarts,
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
from circuitfind.progress import Checkpoint
from circuitfind.verbs.restarts import Restarting

_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-6}
"""By what circuits that do the same may differ in faithfulness; else the type's relative step."""


@dataclass(frozen=True)
class _Search:
    """What a search for rivals came to; see `Rivals`."""

    found: Sequence[Circuit]
    _: KW_ONLY
    proved: bool
    n_within: int = 0
    n_considered: int = 0
    n_measured: int = 0
    ends: Mapping[int, Circuit | None] = field(default_factory=dict)
    failed: Sequence[int] = ()


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
        return f"{self.restarting.cost}; too many circuits of at most {n} edges to measure them all"

    @property
    def restarting(self) -> Restarting:
        """The searches that are made where there are too many circuits."""
        return Restarting(
            self.circuit, self.measured, self.settings, self.attempts, self.on_progress
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
            n_restarts=len(search.ends),
            n_met=sum(end is not None for end in search.ends.values()),
            kinds=tuple(self._kinds(search, rivals)),
            unseen=share_bound(0, len(search.ends)) if search.ends else None,
            rounding=rounding(self.measured.problem.model.dtype),
            seconds=time.monotonic() - started,
        )
        return figures, circuits

    def _all(self, n_subsets: int) -> "_Search":
        """Measure every circuit of at most as many edges."""
        n = self.circuit.n_edges

        def say(done: int) -> None:
            # What an earlier process measured is found again, and is not a step.
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
        self.restarting.tell(len(self.attempts))
        ends = {number: self._restarted(number) for number in range(self.settings.restarts)}
        failed = [number for number, end in ends.items() if end is not None and not end.n_edges]
        ends = {number: end for number, end in ends.items() if number not in failed}
        found = {end.kept.numpy().tobytes(): end for end in ends.values() if end is not None}
        return _Search(list(found.values()), proved=False, ends=ends, failed=failed)

    def _kinds(self, search: _Search, rivals: Sequence[Rival]) -> Iterator[Restarts]:
        """Yield what came of the restarts of each kind."""
        shared = {each.edges: each.jaccard for each in rivals}
        by_kind: dict[str, list[Circuit | None]] = {}
        kind_of = self.restarting.kind
        n_failed = Counter(map(kind_of, search.failed))
        for number, end in search.ends.items():
            by_kind.setdefault(kind_of(number), []).append(end)
        for kind in dict.fromkeys([*by_kind, *n_failed]):
            of_kind = by_kind.get(kind, [])
            met = [end for end in of_kind if end is not None]
            least = [shared[tuple(edge.name for edge in end.edges)] for end in met]
            yield Restarts(kind, len(of_kind), len(met), min(least, default=None), n_failed[kind])

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
        """Return the rival that a restart ends in, if it does.

        A circuit without edges says that none of its searches came to an end.
        """
        if number not in self.attempts:
            self.attempts.add(number, self._searched(number))
        return self.attempts[number]

    def _searched(self, number: int) -> Circuit | None:
        end: Circuit | None = Circuit.of_edges(self.circuit.graph, [])
        for found in self.restarting.found(number):
            end = self._fitted(found)
            if end is not None:
                break
        return end

    def _fitted(self, found: Circuit) -> Circuit | None:
        """Return what a search found, without dead ends where they are free, if it is a rival."""
        if self.measured.problem.pruning_is_free:
            found = found.connected()
        if not found.n_edges or not is_rival(self.circuit, found):
            return None
        (share,) = self.measured.faithfulness([found.kept])
        return found if share >= self.target else None


def rounding(dtype: torch.dtype) -> float:
    """Return by how much circuits that do the same may differ in faithfulness."""
    return _ROUNDING.get(dtype) or torch.finfo(dtype).eps
