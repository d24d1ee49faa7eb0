"""Is a circuit equal to its model on every input, and can it be smaller?

Where a model has finitely many inputs, the circuit is checked on all of them (`every_input`). It is
equal to the model if it gives the same label at every position that is read. Where outputs are
numbers, or the model's own best two outputs are equal somewhere, no output may differ by more than
a tolerance. Rounding is measured, not proved: it is taken as a thousand times the largest
difference between two separate computations of the full model on the same inputs, or the spacing
of numbers as large as its outputs, if that is more. A label counts only where the best output is
further above the next than that.

Elsewhere prompts are tried, and what is known is a bound on how often the circuit gives another
answer on prompts like these (Clopper and Pearson 1934; without a failure about 3 / n).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.circuit import require_same_graph
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.evaluation.every_input import every_case, in_pairs, n_cases
from circuitfind.evaluation.intervals import share_bound
from circuitfind.evaluation.levels import Level, levels
from circuitfind.evaluation.measured import Mask
from circuitfind.limits import require
from circuitfind.measures import Logits, PerPrompt, Reference
from circuitfind.metrics import Metric
from circuitfind.problem import HasProblem, Problem, as_problem, circuit_of_question
from circuitfind.prompts import PromptPairs

_SAFETY = 1000.0
_SHOWN = 5
_AT_ONCE = 64
"""Masks that are measured before their cases are looked at."""


@dataclass(frozen=True)
class Counterexample:
    """A case in which a circuit is not equal to its model.

    Attributes:
        prompt: The input.
        corrupted: The prompt that cut edges take their value from; empty where there is none.
        position: Where the outputs differ, counted from 0.
        model: The model's outputs there: the best five, by their names.
        circuit: The circuit's outputs of the same names, and its own best.
    """

    prompt: str
    corrupted: str
    position: int
    model: dict[str, float]
    circuit: dict[str, float]


@dataclass(frozen=True)
class Certificate:
    """What is known of a circuit on all inputs, or on those tried.

    Attributes:
        equal: Whether the circuit was equal to the model in all cases that were checked.
        every_input: Whether these are all cases there are.
        compares: `labels` or `numbers`.
        ablation: What cut edges carry.
        n_inputs: How many inputs were checked.
        n_cases: How many cases: pairs of inputs, where cut edges carry what another prompt gives.
        n_different: How many cases differ.
        largest_difference: The largest difference of an output from the model's.
        smallest_margin: How far the model's label is above the next output of the circuit, at the
            least; None where numbers are compared.
        allowed: The margin that was demanded, or the difference that was allowed.
        rounding: A thousand times the rounding that was measured.
        failure_bound: Below which share of prompts like these the circuit differs, with 95 %
            confidence; 0 where all cases were checked and are equal.
        counterexample: A case that differs.
        levels: The levels of minimality; none where the circuit is not equal, or not on all inputs.
    """

    equal: bool
    every_input: bool
    compares: str
    ablation: str
    n_inputs: int
    n_cases: int
    n_different: int
    largest_difference: float
    smallest_margin: float | None
    allowed: float
    rounding: float
    failure_bound: float
    counterexample: Counterexample | None = None
    levels: tuple[Level, ...] = ()

    @property
    def reached(self) -> str:
        """The highest level of minimality that was proved; empty if none."""
        return next((each.name for each in reversed(self.levels) if each.holds), "")


def certify(
    asked: HasProblem,
    circuit: object = None,
    *,
    cases: int = 100_000,
    tries: int = 20_000,
    tolerance: float = 1e-6,
) -> Certificate:
    """Check a circuit on every input, or say how much the prompts tried prove.

    Args:
        asked: What a search found, or its problem.
        circuit: The circuit; by default what was found.
        cases: How many cases may be checked; where there are more, the problem's prompts are tried.
        tries: How many circuits may be tried for each level of minimality.
        tolerance: How far numerical outputs may differ.

    Raises:
        GraphError: The circuit belongs to another graph.
    """
    require(cases=cases, tries=tries, tolerance=tolerance)
    problem, circuit = as_problem(asked), circuit_of_question(asked, circuit)
    require_same_graph(circuit.graph, problem.graph)
    counts = n_cases(problem)
    every = counts is not None and counts[1] <= cases
    batches = list(every_case(problem)) if every else [problem.prompts]
    check = _Check(problem, batches, tolerance, every=every)
    found = check.certificate(circuit.kept.cpu())
    if not every:
        return found
    assert counts is not None
    found = replace(found, every_input=True, n_inputs=counts[0], failure_bound=0.0)
    if not found.equal:
        return replace(found, failure_bound=found.n_different / found.n_cases)
    return replace(found, levels=tuple(levels(check, circuit, tries)))


def _margins(
    logits: Float[Tensor, "*candidate output"], full: Float[Tensor, "*_ output"]
) -> Float[Tensor, "*candidate"]:
    """Return how far the model's best output is above all others in a circuit."""
    best = full.argmax(-1, keepdim=True).expand(*logits.shape[:-1], 1)
    others = logits.scatter(-1, best, -torch.inf).amax(-1)
    above: Tensor = logits.gather(-1, best)[..., 0] - others
    return above


