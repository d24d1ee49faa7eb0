"""How close a circuit is to the model with constants of its own in place of cut edges.

What cut edges carry is a choice, and each choice measures another thing. Constants that are refit
for the circuit (`engine.constants`) are the kindest choice that tells nothing of the
prompt: what then separates circuit and model is information that the cut edges had. They are
trained on the prompts of the search, so held-out prompts say how much of the gain is memory of
those.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from circuitfind.ablations import ABLATIONS, Ablation
from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import PromptError
from circuitfind.metrics import METRICS
from circuitfind.problem import Problem

REFIT = "learned, refit"
"""What the constants of a circuit are called."""


@dataclass(frozen=True)
class Divergence:
    """Mean KL(model || circuit) at the answers, in nats, where cut edges carry something.

    Attributes:
        ablation: What they carry.
        discovery: On the prompts of the search.
        held_out: On others, where there are any.
    """

    ablation: str
    discovery: float
    held_out: float | None


def divergences(
    circuit: Circuit,
    refit: Ablation,
    problem: Problem,
    held_out: Problem | None = None,
    memory: int | str | None = None,
) -> tuple[Divergence, ...]:
    """Return the divergence of a circuit under its own ablation, the others and refit constants.

    An ablation that says nothing about these prompts is left out.

    Args:
        circuit: The circuit.
        refit: Its constants.
        problem: The question that it answers, with the prompts on which it was found.
        held_out: The same with other prompts.
        memory: How many bytes may be taken beside the model; by default what it takes.

    Raises:
        MethodError: The memory is too small for a single pair of prompts.
    """
    return tuple(
        Divergence(
            REFIT if ablation is refit else ablation.name,
            _divergence(circuit, problem, ablation, memory),
            None if held_out is None else _divergence(circuit, held_out, ablation, memory),
        )
        for ablation in (*_usual(problem, held_out), refit)
    )


def _usual(problem: Problem, held_out: Problem | None) -> Iterator[Ablation]:
    """Yield the problem's ablation and all others that need no training."""
    yield problem.ablation
    for ablation in ABLATIONS:
        if ablation.name == problem.ablation.name:
            continue
        try:
            for asked in (problem, held_out):
                if asked is not None:
                    ablation.check(asked.prompts)
        except PromptError:
            continue
        yield ablation


def _divergence(
    circuit: Circuit, problem: Problem, ablation: Ablation, memory: int | str | None
) -> float:
    asked = replace(problem, ablation=ablation, metric=METRICS.find("kl"))
    engine = IncrementalEngine(asked, memory)
    return engine.readout.loss(engine.recomputed(circuit.kept))
