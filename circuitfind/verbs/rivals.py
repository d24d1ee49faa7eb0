"""Find rivals of a circuit: no larger, at least as faithful, and as different as possible.

On a small graph every circuit is measured, which proves what there is. Elsewhere searches in random
orders are pushed away from the circuit (`methods/repelled.py`), with prices in turn. What a search
keeps is cut down to the circuit's size, by the sizes of effects; if that is not faithful enough,
the search is repeated with a smaller threshold.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit, require_same_graph
from circuitfind.comparison.rivals import (
    Rivals,
    is_rival,
    rival_of,
    shared_by_all,
    unseen_share,
)
from circuitfind.directories.directory import digest_of, load_circuit_of
from circuitfind.directories.naming import path_beside
from circuitfind.directories.rivals import ATTEMPTS, RivalsConfig, RivalsDirectory
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.evaluation.exhaustive import MOST_SUBSETS, enumerate_circuits, n_subsets
from circuitfind.evaluation.measured import Measured
from circuitfind.evaluation.passes import PassLog
from circuitfind.files import path_of
from circuitfind.methods.repelled import Repulsion, largest, repelled
from circuitfind.problem import HasProblem
from circuitfind.progress import Checkpoint
from circuitfind.question import Models, Question, fingerprints, problem_again
from circuitfind.store import Log

PRICES = (math.inf, 1.0, 10.0)
"""What restarts pay for an edge of the circuit, in turn."""

FINER, MOST_THRESHOLDS = 4.0, 3
"""By what a threshold is divided where it does not lead to a rival, and how many are tried."""

_ROUNDING = 1e-9
_GAP_SHARE = 0.1


@dataclass(frozen=True)
class FoundRivals:
    """Result of a search for rivals.

    Attributes:
        path: The directory that it was written to.
        rivals: The figures.
        written: The files.
    """

    path: Path
    rivals: Rivals
    written: tuple[Path, ...]


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

    @property
    def n_subsets(self) -> int:
        """How many sets of at most as many edges as the circuit has there are."""
        return n_subsets(self.circuit.graph, self.circuit.n_edges)

    @property
    def is_small(self) -> bool:
        """Whether all of them are measured."""
        return self.n_subsets <= MOST_SUBSETS

    @property
    def cost(self) -> str:
        """What will be done, for people."""
        n = self.circuit.n_edges
        if self.is_small:
            return f"every circuit of at most {n} edges: {self.n_subsets} sets of edges"
        restarts, edges = self.settings.restarts, self.circuit.graph.n_edges
        return (
            f"{restarts} restarts, each 1 to {MOST_THRESHOLDS} searches among {edges} edges; too "
            f"many circuits of at most {n} edges to measure them all"
        )

    def run(self) -> tuple[Rivals, list[Circuit]]:
        """Return the figures, and the rivals, the one that shares least first."""
        started = time.monotonic()
        n_considered = n_measured = n_within = n_restarts = n_met = 0
        if self.is_small:
            n = self.circuit.n_edges
            total = self.n_subsets
            every = enumerate_circuits(
                self.measured,
                n,
                self.target,
                lambda done: self.on_progress(Checkpoint(done, total, "sets of edges")),
            )
            n_considered, n_measured = every.n_subsets, every.n_measured
            found = [each for each, _ in every.circuits if is_rival(self.circuit, each)]
            n_within = sum(
                not is_rival(self.circuit, each) and each.n_edges < n for each, _ in every.circuits
            )
        else:
            n_restarts = self.settings.restarts
            ends = [self._restarted(number) for number in range(n_restarts)]
            met = [each for each in ends if each is not None]
            n_met = len(met)
            found = list({each.kept.numpy().tobytes(): each for each in met}.values())
        rivals, circuits = self._compared(found)
        core, spared, n_unused = shared_by_all(self.circuit, rivals)
        return (
            Rivals(
                self.circuit.n_edges,
                self.faithfulness,
                self._held_out([self.circuit])[0],
                self.target + _ROUNDING,
                tuple(rivals),
                core if rivals or self.is_small else (),
                spared,
                n_unused,
                n_within,
                self.is_small,
                n_considered,
                n_measured,
                n_restarts,
                n_met,
                unseen_share(n_restarts),
                time.monotonic() - started,
            ),
            circuits,
        )

    def _compared(self, found: Sequence[Circuit]) -> tuple[list[Any], list[Circuit]]:
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


def rivals_of(
    asked: HasProblem,
    circuit: Circuit,
    held_out: HasProblem | None,
    settings: RivalsConfig,
    tell: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Rivals:
    """Find rivals without a directory; see `find_rivals`."""
    others = None if held_out is None else Measured(held_out)
    contest = Contest(circuit, Measured(asked), others, settings, on_progress=on_progress)
    tell(contest.cost)
    return contest.run()[0]


def find_rivals(
    path: Path | str,
    settings: RivalsConfig | None = None,
    out: Path | str | None = None,
    *,
    model: Any = None,
    tell: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> FoundRivals:
    """Find rivals of a circuit and write `rivals.json`, the one that shares least and a drawing.

    Restarts and passes are kept as they are made, and found again if the work is repeated.

    Args:
        path: A run directory or a circuit file.
        settings: How to search.
        out: The directory to write to; by default `NAME-rivals` beside the circuit.
        model: What `load_model` returned or takes; by default what the run names.
        tell: Called with the cost before it is paid, and with other things to know.
        on_progress: Called as the work proceeds.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    path = path_of(path)
    circuit = load_circuit_of(path)
    config = replace(settings or RivalsConfig(), circuits=(digest_of(circuit),))
    place = path_of_rivals(path, config) if out is None else path_of(out)
    directory = RivalsDirectory.open(place, config)
    if (there := directory.result()) is not None:
        tell(f"{place} is finished: its results are read, not computed again")
        return FoundRivals(place, there, directory.files)
    problem = problem_again(circuit, path, Models(model, tell), device=config.device)
    other = Question.of(circuit, path).held_out(problem.model, circuit.graph)

    def measuring(asked: Any, log: PassLog) -> Measured:
        return Measured(IncrementalEngine(asked, config.memory), log=log)

    with directory.measuring(fingerprints(problem), tell) as log:
        contest = Contest(
            circuit,
            measuring(problem, log),
            None if other is None else measuring(other, log),
            config,
            on_progress=on_progress,
        )
        tell(contest.cost)
        kept = Log(place / ATTEMPTS)
        contest.attempts = dict(json.loads(line) for line in kept.lines)
        contest.keep = lambda *attempt: kept.write([json.dumps(attempt).encode() + b"\n"])
        try:
            found, rivals = contest.run()
        finally:
            kept.close()
        directory.write_result(found, circuit, rivals)
    return FoundRivals(place, found, directory.files)


def path_of_rivals(path: Path | str, settings: RivalsConfig) -> Path:
    """Return the directory of a search for rivals unless the user names one."""
    changed = {
        "restarts": settings.restarts if settings.restarts != RivalsConfig.restarts else None,
        "threshold": settings.threshold,
        "tolerance": settings.tolerance or None,
        "seed": settings.seed or None,
    }
    return path_beside(path_of(path), "rivals", changed)
