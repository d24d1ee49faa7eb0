"""The scorecard of a circuit: how much of the behaviour it carries.

Faithfulness is (m(circuit) - m(empty)) / (m(full) - m(empty)): 1 if the circuit does what the full
model does, 0 if it does no better than the corrupted run. It can exceed 1, where the edges left
out work against the behaviour. It is undefined where the full model and the empty graph differ by
no more than chance between prompts explains.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from circuitfind.circuit import Circuit, require_same_graph
from circuitfind.engine.incremental import IncrementalEngine, as_engine
from circuitfind.errors import shortened
from circuitfind.evaluation.intervals import share_interval
from circuitfind.evaluation.trust import OwnResult, doubts, notes, own_of, within_noise
from circuitfind.graph import counted
from circuitfind.measures import PerPrompt
from circuitfind.metrics import ACCURACY, KL, LOGIT_DIFFERENCE, Metric, Scale, answered
from circuitfind.notebook import Tabled
from circuitfind.problem import HasProblem, Problem, circuit_of_question

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
        low: Lower end of a 95 % interval of the faithfulness, by the paired bootstrap over prompts;
            None where there is none.
        high: Its upper end.
    """

    metric: str
    unit: str
    full: float
    circuit: float
    empty: float
    faithfulness: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Scorecard(Tabled):
    """A circuit in figures.

    Attributes:
        n_edges: Edges kept.
        n_edges_full: Edges of the graph.
        n_components: Heads and MLPs, or parts of MLPs, that write or read along a kept edge.
        n_components_full: All of the graph.
        n_prompts: Prompts measured on.
        measurements: The problem's metric first, then KL divergence, logit difference and
            accuracy where the prompts have answers.
        held_out: The problem's metric on other prompts of the task; None where there are none.
        own: How well the model itself does the task; None where prompts have no answers.
        doubts: Why these figures cannot be trusted, a sentence each.
        notes: What else a reader should know, such as the number type that was computed in.
        n_units: Neurons and latents among the components that are kept.
        n_units_full: Neurons and latents of the graph.
    """

    n_edges: int
    n_edges_full: int
    n_components: int
    n_components_full: int
    n_prompts: int
    measurements: tuple[Measurement, ...]
    held_out: Measurement | None = None
    own: OwnResult | None = None
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    n_units: int = 0
    n_units_full: int = 0

    def __repr__(self) -> str:
        first = self.measurements[0]
        share = "undefined" if first.faithfulness is None else f"{first.faithfulness:.3f}"
        return (
            f"<Scorecard: {self.n_edges} of {self.n_edges_full} edges, {self.n_components} of "
            f"{self.n_components_full} {counted(self.n_units_full)}, {self.n_prompts} prompts; "
            f"faithfulness {share} by {shortened(first.metric)[:60]}>"
        )

    def __str__(self) -> str:
        lines = [repr(self)[1:-1]]
        for row in self.records():
            values = (shown(row[name]) for name in ("full", "circuit", "empty"))
            share = row["faithfulness"]
            lines.append(
                f"  {row['metric']} ({row['prompts']}): full {next(values)}, circuit "
                f"{next(values)}, empty {next(values)} {row['unit']}; faithfulness "
                + ("undefined" if share is None else f"{share:.3f}")
            )
        return "\n".join([*lines, *(f"  WARNING: {doubt}" for doubt in self.doubts)])

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield a row per metric, the one on held-out prompts last."""
        for row in self.measurements:
            yield {"prompts": "discovery", **asdict(row)}
        if self.held_out is not None:
            yield {"prompts": "held-out", **asdict(self.held_out)}


def shown(value: float) -> str:
    """Return a measured value for people: what is smaller than 1e-6 is rounding, and shown as 0."""
    return f"{0 if abs(value) < _ROUNDING else value:.4g}"


def scorecard(
    asked: HasProblem,
    circuit: object = None,
    held_out: HasProblem | None = None,
    *,
    memory: int | str | None = None,
) -> Scorecard:
    """Measure a circuit on the prompts it was found on, and on others if given.

    Args:
        asked: What a search found, its problem, or an engine of it.
        circuit: The circuit; by default what was found.
        held_out: The problem with other prompts, or an engine of it.
        memory: How many bytes may be taken beside the model, also as text like `2GB`; by default
            what it takes.

    Raises:
        MethodError: There is no circuit, or no problem.
        GraphError: The circuit belongs to another graph.
    """
    circuit, engine = circuit_of_question(asked, circuit), as_engine(asked, memory)
    require_same_graph(circuit.graph, engine.graph)
    metric, problem = engine.problem.metric, engine.problem
    (measurements,) = _measured(engine, [circuit], usual_metrics(problem))
    own = own_of(engine)
    others = None if held_out is None else as_engine(held_out, memory)
    kept = next((row.circuit for row in measurements if row.metric == ACCURACY.name), None)
    return Scorecard(
        n_edges=circuit.n_edges,
        n_edges_full=circuit.graph.n_edges,
        n_components=len(circuit.heads_and_mlps),
        n_components_full=len(circuit.graph.heads_and_mlps),
        n_prompts=problem.prompts.n_prompts,
        measurements=measurements,
        held_out=None if others is None else measure(others, circuit, metric),
        own=own,
        doubts=doubts(
            problem,
            circuit,
            own,
            kept_accuracy=kept,
            faithfulness=measurements[0].faithfulness,
        ),
        notes=notes(problem),
        n_units=circuit.n_units,
        n_units_full=circuit.graph.n_units,
    )


def usual_metrics(problem: Problem) -> tuple[Metric, ...]:
    """Return the problem's own metric, and those worth knowing that the prompts can answer."""
    own = problem.metric
    others = answered((KL, LOGIT_DIFFERENCE, ACCURACY), problem.prompts)
    return (own, *(metric for metric in others if metric.name != own.name))


def measure(engine: IncrementalEngine, circuit: Circuit, metric: Metric) -> Measurement:
    """Measure one metric of the full graph, the circuit and the empty graph."""
    return _measured(engine, [circuit], (metric,))[0][0]


def measure_all(
    engine: IncrementalEngine, circuits: Sequence[Circuit], metric: Metric
) -> tuple[Measurement, ...]:
    """Measure one metric of several circuits."""
    return tuple(row for (row,) in _measured(engine, circuits, (metric,)))


def _measured(
    engine: IncrementalEngine, circuits: Sequence[Circuit], metrics: Sequence[Metric]
) -> list[tuple[Measurement, ...]]:
    """Return a row for each circuit, with every metric in its place."""
    everything = engine.graph.edge_mask
    masks = [everything, torch.zeros_like(everything), *(each.kept for each in circuits)]
    readouts = [engine.readout_of(metric) for metric in metrics]
    with torch.no_grad():
        full, empty, *found = (
            [readout.by_prompt(final) for readout in readouts] for final in engine.finals(masks)
        )
    return [tuple(map(measurement, metrics, full, circuit, empty)) for circuit in found]


def measurement(
    metric: Metric, full: PerPrompt, circuit: PerPrompt, empty: PerPrompt
) -> Measurement:
    """Put a metric of the full graph, a circuit and the empty graph on each prompt into figures."""
    whole, kept, none = (float(values.double().mean()) for values in (full, circuit, empty))
    scale = Scale(whole, none)
    is_defined = scale.has_gap and not within_noise(full, empty)
    share = scale.faithfulness(kept) if is_defined else None
    ends = None if share is None else share_interval(full, circuit, empty)
    low, high = ends or (None, None)
    return Measurement(metric.name, metric.unit, whole, kept, none, share, low, high)
