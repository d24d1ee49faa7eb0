"""A model that norms the sum of a layer's heads (Gemma 2), with heads that write before that norm.

Heads then write what they give to the norm, and do not depend on one another. What a layer adds to
the stream is the norm of the sum, so the stream is no sum of writers any more: whoever runs such a
model with edges cut must norm what each reader receives of a layer's heads (`engine.normed_pass`).
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from circuitfind.errors import ModelError


def has_raw_heads(model: Any) -> bool:
    """Return whether a model's heads write before the norm of their sum."""
    return bool(getattr(model, "has_raw_heads", False))


def with_raw_heads(model: Any) -> Any:
    """Return a model whose heads write before the norm of their sum; it shares all weights.

    Args:
        model: A `ResidualModel`. One without such norms is returned as it is.

    Raises:
        ModelError: It does not say what its heads write before that norm.
    """
    if not model.shape.heads_share_norm:
        return model
    if not hasattr(model, "raw_output") or not hasattr(model, "head_norm"):
        raise ModelError(
            f"{model.name!r} norms the sum of a layer's heads and has no `raw_output` and no "
            "`head_norm`; add what circuitfind/models/transformer_lens.py has"
        )

    def output(
        layer: int, heads: Sequence[int], z: Float[Tensor, "head batch pos d_head"]
    ) -> Float[Tensor, "head batch pos d_model"]:
        found: Tensor = model.raw_output(layer, heads, z)
        return found

    found = copy.copy(model)
    found.__dict__.update(
        output=output,
        attention_output=model.attention_output,
        shape=replace(model.shape, heads_share_norm=False),
        has_raw_heads=True,
    )
    found.loaded_by = None
    return found
