"""Attention patterns, for every model and from what its readers received.

An attention pattern is a linear map on values. If the value at position s is the s-th unit vector,
what a head mixes at a position is how much it attends to each s. The model's own attention does
all the arithmetic, masks, positions and caps included, so no family needs code of its own.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.engine.full_pass import Pass, plain_pass
from circuitfind.errors import GraphError, MethodError, quoted
from circuitfind.graph import Block, Graph, SinglePort
from circuitfind.models.base import ResidualModel
from circuitfind.problem import HasProblem, as_problem

Patterns = Float[Tensor, "head batch query key"]


def attention_patterns(
    model: ResidualModel,
    graph: Graph,
    run: Pass,
    block: Block,
    real: Bool[Tensor, "batch pos"] | None = None,
) -> Patterns:
    """Return the attention pattern of every query head of a block.

    Args:
        model: The model.
        graph: Its graph.
        run: A run that kept what its readers received, with any edges cut.
        block: An attention block of the graph.
        real: True at positions that are no padding.

    Returns:
        The share of its attention that each position (query) pays to each (key); rows sum to 1,
        unless the model's attention has a sink.
    """
    if block.layer in run.patterns:
        return run.patterns[block.layer]
    with torch.no_grad():
        query, key = (_projected(model, graph, run, block, port) for port in ("q", "k"))
        return pattern_of(model, block.layer, query, key, real)


def pattern_of(
    model: ResidualModel,
    layer: int,
    query: Float[Tensor, "head batch query d_head"],
    key: Float[Tensor, "kv_head batch key d_head"],
    real: Bool[Tensor, "batch key"] | None,
    heads: range | None = None,
) -> Patterns:
    """Return the attention pattern of some heads from their queries and keys.

    Args:
        model: The model.
        layer: The layer.
        query: The query of each head, for the last positions or for all.
        key: The key of each key/value head of the layer.
        real: True at positions that are no padding.
        heads: The heads that the queries belong to; all heads of the layer unless given.
    """
    shape = model.shape.layers[layer]
    heads = range(shape.n_heads) if heads is None else heads
    keys = key[[head // shape.heads_per_kv_head for head in heads]]
    # As many columns of the identity at a time as a head has room for values.
    parts = [
        model.attend(layer, heads, query, keys, values.expand(*keys.shape[:2], -1, -1), real)
        for values in _identity(keys)
    ]
    return torch.cat(parts, dim=-1)[..., : keys.shape[2]]


def attention_pattern(
    asked: HasProblem, head: str, *, run: Literal["clean", "corrupted"] = "clean"
) -> Float[Tensor, "batch query key"]:
    """Return the attention pattern of a head on each prompt of a problem.

    Args:
        asked: The problem, or what a search for its circuit found.
        head: A head, such as `a2.h0`.
        run: Which prompt of each pair the model reads.

    Returns:
        The share of its attention that each position (query) pays to each (key); see
        `attention_patterns`. Rows and columns of padding mean nothing.

    Raises:
        GraphError: There is no such head.
        MethodError: There is no such run.
    """
    problem = as_problem(asked)
    model, graph, prompts = problem.model, problem.graph, problem.prompts
    block = graph.block_of.get(head)
    if block is None or graph.kind_of[head] != "head":
        raise GraphError(f"{quoted(head)} is not a head; heads have names such as 'a0.h1'")
    if run not in ("clean", "corrupted"):
        raise MethodError(f"no run named {quoted(run)}; choose clean or corrupted")
    tokens = prompts.clean if run == "clean" else prompts.corrupted
    with torch.no_grad():
        whole = plain_pass(model, graph, tokens, prompts.real, keep_reads=True)
    number = next(reader.index for reader in graph.readers if reader.component == head)
    return attention_patterns(model, graph, whole, block, prompts.real)[number]


def _projected(
    model: ResidualModel, graph: Graph, run: Pass, block: Block, port: SinglePort
) -> Float[Tensor, "head batch pos d_head"]:
    """Return the query of every query head, or the key of every key/value head."""
    heads = range(graph.shape.layers[block.layer].n_heads)
    readers = list(dict.fromkeys(graph.input_of(block.layer, head, port) for head in heads))
    rows = [graph.merged.readers[reader].index or 0 for reader in readers]
    streams = torch.stack([run.read[reader] for reader in readers])
    return model.project(block.layer, port, rows, streams)


def _identity(key: Float[Tensor, "head batch pos d_head"]) -> list[Tensor]:
    pos, d_head = key.shape[2:]
    width = -(-pos // d_head) * d_head
    return list(torch.eye(pos, width, dtype=key.dtype, device=key.device).split(d_head, dim=1))
