"""Joint effect of some edges: the metric with them and with all of them cut."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from circuitfind.circuit import Circuit, require_same_graph
from circuitfind.engine.direction import with_direction
from circuitfind.engine.incremental import as_engine
from circuitfind.graph import Edge, EdgeName, listed
from circuitfind.metrics import Metric, check_metric, find_metric
from circuitfind.problem import HasProblem


@dataclass(frozen=True)
class CutEffect:
    """A metric before and after some edges are cut together, averaged over prompts.

    Attributes:
        edges: Their names.
        metric: Name of the metric.
        unit: Its unit.
        before: Its mean before the cut.
        after: Its mean with the edges cut.
        error: Standard error over prompts of the change; NaN with a single prompt.
    """

    edges: tuple[str, ...]
    metric: str
    unit: str
    before: float
    after: float
    error: float

    @property
    def change(self) -> float:
        """The metric after the cut minus before it."""
        return self.after - self.before


def effect_of(
    asked: HasProblem,
    edges: str | Edge | Iterable[EdgeName],
    metric: str | Metric | None = None,
    *,
    within: Circuit | None = None,
    memory: int | str | None = None,
) -> CutEffect:
    """Cut edges, all at once, and measure what that does.

    Args:
        asked: The problem, or what a search for its circuit found.
        edges: An edge such as `a2.h2->logits`, or several.
        metric: A metric or its name; by default the problem's own.
        within: The circuit from which they are cut; by default the full graph.
        memory: How many bytes may be taken beside the model, also as text like `2GB`; by default
            what it takes.

    Raises:
        GraphError: There is no such edge, or the circuit belongs to another graph.
        MetricError: There is no such metric, or the prompts lack what it needs.
    """
    engine = as_engine(asked, memory)
    named = [asked.problem.graph.edge(edge) for edge in listed(edges)]
    problem, chosen = engine.problem, engine.problem.metric
    if metric is not None:
        found = find_metric(metric) if isinstance(metric, str) else metric
        chosen = with_direction(found, problem.model, problem.prompts)
        check_metric(chosen, problem.prompts)
    start = engine.start()
    if within is not None:
        require_same_graph(within.graph, engine.graph)
        start = engine.start_from(within.kept)
    with torch.no_grad():
        before, after = (
            engine.readout_of(chosen).by_prompt(state.final)
            for state in (start, engine.cut(start, named))
        )
    changes = after - before
    error = float(changes.std()) / math.sqrt(len(changes)) if len(changes) > 1 else math.nan
    names = tuple(edge.name for edge in named)
    ends = float(before.mean()), float(after.mean())
    return CutEffect(names, chosen.name, chosen.unit, *ends, error)
