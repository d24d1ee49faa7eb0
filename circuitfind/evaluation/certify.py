"""Is a circuit equal to its model on every input, and can it be smaller?

Where a model has finitely many inputs, the circuit is checked on all of them (`every_input`). It is
equal to the model if it gives the same label at every position that is read. Where outputs are
numbers, and at positions at which the model's own best two outputs are equal, no output may differ
by more than a tolerance. So the full circuit is equal to its model whatever the model says.

Rounding is measured, not proved: it is taken as a thousand times the largest difference between two
separate computations of the full model on the same inputs, or the spacing of numbers as large as
its outputs (in the model's number type), if that is more. A label counts only where the best output
is further above the next than that; nearer ones are equal.

Where there are too many cases, some are drawn at random; where a model reads text, prompts are
tried. What is known then is a bound on how often the circuit differs (Clopper and Pearson 1934;
without a failure about 3 / n).
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.budget import share_of
from circuitfind.circuit import require_same_graph
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import ModelError
from circuitfind.evaluation.certificate import Certificate, Counterexample
from circuitfind.evaluation.every_input import (
    Kind,
    drawn_cases,
    every_case,
    in_pairs,
    kind_of_cases,
    n_cases,
    share_a_mean,
)
from circuitfind.evaluation.intervals import share_bound
from circuitfind.evaluation.levels import levels
from circuitfind.evaluation.measured import Mask
from circuitfind.limits import require
from circuitfind.measures import Logits, PerPrompt, Reference
from circuitfind.metrics import Metric
from circuitfind.problem import HasProblem, Problem, as_problem, circuit_of_question
from circuitfind.progress import Checkpoint
from circuitfind.prompts import PromptPairs

_SAFETY = 1000.0
_SHOWN = 5
_BATCHES = 3
"""Of cases, that are in memory at once."""

_AT_ONCE = 64
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
    check = _Check(problem, batches[kind], tolerance, memory, on_progress, is_small=kind != "given")
    found = check.certificate(circuit.kept.cpu())
    counts = n_cases(problem)
    if kind != "all" or counts is None:
        return replace(found, prompts=kind, shared_mean=share_a_mean(problem))
    share = found.n_different / found.n_cases
    found = replace(found, prompts=kind, every_input=True, n_inputs=counts[0], failure_bound=share)
    if not found.equal:
        return found
    return replace(found, levels=tuple(levels(check, circuit, tries, on_progress)))


@dataclass(frozen=True)
class _Seen:
    """Outputs of a circuit beside those of the model, at every step.

    Attributes:
        apart: The largest difference of an output.
        margin: How far the model's label is above all other outputs of the circuit; infinite where
            numbers are compared.
        is_tie: Whether labels are compared, but the model's own best two outputs are equal here.
        differs: Whether the circuit is not equal to the model.
    """

    apart: Float[Tensor, "*candidate batch step"]
    margin: Float[Tensor, "*candidate batch step"]
    is_tie: Bool[Tensor, "batch step"]
    differs: Bool[Tensor, "*candidate batch step"]


def _margins(
    logits: Float[Tensor, "*candidate output"], full: Float[Tensor, "*_ output"]
) -> Float[Tensor, "*candidate"]:
    """Return how far the model's best output is above all others in a circuit."""
    best = full.argmax(-1, keepdim=True).expand(*logits.shape[:-1], 1)
    others = logits.scatter(-1, best, -torch.inf).amax(-1)
    above: Tensor = logits.gather(-1, best)[..., 0] - others
    return above


