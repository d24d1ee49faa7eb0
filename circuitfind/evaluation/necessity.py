"""How much each edge of a circuit is needed: its effect when it alone is cut from the circuit.

The effect that a search measured belongs to the moment of its test, when edges were still there
that were cut later. Here all edges of the circuit are in place but one, prompt by prompt, so that
there is an interval too.
"""

from dataclasses import dataclass

import torch

from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.evaluation.intervals import mean_interval


@dataclass(frozen=True)
class Necessity:
    """What the circuit loses without one of its edges.

    Attributes:
        effect: Rise of the loss when the edge is cut from the circuit, in the metric's unit;
            positive: the circuit needs the edge.
        interval: 95 % interval of it over prompts; None where there are too few.
    """

    effect: float
    interval: tuple[float, float] | None


def necessities(engine: IncrementalEngine, circuit: Circuit) -> dict[str, Necessity]:
    """Cut each edge of a circuit alone and measure what that does, by the edge's name."""
    graph, found = circuit.graph, dict[str, Necessity]()
    state = engine.start_from(circuit.kept)
    sign = engine.problem.metric.sign
    with torch.no_grad():
        whole = engine.readout.values(state.final)
        for reader, column in enumerate(circuit.kept.T):
            writers = column.nonzero().flatten().tolist()
            for first in range(0, len(writers), engine.most_candidates):
                some = writers[first : first + engine.most_candidates]
                finals = engine.cut_each(state, reader, some).final
                for writer, final in zip(some, finals, strict=True):
                    rises = sign * (engine.readout.values(final) - whole)
                    name = f"{graph.writers[writer].name}->{graph.readers[reader].name}"
                    found[name] = Necessity(float(rises.double().mean()), mean_interval(rises))
    return found
