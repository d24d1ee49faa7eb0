"""Give a model dictionaries, whose latents can then be writers of its graph."""

import copy
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from circuitfind.errors import MethodError, ModelError, require_kind
from circuitfind.models.base import BaseModel, Latents, ResidualModel


def with_dictionaries(model: Any, dictionaries: Mapping[int, Any] | Iterable[Any]) -> Any:
    """Return a model with dictionaries for some of its blocks; it shares all weights.

    Args:
        model: The model.
        dictionaries: Transcoders, or sparse autoencoders of `hook_mlp_out`, `hook_attn_out`,
            `attn.hook_z` or the residual stream; by layer where each layer has one.

    Raises:
        MethodError: One of them is not a model, or not a dictionary, or two are of one block.
    """
    require_kind(model, ResidualModel, "a model; give what `load_model` returned")
    require_kind(dictionaries, Iterable, "dictionaries; give what `load_dictionaries` returned")
    by_layer = dictionaries if isinstance(dictionaries, Mapping) else {}
    for layer in by_layer:
        require_kind(layer, int, "a layer; give dictionaries by layer: {0: dictionary}")
    every = list(by_layer.values() if isinstance(dictionaries, Mapping) else dictionaries)
    for each in every:
        require_kind(each, Latents, "a dictionary; give what `load_dictionaries` returned")
    found = copy.copy(model)
    found.dictionaries = {each.block: _fitted(model, each) for each in every}
    if len(found.dictionaries) < len(every):
        raise MethodError("two dictionaries are of one block; give one for each block")
    if isinstance(model, BaseModel) and model.loaded_by is not None:
        found.loaded_by = partial(_loaded, model.loaded_by, tuple(found.dictionaries.values()))
    return found


def _fitted(model: ResidualModel, dictionary: Any) -> Any:
    """Return a dictionary in the model's type; one that reconstructs z writes to the stream."""
    found = dictionary.to(model.dtype, model.device)
    if found.writes != "attn.hook_z":
        return found
    if model.shape.heads_share_norm:
        raise ModelError(
            f"{model.name!r} norms what its heads add together, so no latent of attn.hook_z has a "
            "row of its own in the stream; give dictionaries of hook_attn_out"
        )

    def through_output(z: Float[Tensor, "row heads_width"]) -> Float[Tensor, "row d_model"]:
        by_head = z.unflatten(-1, (-1, model.shape.d_head)).movedim(-2, 0)[:, None]
        return model.output(found.site.layer, range(len(by_head)), by_head).sum(0)[0]

    bias = model.attention_bias(found.site.layer)
    return found.written_through(through_output, bias)


def _loaded(load: Any, dictionaries: Iterable[Any]) -> Any:
    return with_dictionaries(load(), dictionaries)
