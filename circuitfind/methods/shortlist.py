"""Which neurons or latents become writers of a graph: those with the largest scores.

    score(u) = sum over prompts and positions of (c_u - a_u) W_out,u . (d loss / d y)

is the first-order estimate of what it does to the loss if a unit writes what cut edges carry: its
activation's change, times its row, times the gradient at what its block writes (attribution
patching, Nanda 2023; for neurons Syed et al. 2023, arXiv 2310.10348). One pass back gives the
scores of all units (`eap`); with integrated gradients it is a few passes (`eap-ig`, Hanna et al.
2024, arXiv 2403.17806). With `eap:gim` gradients follow rules (`circuitfind.models.rules`). Units
that are not listed stay together in the rest of their block, so nothing is lost.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind import granularity
from circuitfind.choice import chosen
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.units import latents_of
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.written import total
from circuitfind.errors import MethodError, quoted
from circuitfind.graph import Graph, Units
from circuitfind.limits import require
from circuitfind.methods.attribution import (
    Batch,
    Limits,
    Place,
    batches_of,
    together,
)
from circuitfind.methods.eap import CLEAN
from circuitfind.methods.eap_ig import EapIgOptions, places_of
from circuitfind.methods.slopes import require_slope
from circuitfind.models.dictionaries import with_dictionaries
from circuitfind.models.rules import Rules
from circuitfind.models.units import neurons_of, unit_block
from circuitfind.problem import Problem

Ranking = Literal["eap", "eap-ig"]
RANKINGS: tuple[Ranking, ...] = get_args(Ranking)

EXACT = "exact"
"""The effect of cutting each edge alone, where edges are ranked: it needs no gradient."""

SHORTLIST = 100
"""How many units become writers unless it is told."""

RANKED_BY: Ranking = "eap-ig"
"""What they are ranked by unless it is told: of the default metrics, some have no gradient on the
clean run."""

ALL_LAYERS = "all"


def with_units(
    problem: Problem,
    *,
    neurons: str | Sequence[int] | None = None,
    latents: Sequence[Dictionary] | None = None,
    shortlist: int = SHORTLIST,
    ranked_by: str = RANKED_BY,
) -> Problem:
    """Return a problem in whose graph neurons, or latents of dictionaries, are writers.

    The units of all blocks that were chosen are ranked together. A block of which none makes the
    list stays whole.

    Args:
        problem: A problem whose graph has no units.
        neurons: Layers whose neurons may be writers: numbers, text such as `3-5,8`, or `all`.
        latents: Dictionaries whose latents may be writers.
        shortlist: How many units become writers at most, over all layers.
        ranked_by: `eap` or `eap-ig`, and maybe rules for their gradients: `eap:gim`.

    Raises:
        CircuitfindError: There are no such layers or units, or the metric has no gradient.
    """
    require(shortlist=shortlist)
    require_units(neurons, latents, ranked_by)
    if problem.graph.units:
        raise MethodError("the graph has neurons or latents already; give a problem without")
    require_no_constants(problem.ablation.constants)
    model = problem.model
    if latents is not None:
        model = with_dictionaries(model, latents)
        every = [replace(latents_of(each, range(each.n_latents)), apart=False) for each in latents]
    else:
        every = [
            Units(layer, "neuron", tuple(range(neurons_of(model, layer).n_neurons)))
            for layer in _layers(problem.graph, neurons)
        ]
    every = _listed(replace(problem, model=model), every, shortlist, ranked_by)
    if latents is not None:
        by_block = {each.block: each for each in latents}
        every = [latents_of(by_block[each.block], each.numbers) for each in every]
    return replace(problem, model=model, graph=granularity.with_units(problem.graph, every))


def require_no_constants(constants: object) -> None:
    """Refuse constants, or their file, where units are chosen.

    Raises:
        MethodError: There are some.
    """
    if constants is not None:
        raise MethodError(
            "learned constants belong to one graph, and neurons or latents would be chosen anew; "
            "leave one of them out"
        )


def require_units(neurons: object, latents: object, ranked_by: str) -> None:
    """Refuse a choice of units that is none, or two.

    Raises:
        MethodError: The message says what to give.
    """
    ranking_of(ranked_by)
    if (neurons is None) == (latents is None):
        raise MethodError("give the layers of neurons, or dictionaries of latents, and not both")


def ranking_of(ranked_by: str, *others: str) -> tuple[str, Rules]:
    """Return the ranking and the rules that a text such as `eap-ig` or `eap:gim` names.

    Args:
        ranked_by: The text.
        others: What else may be chosen there, for the message.

    Raises:
        MethodError: There is no such ranking or rule, or a rule is given where it does nothing.
    """
    name, colon, rules = ranked_by.partition(":")
    if name in others:
        said = quoted(f":{rules}")
        raise MethodError(f"{name} takes no gradients, so rules do nothing; leave out {said}")
    if name not in RANKINGS:
        raise MethodError(
            f"no ranking {quoted(name)}; choose one of {', '.join((*RANKINGS, *others))}, or one "
            "with rules for its gradients, such as eap:gim"
        )
    return name, Rules.of(rules if colon else None)


def _layers(graph: Graph, wanted: str | Sequence[int] | None) -> tuple[int, ...]:
    if wanted == ALL_LAYERS:
        return tuple(graph.mlps)
    return chosen(wanted, len(graph.attention), "layer")


def _listed(problem: Problem, every: Sequence[Units], n: int, ranked_by: str) -> list[Units]:
    """Return the units with the largest scores, those of each block with any."""
    every = granularity.with_units(problem.graph.merged, every).units
    scores = unit_scores(problem, every, ranked_by)
    sizes = [len(each) for each in scores]
    joined = torch.cat(scores).abs()
    first = joined.topk(min(n, len(joined))).indices
    is_listed = torch.zeros(len(joined), dtype=torch.bool)
    is_listed[first] = joined[first] > 0
    found = []
    for units, listed in zip(every, is_listed.split(sizes), strict=True):
        numbers = tuple(units.numbers[i] for i in listed.nonzero().flatten().tolist())
        if numbers:
            found.append(replace(units, numbers=numbers))
    return found


def unit_scores(
    problem: Problem, every: Sequence[Units], ranked_by: str = RANKED_BY
) -> list[Float[Tensor, " unit"]]:
    """Return the score of each unit of some blocks, in the metric's unit, averaged over prompts.

    Positive: the loss rises if it writes what cut edges carry.

    Args:
        problem: A problem whose graph has no units.
        every: The units, in the order in which their blocks run.
        ranked_by: `eap` or `eap-ig`, and maybe rules for their gradients: `eap:gim`.

    Raises:
        MetricError: The metric has no gradient.
        MethodError: Its gradient says nothing where it is taken.
    """
    # All positions together, whichever places edges tell apart.
    graph = granularity.with_units(problem.graph.merged, every)
    ranked = replace(problem, graph=graph)
    places, rules = slopes_of(ranked, ranked_by)
    parts = [_scores_of(batch, places) for batch in batches_of(ranked, Limits(), rules=rules)]
    return [total(of_block) / len(problem.prompts) for of_block in zip(*parts, strict=True)]


def slopes_of(problem: Problem, ranked_by: str, *others: str) -> tuple[list[Place], Rules]:
    """Return where a ranking takes its slopes, and by which rules.

    Args:
        problem: What it ranks.
        ranked_by: The ranking.
        others: What else may be chosen there and takes no slopes, for the message.

    Raises:
        MethodError: There is no such ranking or rule, or the metric has no slope there.
    """
    name, rules = ranking_of(ranked_by)
    at_clean, slope = name == "eap", problem.metric.slope
    able = ("eap-ig", *others) if at_clean and slope != "nowhere" else others
    instead = f"use --ranked-by {' or '.join(able)}" if able else None
    require_slope(problem.metric, name, at_clean_only=at_clean, instead=instead)
    return ([CLEAN] if at_clean else list(places_of(problem.graph, EapIgOptions()))), rules


def scores_by_prompt(
    engine: IncrementalEngine, ranked_by: str = RANKED_BY, skip: int = 0
) -> Iterator[Float[Tensor, " edge"]]:
    """Yield the scores of all edges for each prompt alone; their mean is that of all prompts.

    Args:
        engine: The problem.
        ranked_by: As for `unit_scores`.
        skip: How many prompts to leave out at the beginning.

    Raises:
        MethodError: The metric's gradient says nothing where it is taken.
    """
    places, rules = slopes_of(engine.problem, ranked_by, EXACT)
    size = engine.problem.prompts.n_runs
    for batch in batches_of(engine, Limits(batch=size), skip, rules):
        scores = sum((batch.scores(some) for some in together(places)), start=torch.zeros(()))
        yield scores[engine.graph.edge_mask].cpu() / size


def _scores_of(batch: Batch, places: Sequence[Place]) -> list[Float[Tensor, " unit"]]:
    """Return the scores of all units, summed over the prompts of a batch."""
    problem, found = batch.problem, []
    for at in reversed(batch.gradients(places)):
        if at.block.units is None:
            continue
        unit = unit_block(problem.model, at.block)
        slopes = at.written @ unit.rows(range(len(at.block.units.numbers))).T
        changes = batch.differences.values[at.block.name][..., 0]
        products = changes * slopes.movedim(-1, 0)
        found.append(products.double().sum((1, 2)).cpu())
    return found
