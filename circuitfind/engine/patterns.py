"""Where heads look: attention patterns, for every model and from what its readers received.

A head's mixed values are linear in its values, so values that spell out the identity come back as
the pattern itself: `attend(query, key, identity) = pattern`. The model's own attention does all the
arithmetic, masks, positions and caps included, as it does for the engine.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.engine.full_pass import Pass, plain_pass
from circuitfind.errors import GraphError, MethodError, quoted
from circuitfind.graph import Graph
from circuitfind.models.base import ResidualModel
from circuitfind.problem import HasProblem, as_problem

Patterns = Float[Tensor, "head batch query key"]


def attention_patterns(
    model: ResidualModel,
    graph: Graph,
    run: Pass,
    layer: int,
    real: Bool[Tensor, "batch pos"] | None = None,
) -> Patterns:
    """Return the attention pattern of every query head of a layer.

    Args:
        model: The model.
        graph: Its graph.
        run: A run that kept what its readers received, with any edges cut.
        layer: The layer.
        real: True at positions that are no padding.

    Returns:
        The share of its attention that each position (query) pays to each (key); rows sum to 1,
        unless the model's attention has a sink.
    """
    shape = graph.shape.layers[layer]
    with torch.no_grad():
        query = _projected(model, graph, run, layer, "q")
        key = _projected(model, graph, run, layer, "k")
        key = key.repeat_interleave(shape.heads_per_kv_head, dim=0)
        heads = range(shape.n_heads)
        # As many columns of the identity at a time as a head has room for values.
        parts = [
            model.attend(layer, heads, query, key, values.expand(*key.shape[:2], -1, -1), real)
            for values in _identity(key)
        ]
    return torch.cat(parts, dim=-1)[..., : key.shape[2]]


def attention_pattern(
    asked: HasProblem, head: str, *, run: Literal["clean", "corrupted"] = "clean"
) -> Float[Tensor, "batch query key"]:
    """Return where a head looks on each prompt of a problem.

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
    writer = graph.writer(head)
    if writer.layer is None or writer.index is None:
        raise GraphError(f"{quoted(head)} is not a head; heads have names such as 'a0.h1'")
    if run not in ("clean", "corrupted"):
        raise MethodError(f"no run named {quoted(run)}; choose clean or corrupted")
    tokens = prompts.clean if run == "clean" else prompts.corrupted
    with torch.no_grad():
        whole = plain_pass(model, graph, tokens, prompts.real, keep_reads=True)
    return attention_patterns(model, graph, whole, writer.layer, prompts.real)[writer.index]


def _projected(
    model: ResidualModel, graph: Graph, run: Pass, layer: int, port: str
) -> Float[Tensor, "head batch pos d_head"]:
    merged = graph.ports == ("qkv",)
    readers = graph.head_readers(layer, "qkv" if merged else port)  # type: ignore[arg-type]
    streams = torch.stack([run.read[reader] for reader in readers])
    return model.project(layer, port, range(len(readers)), streams)  # type: ignore[arg-type]


def _identity(key: Float[Tensor, "head batch pos d_head"]) -> list[Tensor]:
    pos, d_head = key.shape[2:]
    width = -(-pos // d_head) * d_head
    return list(torch.eye(pos, width, dtype=key.dtype, device=key.device).split(d_head, dim=1))
