"""Is a circuit that of its task? Knock it out of the model, and measure every task of a set.

Cut the edges of circuit A in the whole model and measure the metric of task B on B's prompts, with
B's own ablation. The effect is the share of B's own distance from the full model to the empty graph
that this goes: 0 where B does not need A, 1 where B is as if every edge were cut. Effects of A on A
are the diagonal. Beside each stands the mean effect of knocking out random connected circuits with
as many edges, and how often one of them has at least the effect of A.

A double dissociation of A and B (Teuber 1955, "Physiological psychology") needs both differences:

    effect of A on A minus effect of A on B at least 0.1, and
    effect of B on B minus effect of B on A at least 0.1

A and B are measured on different prompts, so a difference has the interval that follows from those
of its two independent parts (Zou & Donner 2008, the method of variance estimates recovery): where
d = x - y, it ends at d - sqrt((x - x_low)^2 + (y_high - y)^2) and d + sqrt((x_high - x)^2 +
(y - y_low)^2). Both intervals must lie above 0.1: with enough prompts, any difference is above 0.
Since both are needed, that takes no correction for two tests; several pairs are not corrected for
one another.

Circuits of one model share edges, often those of the first layers on which every task depends. So
the edges of a circuit that no other one of the set has can be knocked out alone (`own_edges`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.circuit import Circuit, require_same_graph
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import GraphError, MethodError, quoted
from circuitfind.evaluation.cuts import complement
from circuitfind.evaluation.dissociation import (
    LEAST_DIFFERENCE,
    Column,
    Difference,
    Dissociation,
    Effect,
    KnockedOut,
    PairTest,
    Undecided,
    Verdict,
)
from circuitfind.evaluation.intervals import FEWEST_PROMPTS
from circuitfind.evaluation.measured import Mask, Measured
from circuitfind.evaluation.passes import PassLog
from circuitfind.evaluation.random_circuits import p_value, random_circuits
from circuitfind.evaluation.scorecard import Measurement, measurement
from circuitfind.graph import Graph
from circuitfind.limits import require
from circuitfind.problem import Problem
from circuitfind.progress import Checkpoint

N_RANDOM = 20
TEXT = "text"
"""What the column of unrelated text is called."""


@dataclass(frozen=True)
class Member:
    """A circuit and its task.

    Attributes:
        name: What both are called.
        circuit: The circuit.
        problem: The task, with the prompts to measure it on.
        prompts: Which these are: `held-out`, or `discovery` where there are no others.
    """

    name: str
    circuit: Circuit
    problem: Problem
    prompts: str = "discovery"


@dataclass(frozen=True)
class Design:
    """What is knocked out, and what is measured.

    Attributes:
        members: Two circuits or more of one model, with their tasks.
        text: Unrelated text as a problem (`evaluation.text`).
        own_edges: Whether the edges of a circuit that no other one of these has are knocked out
            alone.
        n_random: How many random circuits each is compared with.
        seed: Fixes these.

    Raises:
        CircuitfindError: The circuits do not belong to one graph of one model, two have the same
            name, one is empty, or a number is outside its range.
    """

    members: Sequence[Member]
    text: Problem | None = None
    own_edges: bool = False
    n_random: int = N_RANDOM
    seed: int = 0

    def __post_init__(self) -> None:
        require(draws=self.n_random, seed=self.seed)
        _require_names(self.members, () if self.text is None else (TEXT,))
        _require_one_model(self.members)

    @property
    def columns(self) -> list[tuple[str, str, Problem]]:
        """What is measured: a name, which prompts, and the problem."""
        found = [(member.name, member.prompts, member.problem) for member in self.members]
        return found if self.text is None else [*found, (TEXT, TEXT, self.text)]

    @property
    def n_passes(self) -> int:
        """How many passes this takes."""
        return len(self.columns) * (2 + len(self.members) * (1 + self.n_random))

    @property
    def knocked_out(self) -> list[Circuit]:
        """What is knocked out for each circuit: all its edges, or its own."""
        circuits = [member.circuit for member in self.members]
        if not self.own_edges:
            return circuits
        kept = torch.stack([circuit.kept.cpu() for circuit in circuits])
        alone = kept & (kept.sum(0) == 1)
        return [replace(each, kept=own) for each, own in zip(circuits, alone, strict=True)]


def dissociate(
    design: Design,
    *,
    memory: int | str | None = None,
    log: PassLog | None = None,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Dissociation:
    """Knock every circuit out of the model, and measure every task.

    Args:
        design: The circuits and tasks.
        memory: How many bytes may be taken beside the model; by default what it takes.
        log: Passes that were made already, and where new ones are kept.
        on_progress: Called as passes are made.

    Raises:
        CircuitfindError: A circuit and its problem do not fit one another, or the memory is too
            small.
    """
    circuits, done = design.knocked_out, 0
    names = [member.name for member in design.members]
    masks = {
        name: _knock_outs(circuit, design.n_random, design.seed)
        for name, circuit in zip(names, circuits, strict=True)
    }

    def count() -> None:
        nonlocal done
        done += 1
        on_progress(Checkpoint(done, design.n_passes, "passes"))

    columns, effects = [], dict[tuple[str, str], Effect]()
    for name, prompts, problem in design.columns:
        measured = Measured(IncrementalEngine(problem, memory), on_pass=count, log=log)
        column, found = _column(name, prompts, measured, masks)
        del measured  # before the next one is made: each may take the whole memory
        columns.append(column)
        effects |= {(each.circuit, name): each for each in found}
    return Dissociation(
        tuple(KnockedOut(*each) for each in zip(names, (c.n_edges for c in circuits), strict=True)),
        tuple(columns),
        tuple(effects[name, column.name] for name in names for column in columns),
        tuple(_pair(*pair, effects) for pair in combinations(design.members, 2)),
        design.n_random,
        design.own_edges,
    )


def _require_names(members: Sequence[Member], taken: Sequence[str]) -> None:
    names = list(taken)
    for member in members:
        if member.name in names:
            other = "the column of the text" if member.name in taken else "another circuit"
            raise MethodError(
                f"a circuit is called {quoted(member.name)}, and so is {other}; give each another "
                "name, or rename its run directory"
            )
        names.append(member.name)


def _require_one_model(members: Sequence[Member]) -> None:
    if len(members) < 2:
        raise MethodError(
            f"a dissociation needs two circuits or more, of different tasks, not {len(members)}"
        )
    first = members[0]
    for member in members:
        if not member.circuit.n_edges:
            raise MethodError(
                f"the circuit {quoted(member.name)} is empty, so there is nothing to knock out; "
                "search with a smaller threshold, or leave it out"
            )
        if member.problem.model.fingerprint != first.problem.model.fingerprint:
            raise MethodError(
                f"{quoted(first.name)} and {quoted(member.name)} are circuits of different models; "
                "give runs of one model"
            )
        for graph in (member.circuit.graph, member.problem.graph):
            _require_graph(member.name, graph, first)


def _require_graph(name: str, graph: Graph, first: Member) -> None:
    try:
        require_same_graph(graph, first.circuit.graph)
    except GraphError as error:
        raise GraphError(
            f"{quoted(name)} does not have the graph of {quoted(first.name)} ({error}); give runs "
            "with the same parts and places: --neurons, --latents and --places can choose others "
            "for another task"
        ) from None


def _knock_outs(circuit: Circuit, n_random: int, seed: int) -> list[Mask]:
    """Return the masks of the model without a circuit, and without each of some random ones."""
    drawn = random_circuits(circuit, n_random, null="size", seed=seed)
    return [complement(each) for each in (circuit, *drawn)]


def _column(
    name: str, prompts: str, measured: Measured, masks: Mapping[str, list[Mask]]
) -> tuple[Column, list[Effect]]:
    metric = measured.metrics[0]
    full, empty = (limit[metric.name][0] for limit in measured.limits)
    ends, found = (float(full.mean()), float(empty.mean())), []
    for circuit, every in masks.items():
        own, *others = measured.own(every)
        without = measurement(metric, full, own, empty)
        drawn = [] if without.faithfulness is None else _shares(measured, others)
        found.append(_effect(circuit, name, without, drawn))
    return Column(name, prompts, len(full), metric.name, metric.unit, *ends), found


def _shares(measured: Measured, values: Sequence[Float[Tensor, " batch"]]) -> list[float]:
    return [1 - float(measured.scale.faithfulness(each.mean())) for each in values]


def _effect(circuit: str, on: str, without: Measurement, drawn: Sequence[float]) -> Effect:
    """Turn what is left without a circuit into the effect, beside those of random ones."""
    found = (without.faithfulness, without.high, without.low)
    effect, low, high = (None if share is None else 1 - share for share in found)
    mean = p = None
    if effect is not None:
        mean, p = sum(drawn) / len(drawn), p_value(effect, drawn)
    return Effect(circuit, on, without.circuit, effect, low, high, mean, p)


def _pair(one: Member, other: Member, effects: Mapping[tuple[str, str], Effect]) -> PairTest:
    first, second = (
        _difference(effects[own, own], effects[own, foreign])
        for own, foreign in ((one.name, other.name), (other.name, one.name))
    )
    if has_shared := not _prompts(one).isdisjoint(_prompts(other)):
        # Their interval is that of independent effects.
        first, second = (replace(each, low=None, high=None) for each in (first, second))
    n_shared = int((one.circuit.kept.cpu() & other.circuit.kept.cpu()).sum())
    verdict = _verdict(first, second)
    why: Undecided | None = None
    if verdict is None:
        n = min(member.problem.prompts.n_prompts for member in (one, other))
        why = "too few prompts" if n < FEWEST_PROMPTS else "prompts too much alike"
        why = "same prompts" if has_shared else why
        why = "no gap" if None in (first.value, second.value) else why
    return PairTest((one.name, other.name), n_shared, (first, second), verdict, why)


def _prompts(member: Member) -> set[tuple[int, ...]]:
    prompts = member.problem.prompts
    rows = zip(prompts.clean.tolist(), prompts.lengths.tolist(), strict=True)
    return {tuple(row[:length]) for row, length in rows}


def _verdict(*differences: Difference) -> Verdict | None:
    lows = [each.low for each in differences if each.low is not None]
    if len(lows) < len(differences):
        return None
    return get_args(Verdict)[sum(low > LEAST_DIFFERENCE for low in lows)]  # type: ignore[no-any-return]


def _difference(own: Effect, foreign: Effect) -> Difference:
    """Return the difference of two effects on independent prompts (Zou & Donner 2008)."""
    if own.effect is None or foreign.effect is None:
        return Difference(own.circuit, None, None, None)
    value = own.effect - foreign.effect
    if own.low is None or own.high is None or foreign.low is None or foreign.high is None:
        return Difference(own.circuit, value, None, None)
    down = math.hypot(own.effect - own.low, foreign.high - foreign.effect)
    up = math.hypot(own.high - own.effect, foreign.effect - foreign.low)
    return Difference(own.circuit, value, value - down, value + up)
