"""Evaluate a circuit: say what it will cost, then measure it.

The unit of cost is a pass: a circuit measured on all prompts. How many are needed is known before,
and that each takes at most about as long as a run of the whole model.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from circuitfind.ablations import Ablation
from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.evaluation.assessment import Assessment, Reading
from circuitfind.evaluation.baseline import Baseline, random_baseline
from circuitfind.evaluation.completeness import Completeness, completeness, n_knock_out_passes
from circuitfind.evaluation.cuts import removable
from circuitfind.evaluation.false_discoveries import Discoveries, discoveries
from circuitfind.evaluation.hypotheses import HypothesisTest
from circuitfind.evaluation.ideal import ideal_tests, n_ideal_passes
from circuitfind.evaluation.measured import Measured
from circuitfind.evaluation.minimality import Minimality, minimality
from circuitfind.evaluation.passes import PassLog
from circuitfind.evaluation.refit import Divergence, divergences
from circuitfind.evaluation.roc import RocCurve
from circuitfind.evaluation.scorecard import measurement, usual_metrics
from circuitfind.evaluation.size_curve import SHARES, Ranking, SizeCurve, curve_of, size_curve
from circuitfind.evaluation.strongest_path import N_PASSES, StrongestPath, strongest_path
from circuitfind.evaluation.trust import doubts, notes, own_of
from circuitfind.metrics import ACCURACY, Metric
from circuitfind.problem import Problem
from circuitfind.progress import Checkpoint

_FEWEST_PER_TEMPLATE = 2


@dataclass(frozen=True)
class Effort:
    """Limits on the cost of an evaluation.

    Attributes:
        name: What the command line calls it.
        n_random: Random circuits of each kind.
        n_knock_outs: Random sets of components that are knocked out.
        n_greedy: How many components the greedily worst set may have.
        n_backups: How many components outside the circuit are tried as backups; None tries all.
        n_sets: Random sets of edges in whose absence an edge without effect is tried again.
        edges: Whether edges and components are tested one by one: all but the first three parts.
    """

    name: str
    n_random: int
    n_knock_outs: int = 0
    n_greedy: int = 0
    n_backups: int | None = None
    n_sets: int = 0
    edges: bool = True


QUICK = Effort("quick", n_random=20, edges=False)
USUAL = Effort("usual", n_random=40, n_knock_outs=5, n_greedy=1, n_backups=12, n_sets=3)
FULL = Effort("full", n_random=100, n_knock_outs=20, n_greedy=3, n_sets=12)
EFFORTS = (QUICK, USUAL, FULL)


@dataclass(frozen=True)
class Subject:
    """The circuit to evaluate, and the problem it is evaluated on.

    Attributes:
        circuit: The circuit.
        problem: The question that it answers, with the prompts on which it was found.
        held_out: The same with other prompts, where there are any.
        ranking: All edges by importance, where the method gave any.
        others: The same search's circuits at other thresholds.
        roles: Groups of the circuit's components that do the same.
        roc: Its comparison with a known circuit.
        against: The name of that.
        constants: Those of the circuit itself (`learned_constants`), to compare ablations.
    """

    circuit: Circuit
    problem: Problem
    held_out: Problem | None = None
    ranking: Ranking | None = None
    others: tuple[Circuit, ...] = ()
    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    roc: tuple[RocCurve, ...] = ()
    against: str | None = None
    constants: Ablation | None = None


def passes(subject: Subject, effort: Effort) -> dict[str, int]:
    """Return how many passes each part takes; edges without effect can take some more."""
    circuit, held_out = subject.circuit, subject.held_out is not None
    found = {"faithfulness": 3 + 3 * held_out, "size curve": 0, "random circuits": 0}
    if subject.ranking is not None:
        found["size curve"] = len(SHARES)
    if subject.others:
        found["size curve"] = 2 + len(subject.others)
    if circuit.n_edges:
        found["random circuits"] = 1 + effort.n_random
    if effort.edges and circuit.n_edges:
        found["completeness"] = n_knock_out_passes(
            circuit,
            effort.n_knock_outs,
            effort.n_greedy,
            effort.n_backups,
            len(subject.roles),
        )
        found["strongest path"] = N_PASSES + effort.n_random
        found["minimality"] = 1 + circuit.n_edges + len(removable(circuit))
        found["tests"] = n_ideal_passes(effort.n_random)
        found["false discoveries"] = held_out * (1 + circuit.n_edges)
    return found


def assess(
    subject: Subject,
    effort: Effort = USUAL,
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
    log: PassLog | None = None,
    memory: int | str | None = None,
) -> Assessment:
    """Evaluate a circuit.

    Args:
        subject: What is evaluated, on what.
        effort: How much it may cost.
        seed: Fixes the random circuits and sets.
        tell: Called with the cost, before it is paid.
        on_progress: Called as passes are made.
        log: Passes that were made already, and where new ones are kept.
        memory: How many bytes may be taken beside the model; by default what it takes.

    Raises:
        MethodError: The memory is too small for a single pair of prompts.
    """
    started, measured = time.monotonic(), []
    for problem in (subject.problem, subject.held_out):
        if problem is not None:
            engine = IncrementalEngine(problem, memory)
            measured.append(Measured(engine, usual_metrics(problem), log=log))
    # Each engine has run the model twice.
    seconds = (time.monotonic() - started) / (2 * len(measured))
    assessor = _Assessor(subject, effort, seed, measured, on_progress, memory)
    tell(assessor.cost(seconds))
    return assessor.run()


class _Assessor:
    def __init__(
        self,
        subject: Subject,
        effort: Effort,
        seed: int,
        measured: Sequence[Measured],
        on_progress: Callable[[Checkpoint], None],
        memory: int | str | None,
    ) -> None:
        self._subject, self._effort, self._seed = subject, effort, seed
        self._memory = memory
        self._all, self._measured = measured, measured[0]
        self._circuit = subject.circuit
        self._planned = passes(subject, effort)
        total = sum(self._planned.values())

        def count() -> None:
            done = sum(each.n_passes for each in self._all)
            on_progress(Checkpoint(done, max(total, done), "passes"))

        for each in measured:
            each.on_pass = count
        self._own = subject.problem.metric

    def run(self) -> Assessment:
        subject, metric = self._subject, self._own
        readings = self._readings()
        problem = subject.problem
        engine = self._measured.engine
        own = own_of(engine)
        kept = [r.measured.circuit for r in readings if r.measured.metric == ACCURACY.name]
        return Assessment(
            effort=self._effort.name,
            ablation=subject.problem.ablation.name,
            metric=metric.name,
            unit=metric.unit,
            n_edges=self._circuit.n_edges,
            n_edges_full=self._circuit.graph.n_edges,
            readings=readings,
            curve=self._curve(),
            baselines=self._baselines(),
            completeness=self._completeness(),
            path=self._path(),
            minimality=self._minimality(),
            tests=self._tests(),
            discoveries=self._discoveries(),
            roc=subject.roc,
            against=subject.against,
            n_passes=sum(each.n_passes for each in self._all),
            seconds=sum(each.seconds for each in self._all),
            own=own,
            doubts=doubts(
                problem,
                self._circuit,
                own,
                kept_accuracy=kept[0] if kept else None,
                faithfulness=readings[0].measured.faithfulness,
            ),
            notes=notes(problem),
            divergences=self._divergences(),
        )

    def cost(self, seconds: float) -> str:
        """Return how many passes are made, and an upper bound on the time, for people.

        Args:
            seconds: What a run of the whole model took; one of a circuit takes less.
        """
        total = sum(self._planned.values())
        parts = ", ".join(f"{name} {n}" for name, n in self._planned.items() if n)
        n = self._subject.problem.prompts.n_prompts
        return (
            f"{total} passes of {n} prompts ({parts}), at most about {_duration(total * seconds)}"
        )

    @property
    def _tests_edges(self) -> bool:
        return self._effort.edges and self._circuit.n_edges > 0

    def _readings(self) -> tuple[Reading, ...]:
        found = []
        for place, measured in zip(("discovery", "held-out"), self._all, strict=False):
            values, (full, empty) = measured.values([self._circuit.kept.cpu()]), measured.limits
            for metric in measured.metrics:
                rows = [each[metric.name][0] for each in (full, values, empty)]
                found.append(Reading(place, len(rows[0]), measurement(metric, *rows)))
                if metric is self._own and place == "discovery":
                    found += self._by_template(metric, rows)
        return tuple(found)

    def _by_template(
        self, metric: Metric, rows: Sequence[Float[Tensor, " batch"]]
    ) -> list[Reading]:
        prompts = self._subject.problem.prompts
        template = None if prompts.template is None else prompts.template[:: prompts.n_runs]
        numbers = [] if template is None else template.unique().tolist()
        if template is None or len(numbers) < 2:
            return []
        chosen = [(number, (template == number).cpu()) for number in numbers]
        return [
            Reading(
                f"template {number}",
                int(mask.sum()),
                measurement(metric, *(row[mask] for row in rows)),
            )
            for number, mask in chosen
            if int(mask.sum()) >= _FEWEST_PER_TEMPLATE
        ]

    def _curve(self) -> SizeCurve | None:
        subject = self._subject
        if subject.others:
            everything = Circuit(self._circuit.graph, self._circuit.graph.edge_mask)
            circuits = [self._circuit, *subject.others, everything]
            asked = [circuit.n_edges / everything.n_edges for circuit in circuits]
            return curve_of(self._measured, circuits, asked, "threshold")
        return None if subject.ranking is None else size_curve(self._measured, subject.ranking)

    def _baselines(self) -> tuple[Baseline, ...]:
        if not self._circuit.n_edges:
            return ()
        found = random_baseline(
            self._measured, self._circuit, self._effort.n_random, null="degree", seed=self._seed
        )
        return () if found is None else (found,)

    def _completeness(self) -> Completeness | None:
        if not self._tests_edges:
            return None
        return completeness(
            self._measured,
            self._circuit,
            n_random=self._effort.n_knock_outs,
            n_greedy=self._effort.n_greedy,
            n_backups=self._effort.n_backups,
            roles=self._subject.roles,
            seed=self._seed,
        )

    def _minimality(self) -> Minimality | None:
        if not self._tests_edges:
            return None
        return minimality(
            self._measured, self._circuit, n_sets=self._effort.n_sets, seed=self._seed
        )

    def _path(self) -> StrongestPath | None:
        if not self._tests_edges:
            return None
        return strongest_path(self._measured, self._circuit, self._effort.n_random, seed=self._seed)

    def _discoveries(self) -> Discoveries | None:
        if not self._tests_edges or len(self._all) < 2:
            return None
        measured, kept = self._all[1], self._circuit.kept.cpu()
        rises = self._own.sign * (measured.without_each_edge(kept) - measured.own([kept]))
        return discoveries(self._circuit, rises, held_out=True)

    def _divergences(self) -> tuple[Divergence, ...]:
        subject = self._subject
        if subject.constants is None:
            return ()
        return divergences(
            self._circuit, subject.constants, subject.problem, subject.held_out, self._memory
        )

    def _tests(self) -> tuple[HypothesisTest, ...]:
        if not self._tests_edges:
            return ()
        cut = self._measured.without_each_edge(self._circuit.kept)
        return ideal_tests(
            self._measured, self._circuit, cut, n_random=self._effort.n_random, seed=self._seed
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
