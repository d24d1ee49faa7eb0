"""Facts about a model before a search: sizes, graph, and the error of its decomposition."""

from dataclasses import asdict
from typing import Any

import torch

from circuitfind.engine.memory import attribution_bytes, patching_bytes, search_bytes
from circuitfind.granularity import heads_and_mlps
from circuitfind.models.base import ResidualModel
from circuitfind.models.precision import stored_as
from circuitfind.models.self_check import random_tokens, self_check

_TAKEN = {
    "a search": search_bytes,
    "eap-ig": attribution_bytes,
    "patching": patching_bytes,
}
"""What is said of the memory that commands take beside the model. `evaluate`, `report`, `compare`
and `stability` make the runs that a search makes."""


def _size_of_weights(model: ResidualModel) -> dict[str, Any]:
    """Return what a model's weights take in memory, where it says how many it holds."""
    taken: int | None = getattr(model, "weight_bytes", None)
    return {} if taken is None else {"memory of the weights, MB": float(f"{taken / 1e6:.3g}")}


def inspected(model: ResidualModel, n_prompts: int = 64, n_positions: int = 16) -> dict[str, Any]:
    """Return a model's sizes, graph, memory of what is done with it, and self-check figures.

    Args:
        model: The model.
        n_prompts: Pairs of prompts of the search in question.
        n_positions: Tokens of its longest prompt.
    """
    graph = heads_and_mlps(model.shape)
    tokens = random_tokens(model.n_tokens, model.n_positions).to(model.device)
    with torch.no_grad():
        check = self_check(model, tokens, model.own_logits(tokens))
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        **asdict(model.shape),
        "n_positions": model.n_positions,
        "causal": model.causal,
        "weights": stored_as(model),
        "computed in": str(model.dtype).removeprefix("torch."),
        **_size_of_weights(model),
        "tokenizer": model.vocabulary is not None,
        "components": graph.n_components,
        "readers": len(graph.readers),
        "edges": graph.n_edges,
        "edges, q/k/v merged": None
        if model.shape.grouped
        else heads_and_mlps(model.shape, merge_qkv=True).n_edges,
        **{
            f"memory of {what}, {n_prompts} pairs of {n_positions} tokens, MB": round(
                taken(graph, n_prompts, n_positions, model.dtype.itemsize) / 1e6
            )
            for what, taken in _TAKEN.items()
        },
        "self-check: largest logit difference": check.difference,
        "self-check: largest logit": check.scale,
        "self-check: allowed difference": check.tolerance * check.scale,
    }
