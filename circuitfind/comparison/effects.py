"""Estimated effects of all edges of a model on a problem, and of components by position.

Estimated for all edges at once by edge attribution with integrated gradients (Hanna et al. 2024,
arXiv 2403.17806, the variant `inputs`), in the whole model and not in a circuit of it. The metric
is the one that says whether the answer is right; for programs, which have no answers, it is that of
the problem. Everything is a share of the lead: how much better the metric is on the clean prompts
than on the corrupted ones; its size, where a model does worse.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.comparison.looks import place_masks, place_names
from circuitfind.engine.contraction import contracted
from circuitfind.engine.full_pass import plain_pass
from circuitfind.engine.readout import Readout
from circuitfind.engine.received import BlockGradients
from circuitfind.engine.written import batches
from circuitfind.errors import MetricError
from circuitfind.methods.attribution import Batch, Limits, batches_of
from circuitfind.methods.eap_ig import EapIgOptions, places_of
from circuitfind.metrics import KL, LOGIT_DIFFERENCE, LOSS, Metric, answered
from circuitfind.problem import Problem
from circuitfind.prompts import PromptPairs

_PATH = EapIgOptions(steps=3)


@dataclass(frozen=True)
class Effects:
    """Estimated effects, as shares of the lead; positive: what is cut helps.

    Attributes:
        metric: Name of the metric.
        lead: The lead, in the metric's unit; negative if the model does worse on clean prompts.
        edges: Of cutting each edge.
        places: Kinds of positions.
        by_place: Of replacing what each writer writes at these positions.
    """

    metric: str
    lead: float
    edges: Float[Tensor, "writer reader"]
    places: tuple[str, ...]
    by_place: Float[Tensor, "place writer"]


def answer_metric(prompts: PromptPairs) -> Metric | None:
    """Return the metric that says whether the answer is right; None without answers."""
    return next(answered((LOGIT_DIFFERENCE, LOSS), prompts), None)


def about_answers(problem: Problem) -> Problem:
    """Return the problem with the metric by which effects are measured."""
    metric = answer_metric(problem.prompts) or problem.metric
    return replace(problem, metric=KL if metric.slope == "nowhere" else metric)


def lead_of(problem: Problem) -> float:
    """Return how much better the metric is on the clean prompts than on the corrupted ones."""
    problem.prompts.require_one_length("comparing clean and corrupted runs")
    total = 0.0
    for batch in batches(problem, _limits.batch_for(problem)):
        prompts = batch.prompts
        with torch.no_grad():
            clean, corrupted = (
                plain_pass(batch.model, batch.graph, tokens, prompts.real).final
                for tokens in (prompts.clean, prompts.corrupted)
            )
            readout = Readout(batch, clean)
            difference = readout.values(corrupted) - readout.values(clean)
        total += float(difference.double().sum())
    return problem.metric.sign * total / len(problem.prompts)


_limits = Limits()


def effects(problem: Problem) -> Effects:
    """Estimate every effect.

    Raises:
        MetricError: The metric is the same on clean and corrupted prompts.
    """
    problem = about_answers(problem)
    graph = problem.graph
    lead = lead_of(problem)
    if not abs(lead) > 0:
        raise MetricError(
            f"{problem.model.name!r} says the same on clean and corrupted prompts "
            f"({problem.metric.name}), so nothing in it can be given a share of the difference; "
            "choose a task that the model does"
        )
    edges = torch.zeros(graph.edge_mask.shape, dtype=torch.float64)
    by_place = torch.zeros(len(place_names(problem.prompts)), len(graph.writers)).double()
    for batch in batches_of(problem, _limits):
        masks = torch.stack(list(place_masks(batch.problem.prompts).values())).double()
        gradients = batch.gradients(list(places_of(graph, _PATH)))
        edges += contracted(batch.differences, gradients, places=batch.problem.places)
        for found in gradients:
            if writers := list(found.block.writers):
                by_place[:, writers] += _by_places(batch, found, masks)
    scale = 1 / (abs(lead) * len(problem.prompts))
    return Effects(
        problem.metric.name, lead, edges * scale, place_names(problem.prompts), by_place * scale
    )


def _by_places(
    batch: Batch, found: BlockGradients, masks: Float[Tensor, "place batch pos"]
) -> Float[Tensor, "place writer"]:
    """Return what happens if the writers of a block are replaced at some positions."""
    at_positions = (batch.differences.of(found.block) * found.written).sum(-1).double()
    return torch.einsum("wbp,kbp->kw", at_positions, masks).cpu()
