"""The scorecard that goes with every circuit: how much of the behaviour it carries.

Faithfulness is (m(circuit) - m(empty)) / (m(full) - m(empty)): 1 if the circuit does what the full
model does, 0 if it does no better than the corrupted run. It can exceed 1, where the edges left
out work against the behaviour.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MetricError
from circuitfind.metrics import Metric, check_metric, faithfulness, find_metric

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Measurement:
    """One metric of three circuits, averaged over prompts.

    Attributes:
        metric: Name of the metric.
        unit: Its unit.
        full: Of the full model.
        circuit: Of the circuit.
        empty: With every edge cut.
        faithfulness: Share of the gap between empty and full that the circuit closes; None where
            there is no gap.
    """

    metric: str
    unit: str
    full: float
    circuit: float
    empty: float
    faithfulness: float | None


@dataclass(frozen=True)
class Scorecard:
    """A circuit in figures.

    Attributes:
        n_edges: Edges kept.
        n_edges_full: Edges of the graph.
        n_components: Components that read or write along a kept edge, the logits not counted.
        n_components_full: Components of the graph.
        n_prompts: Prompts measured on.
        measurements: The problem's metric first, then KL divergence, logit difference and
            accuracy where the prompts have answers.
        held_out: The problem's metric on other prompts of the task; None where there are none.
    """

    n_edges: int
    n_edges_full: int
    n_components: int
    n_components_full: int
    n_prompts: int
    measurements: tuple[Measurement, ...]
    held_out: Measurement | None = None


def shown(value: float) -> str:
    """Return a measured value for people, in whose eyes less than 1e-6 is rounding and so 0."""
    return f"{0 if abs(value) < _ROUNDING else value:.4g}"


def scorecard(
    engine: IncrementalEngine, circuit: Circuit, held_out: IncrementalEngine | None = None
) -> Scorecard:
    """Measure a circuit on the prompts it was found on, and on others if given."""
    own = engine.problem.metric
    metrics = [own, *(metric for metric in _others(engine) if metric.name != own.name)]
    written = [name for name in circuit.components if name != "logits"]
    return Scorecard(
        n_edges=circuit.n_edges,
        n_edges_full=circuit.graph.n_edges,
        n_components=len(set(written) & set(circuit.graph.writer_index)),
        n_components_full=circuit.graph.n_components,
        n_prompts=len(engine.problem.prompts),
        measurements=tuple(measure(engine, circuit, metric) for metric in metrics),
        held_out=None if held_out is None else measure(held_out, circuit, own),
    )


def _others(engine: IncrementalEngine) -> Iterator[Metric]:
    """Yield the metrics that are always worth knowing and that the prompts can answer."""
    for name in ("kl", "logit-difference", "accuracy"):
        metric = find_metric(name)
        with suppress(MetricError):
            check_metric(metric, engine.problem.prompts)
            yield metric


def measure(engine: IncrementalEngine, circuit: Circuit, metric: Metric) -> Measurement:
    """Measure one metric of the full graph, the circuit and the empty graph."""
    full, kept, empty = (
        _mean(engine, metric, final)
        for final in (
            engine.clean.final,
            engine.recomputed(circuit.kept),
            engine.recomputed(torch.zeros_like(circuit.kept)),
        )
    )
    try:
        share = faithfulness(full, kept, empty)
    except MetricError:
        share = None
    return Measurement(metric.name, metric.unit, full, kept, empty, share)


def _mean(engine: IncrementalEngine, metric: Metric, final: Tensor) -> float:
    with torch.no_grad():
        return float(engine.readout.measure(metric, final).double().mean())
