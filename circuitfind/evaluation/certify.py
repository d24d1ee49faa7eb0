"""Is a circuit equal to its model on every input, and can it be smaller?

Where a model has finitely many inputs, the circuit is checked on all of them (`every_input`). It is
equal to the model if it gives the same label at every position that is read. Where outputs are
numbers, and at positions at which the model's own best two outputs are equal, no output may differ
by more than a tolerance. So the full circuit is equal to its model whatever the model says.

Rounding is proved where that can be done: the outputs of circuit and model are computed with a
bound on how far they are from what exact arithmetic gives (`rounding`). The model has a label where
its best output is further above the next than its own bound allows, and the circuit says the same
one where that output is further above the others than the circuit's bound allows. It is different
where another output is not below, whatever rounding does. Between these, neither is proved. Where
there is no bound, or it is above the tolerance, rounding is measured: it is taken as a thousand
times the largest difference between two separate computations of the full model on the same inputs,
or the spacing of numbers as large as its outputs (in the model's number type), if that is more.

Where there are too many cases, some are drawn at random; where a model reads text, prompts are
tried. What is known then is a bound on how often the circuit differs (Clopper and Pearson 1934;
without a failure about 3 / n).
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from circuitfind.budget import share_of
from circuitfind.circuit import require_same_graph
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.memory import plan
from circuitfind.errors import MethodError, ModelError
from circuitfind.evaluation.certificate import Certificate
from circuitfind.evaluation.every_input import (
    Kind,
    drawn_cases,
    every_case,
    kind_of_cases,
    n_cases,
    share_a_mean,
)
from circuitfind.evaluation.levels import Tried, levels
from circuitfind.evaluation.measured import Mask
from circuitfind.evaluation.outputs import Outputs, compared, measured, within
from circuitfind.evaluation.refutation import Refutations
from circuitfind.evaluation.tally import tally
from circuitfind.limits import require
from circuitfind.measures import Logits, PerPrompt, Reference
from circuitfind.metrics import Metric
from circuitfind.problem import HasProblem, Problem, as_problem, circuit_of_question
from circuitfind.progress import Checkpoint
from circuitfind.prompts import PromptPairs
from circuitfind.rounding.balls import bounded
from circuitfind.rounding.numbers import Unproved

_SAFETY = 1000.0
_BATCHES = 3
"""Of cases, that are in memory at once."""

_AT_ONCE = 256
"""Masks that are measured before their cases are looked at."""


def certify(
    asked: HasProblem,
    circuit: object = None,
    *,
    cases: int = 100_000,
    tries: int = 20_000,
    tolerance: float = 1e-6,
    memory: int | str | None = None,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Certificate:
    """Check a circuit on every input, or say how much the prompts tried prove.

    Args:
        asked: What a search found, or its problem.
        circuit: The circuit; by default what was found.
        cases: How many cases may be checked; where there are more, as many are drawn at random. The
            problem's prompts are tried where nothing says what all inputs are.
        tries: How many circuits may be tried for each level of minimality.
        tolerance: How far numerical outputs may differ.
        memory: How many bytes may be taken beside the model, also as text like `2GB`; by default
            what it takes.
        on_progress: Called as cases are checked and circuits tried.

    Raises:
        GraphError: The circuit belongs to another graph.
        MethodError: The memory is too small for a single pair of prompts.
        ModelError: The model's outputs are not finite numbers.
    """
    require(cases=cases, tries=tries, tolerance=tolerance)
    problem, circuit = as_problem(asked), circuit_of_question(asked, circuit)
    require_same_graph(circuit.graph, problem.graph)
    kind = kind_of_cases(problem, cases)
    batches: dict[Kind, Callable[[], Iterator[PromptPairs]]] = {
        "all": partial(every_case, problem),
        "drawn": partial(drawn_cases, problem, cases),
        "given": lambda: iter([problem.prompts]),
    }
    check = _Check(problem, batches[kind], tolerance, memory, is_small=kind != "given")
    found = check.certificate(circuit.kept.cpu(), on_progress)
    counts = n_cases(problem)
    if kind != "all" or counts is None:
        return replace(found, prompts=kind, shared_mean=share_a_mean(problem))
    share = (found.n_different + found.n_open) / found.n_cases
    found = replace(found, prompts=kind, every_input=True, n_inputs=counts[0], failure_bound=share)
    if not found.equal:
        return found
    return replace(found, levels=tuple(levels(check, circuit, tries, on_progress)))


class _Check:
    """Compares circuits with the model, case by case."""

    def __init__(
        self,
        problem: Problem,
        batches: Callable[[], Iterator[PromptPairs]],
        tolerance: float,
        memory: int | str | None,
        *,
        is_small: bool,
    ) -> None:
        self.problem, self._batches, self._is_small = problem, batches, is_small
        sizes = getattr(problem.model, "sizes", {})
        self.labels = sizes.get("output") != "numerical" and problem.model.shape.d_vocab > 1
        self._metric = Metric("differs", "", "lower", self._is_different, stacked=True)
        # The first batch is kept, and one may still be there while the next one is built.
        self._memory = share_of(memory, _BATCHES if is_small else 1)
        self._first = self._engine(next(batches()), self._memory)
        self.n_cases, rounding = self._of_the_model()
        self._tolerance, self._proves = tolerance, is_small
        self._refutations = Refutations(tolerance, self._memory, labels=self.labels)
        self.measured = measured(rounding, tolerance)

    def _engine(self, prompts: PromptPairs, memory: int | None) -> IncrementalEngine:
        return IncrementalEngine(self._about(prompts), memory)

    def _about(self, prompts: PromptPairs) -> Problem:
        return replace(self.problem, prompts=prompts, metric=self._metric, default_metric=None)

    def engines(self) -> Iterator[IncrementalEngine]:
        """Yield what answers for each batch; only the first is kept."""
        yield self._first
        for prompts in itertools.islice(self._batches(), 1, None):
            yield self._engine(prompts, self._memory)

    def _logits(self, engine: IncrementalEngine, final: Tensor) -> Logits:
        with torch.no_grad():
            return self.problem.model.logits(engine.readout.at_steps(final))

    def _of_the_model(self) -> tuple[int, float]:
        """Return how many cases there are, and what rounding may do to an output."""
        n_cases, largest = 0, 0.0
        for engine in self.engines():
            prompts, ours = engine.problem.prompts, self._logits(engine, engine.clean_final)
            real, n_cases = prompts.step_is_real, n_cases + prompts.n_prompts
            largest = max(largest, float(ours.abs()[real].max()) * torch.finfo(ours.dtype).eps)
            if not bool(ours[real].isfinite().all()):
                raise ModelError(
                    "the model's own outputs are not finite numbers on some of the inputs, so "
                    "nothing can be equal to them; give another number type, or other prompts"
                )
            if self._is_small:
                # A second way to compute, for where nothing is proved.
                with torch.no_grad():
                    own = self.problem.model.own_logits(prompts.clean, prompts.real)
                largest = max(largest, float((prompts.at_steps(own) - ours).abs()[real].max()))
        return n_cases, _SAFETY * largest

    def _is_different(self, logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
        """Return by how much the circuit is not equal as measured; 0 or less where it is."""
        real = prompts.step_is_real
        found = compared(logits, full.logits, real, self.measured, labels=self.labels)
        by = torch.where(found.margin.isposinf(), found.apart - self._tolerance, -found.margin)
        by = by.double().nan_to_num(torch.inf).clamp(min=torch.finfo(torch.float64).tiny)
        return (by * found.differs).amax(-1)

    def first_equal(self, masks: Iterator[Mask], on_tried: Callable[[], None]) -> Tried:
        """Return the first circuit that is equal in all cases, and what is known of the others."""
        n_tried, n_open, proved = 0, 0, self._proves
        while some := list(itertools.islice(masks, _AT_ONCE)):
            n_tried += len(some)
            left, all_refuted = self._not_refuted(some)
            proved = proved and all_refuted
            for mask, differs_as_measured in left:
                found = self._certificate(mask)
                if found.equal:
                    return Tried(mask, n_tried, found.rounding_proved, n_open)
                proved = proved and found.rounding_proved and found.n_different > 0
                n_open += not (found.n_different or differs_as_measured)
            on_tried()
        return Tried(None, n_tried, proved, n_open)

    def _not_refuted(self, masks: list[Mask]) -> tuple[list[tuple[Mask, bool]], bool]:
        """Return the circuits that may be equal, each with whether it differs as measured.

        Returns:
            These, and whether the others are proved to differ.
        """
        proved, left = self._proves, [(mask, False) for mask in masks]
        for engine in self.engines():
            masks = [mask for mask, _ in left]
            by = engine.measure(masks)
            excluded, refuted = self._refutations.of(engine.problem, masks, by, ask=self._proves)
            proved = proved and refuted
            differ = (by > 0).any(1).tolist()
            left = [
                (mask, earlier or now)
                for (mask, earlier), now, out in zip(left, differ, excluded, strict=True)
                if not out
            ]
            if not left:
                break
        return left, proved

    def certificate(self, kept: Mask, on_progress: Callable[[Checkpoint], None]) -> Certificate:
        """Return what is known of the circuit in question, without levels."""
        found = self._certificate(
            kept, lambda done: on_progress(Checkpoint(done, self.n_cases, "cases"))
        )
        self._proves = found.rounding_proved
        return found

    def _certificate(
        self, kept: Mask, on_counted: Callable[[int], None] = lambda done: None
    ) -> Certificate:
        """Return what is known of a circuit."""
        found = partial(
            tally, self.problem, tolerance=self._tolerance, on_counted=on_counted,
            labels=self.labels,
        )  # fmt: skip
        if not self._is_small:
            return found(batches=self._measured(kept), proved=False)
        try:
            return found(batches=self._proved(kept), proved=True)
        except (Unproved, MethodError) as why:
            return replace(found(batches=self._measured(kept), proved=False), unproved=str(why))

    def _measured(self, kept: Mask) -> Iterator[Outputs]:
        """Yield the outputs of all cases, with the rounding that was measured."""
        for engine in self.engines():
            yield Outputs(engine.problem.prompts, *self._outputs(engine, kept), self.measured)

    def _proved(self, kept: Mask) -> Iterator[Outputs]:
        """Yield the outputs of all cases, with a bound on their rounding."""
        # An engine whose elements have radii takes twice the memory.
        memory = share_of(self._memory, 2)
        for prompts in itertools.chain.from_iterable(
            self._parts(each, memory) for each in self._batches()
        ):
            with bounded():
                outputs = self._outputs(self._engine(prompts, memory), kept)
            (full, ours), limits = within(*outputs, self._tolerance)
            most = limits.rounding[prompts.step_is_real].max()
            if not most <= self._tolerance:
                raise Unproved(
                    f"the bound, {most:.2g}, is above the tolerance of {self._tolerance:g}"
                )
            yield Outputs(prompts, full, ours, limits)

    def _parts(self, prompts: PromptPairs, memory: int | None) -> Iterator[PromptPairs]:
        """Yield cases in parts that fit into memory as a whole: no file holds radii."""
        n, problem = len(prompts), self._about(prompts)
        size = plan(problem, memory).n_prompts
        if size < n and share_a_mean(problem):
            raise Unproved("all cases share a mean, and with bounds they take more memory")
        for first in range(0, n, size):
            yield prompts.rows(slice(first, first + size)) if size < n else prompts

    def _outputs(self, engine: IncrementalEngine, kept: Mask) -> tuple[Logits, Logits]:
        """Return the outputs of the model and of a circuit."""
        with torch.no_grad():
            (final,) = engine.finals([kept])
        return self._logits(engine, engine.clean_final), self._logits(engine, final)
