"""How to call the MLP of a TransformerLens block: the families that need to be called otherwise."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_WRITTEN_OUT_GELU = "NewGELUActivation"
"""The tanh form of GELU (Hendrycks & Gimpel 2016), eight passes over the hidden layer."""


def mlp_of(block: Any) -> Callable[[Tensor], Tensor]:
    """Return a function from the normed stream to what the MLP writes."""
    mlp = block.mlp
    if getattr(mlp, "name", "") is None:
        # OPT: the two linear maps sit on the layer itself, so there is no module to call.
        activation, first = block.original_component.activation_fn, getattr(mlp, "in")
        return lambda stream: mlp.out(activation(first(stream)))
    if type(mlp).__name__ == "BloomMLPBridge":
        # Bloom's MLP adds the residual stream itself.
        return lambda stream: mlp(stream, torch.zeros_like(stream))
    module = _with_one_pass_gelu(mlp.original_component)
    return lambda stream: _first((module or mlp)(stream))


def _with_one_pass_gelu(module: Any) -> Any | None:
    """Return a copy that shares the weights and computes the same GELU in one pass.

    The model itself stays untouched. None where there is nothing to gain.
    """
    names = [
        name for name, part in module.named_children() if type(part).__name__ == _WRITTEN_OUT_GELU
    ]
    if not names:
        return None
    fused = copy.copy(module)
    fused._modules = dict(module._modules)
    for name in names:
        fused._modules[name] = torch.nn.GELU(approximate="tanh")
    return fused


def _first(written: Tensor | tuple[Tensor, ...]) -> Tensor:
    return written[0] if isinstance(written, tuple) else written