def _differences(
    logits: Float[Tensor, "*candidate output"], full: Float[Tensor, "*_ output"]
) -> Float[Tensor, "*candidate"]:
    """Return the largest difference of an output from the model's."""
    apart: Tensor = (logits - full).abs().amax(-1)
    return apart


def _margin(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    above = _margins(logits, full.logits)
    return above.masked_fill(~prompts.step_is_real, torch.inf).amin(-1)


def _difference(logits: Logits, prompts: PromptPairs, full: Reference) -> PerPrompt:
    apart = _differences(logits, full.logits)
    return apart.masked_fill(~prompts.step_is_real, 0).amax(-1)


_MARGIN = Metric("margin", "logits", "higher", _margin, stacked=True)
_DIFFERENCE = Metric("difference", "logits", "lower", _difference, stacked=True)


class _Check:
    """Compares circuits with the model, case by case."""

    def __init__(
        self, problem: Problem, batches: Sequence[PromptPairs], tolerance: float, *, every: bool
    ) -> None:
        self.problem, self._batches, self._every = problem, batches, every
        sizes = getattr(problem.model, "sizes", {})
        self.labels = sizes.get("output") != "numerical" and problem.model.shape.d_vocab > 1
        self._first = self._engine(batches[0])
        self.rounding, clear = self._of_the_model()
        self.labels = self.labels and (clear or not every)
        self.allowed = self.rounding if self.labels else max(tolerance, self.rounding)

    @property
    def metric(self) -> Metric:
        """What is measured in each case."""
        return _MARGIN if self.labels else _DIFFERENCE

    def _engine(self, prompts: PromptPairs) -> IncrementalEngine:
        return IncrementalEngine(
            replace(self.problem, prompts=prompts, metric=_DIFFERENCE, default_metric=None)
        )

    def engines(self) -> Iterator[IncrementalEngine]:
        """Yield what answers for each batch; only the first is kept."""
        yield self._first
        yield from map(self._engine, self._batches[1:])

    def _of_the_model(self) -> tuple[float, bool]:
        """Return what rounding may do, and whether the model's own label is clear everywhere."""
        model, largest, margin = self.problem.model, 0.0, math.inf
        for engine in self.engines():
            prompts = engine.problem.prompts
            with torch.no_grad():
                ours = model.logits(engine.readout.at_steps(engine.clean_final))
                # Their rounding is proved nowhere, so that of a second way to compute them counts.
                own = model.own_logits(prompts.clean, prompts.real) if self._every else None
            real = prompts.step_is_real
            size = ours.abs()[real].max() * torch.finfo(ours.dtype).eps
            apart = size if own is None else (prompts.at_steps(own) - ours).abs()[real].max()
            largest = max(largest, float(apart), float(size))
            margin = min(margin, float(_margins(ours, ours)[real].min()))
        return _SAFETY * largest, margin > _SAFETY * largest

    def differs(self, values: Tensor) -> Tensor:
        """Return which values of the metric mean that a circuit is not equal."""
        # Written so that a value that is not a number differs.
        return ~(values > self.allowed) if self.labels else ~(values <= self.allowed)

    def first_equal(self, masks: Iterator[Mask]) -> tuple[Mask | None, int]:
        """Return the first circuit that is equal in all cases, and how many were tried."""
        n_tried = 0
        while some := list(itertools.islice(masks, _AT_ONCE)):
            left = some
            for engine in self.engines():
                wrong = self.differs(engine.measure(left, self.metric)).any(dim=1).tolist()
                left = [mask for mask, is_wrong in zip(left, wrong, strict=True) if not is_wrong]
                if not left:
                    break
            n_tried += len(some)
            if left:
                return left[0], n_tried
        return None, n_tried

    def certificate(self, kept: Mask) -> Certificate:
        """Return what is known of a circuit, without levels."""
        n_cases = n_different = 0
        apart, margin, example = 0.0, math.inf, None
        for engine in self.engines():
            with torch.no_grad():
                (final,) = engine.finals([kept])
                values, differences = (
                    engine.readout_of(metric).by_prompt(final).cpu()
                    for metric in (self.metric, _DIFFERENCE)
                )
            wrong = self.differs(values)
            n_cases, n_different = n_cases + len(values), n_different + int(wrong.sum())
            apart = max(apart, float(differences.max()))
            margin = min(margin, float(values.min()))
            if example is None and bool(wrong.any()):
                example = self._example(engine, kept, int(wrong.nonzero()[0]))
        return Certificate(
            equal=n_different == 0,
            every_input=False,
            compares="labels" if self.labels else "numbers",
            ablation=self.problem.ablation.name,
            n_inputs=n_cases,
            n_cases=n_cases,
            n_different=n_different,
            largest_difference=apart,
            smallest_margin=margin if self.labels else None,
            allowed=self.allowed,
            rounding=self.rounding,
            failure_bound=share_bound(n_different, n_cases),
            counterexample=example,
        )

    def _example(self, engine: IncrementalEngine, kept: Mask, prompt: int) -> Counterexample:
        prompts, model = engine.problem.prompts, engine.problem.model
        row = prompts.rows_of([prompt])[0]
        with torch.no_grad():
            finals = [engine.clean_final, *engine.finals([kept])]
            full, ours = (model.logits(engine.readout.at_steps(each))[row] for each in finals)
        real = prompts.step_is_real[row]
        if self.labels:
            step = int(_margins(ours, full).masked_fill(~real, torch.inf).argmin())
        else:
            step = int(_differences(ours, full).masked_fill(~real, -1).argmax())
        best = full[step].topk(min(_SHOWN, full.shape[-1])).indices.tolist()
        shown = dict.fromkeys([*best, int(ours[step].argmax())])
        length, text = int(prompts.lengths[row]), self._text
        return Counterexample(
            text(prompts.clean[row, :length]),
            text(prompts.corrupted[row, :length]) if in_pairs(self.problem) else "",
            int(prompts.steps[row, step]),
            {self._name(token): float(full[step, token]) for token in shown},
            {self._name(token): float(ours[step, token]) for token in shown},
        )

    def _text(self, tokens: Tensor) -> str:
        vocabulary = self.problem.model.vocabulary
        return vocabulary.decode(tokens.tolist()) if vocabulary else str(tokens.tolist())

    def _name(self, token: int) -> str:
        vocabulary = self.problem.model.vocabulary
        return vocabulary.answer_text(token) if vocabulary else str(token)
