"""Scores of moves inside attention: what cutting a little of each would do to the loss.

    k: d loss / d score[p, j] times (q[p] . kc[j] - q[p] . k[j])        q: the same with qc[p]
    v: gradient at z[p] times pattern[p, j] (vc[j] - v[j])

summed over the rows p of the place that attends and the columns j of the place that is attended
to. c stands for what cut edges carry. As for other edges, the change is that of the clean run, and
the slope may be taken elsewhere. These are the crossing edges of Haklay et al. 2025 (arXiv
2502.04577) to first order: there the softmax is computed again for each position.
"""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.engine.moves import Ports, ports_of_heads
from circuitfind.engine.received import BlockGradients
from circuitfind.engine.replacement import Runs
from circuitfind.graph import Block
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Stream
from circuitfind.places import Places
from circuitfind.problem import Problem


def add_move_scores(
    problem: Problem,
    runs: Runs,
    entering: Mapping[int, Stream],
    gradients: Iterable[BlockGradients],
    scores: Float[Tensor, "writer reader"],
) -> None:
    """Add the scores of all moves, summed over prompts, to those of other edges.

    Args:
        problem: The problem.
        runs: The runs between which its edges are cut.
        entering: What entered the blocks of each stage in the run in which slopes are taken.
        gradients: The gradients there.
        scores: What they are added to.
    """
    graph, places = problem.graph, problem.places
    assert places is not None
    rows, columns = graph.inner
    for found in gradients:
        if found.block.kind == "attention":
            stage, heads = found.block.stage, [graph.head_number[w] for w in found.block.writers]
            streams = entering[stage], runs.entering[stage], runs.carried[stage]
            given = streams, found.written, places, problem.prompts.real
            moves = move_scores(problem.model, found.block, *given)
            ends = rows[heads], columns[heads]
            scores[ends] += moves.double().cpu().masked_fill(~graph.edge_mask[ends], 0)


def move_scores(
    model: ResidualModel,
    block: Block,
    streams: tuple[Stream, Stream, Stream],
    gradient: Stream,
    places: Places,
    real: Bool[Tensor, "batch pos"],
) -> Float[Tensor, "head port source destination"]:
    """Return the scores of the moves of a layer, summed over prompts.

    Args:
        model: The model.
        block: The attention of the layer.
        streams: What all its readers receive: in the run in which slopes are taken, in the clean
            run, and where all edges are cut.
        gradient: The gradient of the loss, summed over prompts, at what the heads write.
        places: The places of the prompts.
        real: True at positions that are no padding.
    """
    layer, heads = block.layer, range(len(block.writers))
    here, clean, carried = (ports_of_heads(model, layer, stream) for stream in streams)

    def scores(query: Tensor, key: Tensor) -> Tensor:
        return model.attention_scores(layer, heads, query, key, real)

    with torch.no_grad():
        pattern, whole = scores(here.q, here.k).softmax(-1), scores(clean.q, clean.k)
        at_z = _at_z(model, layer, here, gradient, real)
        at_pattern = at_z @ here.v.transpose(-1, -2)
        at_scores = pattern * (at_pattern - (pattern * at_pattern).sum(-1, keepdim=True))
        changes = (
            at_scores * _change(scores(carried.q, clean.k), whole),
            at_scores * _change(scores(clean.q, carried.k), whole),
            pattern * (at_z @ (carried.v - clean.v).transpose(-1, -2)),
        )
        at = places.masks().to(pattern.dtype)
        summed = [torch.einsum("hbpj,sbj,tbp->hst", change, at, at) for change in changes]
    return torch.stack(summed, dim=1)


def _change(new: Tensor, whole: Tensor) -> Float[Tensor, "head batch row column"]:
    """Return the change of scores; none where a position is not seen."""
    return (new - whole).masked_fill(whole.isinf(), 0)


def _at_z(
    model: ResidualModel,
    layer: int,
    read: Ports,
    gradient: Stream,
    real: Bool[Tensor, "batch pos"],
) -> Float[Tensor, "head batch pos d_head"]:
    """Return the gradient at what the heads of a layer mix."""
    z = model.attend(layer, range(len(read.q)), *read, real).requires_grad_()
    with torch.enable_grad():
        written = model.attention_output(layer, z)
    (found,) = torch.autograd.grad(written, z, gradient)
    return found