class _Check:
    """Compares circuits with the model, case by case."""

    def __init__(
        self,
        problem: Problem,
        batches: Callable[[], Iterator[PromptPairs]],
        tolerance: float,
        memory: int | str | None,
        on_progress: Callable[[Checkpoint], None],
        *,
        is_small: bool,
    ) -> None:
        self.problem, self._batches = problem, batches
        self._on_progress, self._is_small = on_progress, is_small
        sizes = getattr(problem.model, "sizes", {})
        self.labels = sizes.get("output") != "numerical" and problem.model.shape.d_vocab > 1
        self._metric = Metric("differs", "", "lower", self._is_different, stacked=True)
        # The first batch is kept, and one may still be there while the next one is built.
        self._memory = share_of(memory, _BATCHES if is_small else 1)
        self._first = self._engine(next(batches()))
        self._n_cases, self.rounding = self._of_the_model()
        self.allowed = max(tolerance, self.rounding)

    def _engine(self, prompts: PromptPairs) -> IncrementalEngine:
        problem = replace(self.problem, prompts=prompts, metric=self._metric, default_metric=None)
        return IncrementalEngine(problem, self._memory)

    def engines(self) -> Iterator[IncrementalEngine]:
        """Yield what answers for each batch; only the first is kept."""
        yield self._first
        yield from map(self._engine, itertools.islice(self._batches(), 1, None))

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
                # Our rounding is proved nowhere, so that of a second way to compute counts.
                with torch.no_grad():
                    own = self.problem.model.own_logits(prompts.clean, prompts.real)
                largest = max(largest, float((prompts.at_steps(own) - ours).abs()[real].max()))
        return n_cases, _SAFETY * largest

    def _seen(
        self,
        logits: Logits,
        full: Float[Tensor, "batch step d_vocab"],
        prompts: PromptPairs,
    ) -> _Seen:
        real = prompts.step_is_real
        apart = (logits - full).abs().amax(-1).masked_fill(~real, 0)
        by_label = (_margins(full, full) > self.rounding) & real
        by_label &= self.labels
        margin = _margins(logits, full).masked_fill(~by_label, torch.inf)
        # Written so that a value that is not a number differs.
        is_equal = torch.where(by_label, margin > self.rounding, apart <= self.allowed)
        is_tie = real & ~by_label if self.labels else torch.zeros_like(real)
        return _Seen(apart, margin, is_tie, ~is_equal)

    def _is_different(self, logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
        return self._seen(logits, full.logits, prompts).differs.any(-1).double()

    def first_equal(
        self, masks: Iterator[Mask], on_tried: Callable[[], None]
    ) -> tuple[Mask | None, int]:
        """Return the first circuit that is equal in all cases, and how many were tried."""
        n_tried = 0
        while some := list(itertools.islice(masks, _AT_ONCE)):
            left = some
            for engine in self.engines():
                wrong = (engine.measure(left) > 0).any(dim=1).tolist()
                left = [mask for mask, is_wrong in zip(left, wrong, strict=True) if not is_wrong]
                if not left:
                    break
            n_tried += len(some)
            if left:
                return left[0], n_tried
            on_tried()
        return None, n_tried

    def certificate(self, kept: Mask) -> Certificate:
        """Return what is known of a circuit, without levels."""
        n_cases = n_different = n_ties = 0
        apart, margin, example = 0.0, math.inf, None
        for engine in self.engines():
            with torch.no_grad():
                (final,) = engine.finals([kept])
            full, ours = (self._logits(engine, each) for each in (engine.clean_final, final))
            prompts = engine.problem.prompts
            seen = self._seen(ours, full, prompts)
            n_cases += prompts.n_prompts
            n_different += _n_prompts(prompts, seen.differs)
            n_ties += _n_prompts(prompts, seen.is_tie)
            self._on_progress(Checkpoint(n_cases, self._n_cases, "cases"))
            # Outputs of a circuit that are not numbers are as far away as can be.
            apart = max(apart, float(seen.apart.nan_to_num(torch.inf).max()))
            margin = min(margin, float(seen.margin.nan_to_num(-torch.inf, torch.inf).min()))
            if example is None and bool(seen.differs.any()):
                example = self._example(prompts, seen, full, ours)
        return Certificate(
            equal=n_different == 0,
            every_input=False,
            compares="labels" if self.labels else "numbers",
            ablation=self.problem.ablation.name,
            n_inputs=n_cases,
            n_cases=n_cases,
            n_different=n_different,
            largest_difference=apart,
            smallest_margin=margin if math.isfinite(margin) else None,
            allowed=self.allowed,
            rounding=self.rounding,
            failure_bound=share_bound(n_different, n_cases),
            counterexample=example,
            n_ties=n_ties,
        )

    def _example(
        self, prompts: PromptPairs, seen: _Seen, full: Logits, ours: Logits
    ) -> Counterexample:
        row = int(seen.differs.any(-1).nonzero()[0])
        step = int(seen.apart[row].masked_fill(~seen.differs[row], -1).argmax())
        model, circuit = full[row, step], ours[row, step]
        best = model.topk(min(_SHOWN, len(model))).indices.tolist()
        shown = dict.fromkeys([*best, int(circuit.argmax())])
        length, text = int(prompts.lengths[row]), self._text
        return Counterexample(
            text(prompts.clean[row, :length]),
            text(prompts.corrupted[row, :length]) if in_pairs(self.problem) else "",
            int(prompts.steps[row, step]),
            {self._name(token): float(model[token]) for token in shown},
            {self._name(token): float(circuit[token]) for token in shown},
        )

    def _text(self, tokens: Tensor) -> str:
        vocabulary = self.problem.model.vocabulary
        return vocabulary.decode(tokens.tolist()) if vocabulary else str(tokens.tolist())

    def _name(self, token: int) -> str:
        vocabulary = self.problem.model.vocabulary
        return vocabulary.answer_text(token) if vocabulary else str(token)


def _n_prompts(prompts: PromptPairs, steps: Bool[Tensor, "batch step"]) -> int:
    """Return how many prompts have such a step, in one of their rows."""
    return int((prompts.per_prompt(steps.any(-1).double()) > 0).sum())
