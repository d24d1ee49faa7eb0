"""A model whose query heads share no key/value heads any more, with the same weights.

Where query heads share a key/value head, the model computes one key and one value for all of them.
Seen ungrouped, every query head reads its own key and value, with the weights of the head that it
shares. Nothing changes as long as all readers of a group receive the same stream, and a circuit can
cut an edge into the key of one query head alone, as TransformerLens does it with
`ungroup_grouped_query_attention`.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.graph import Input, SinglePort
from circuitfind.models.base import BaseModel, ResidualModel
from circuitfind.models.readings import Reading


def ungrouped(model: Any) -> Any:
    """Return a model with as many key/value heads as query heads; it shares all weights.

    Args:
        model: A `ResidualModel`. One without shared key/value heads is returned as it is.
    """
    shape = model.shape
    if not shape.grouped:
        return model
    found, view = copy.copy(model), _Ungrouped(model)
    changed = {
        name: getattr(view, name) for name in ("project", "attend", "reading", "with_frozen_norms")
    }
    found.__dict__.update(changed, shape=replace(shape, n_kv_heads=shape.n_heads))
    if isinstance(model, BaseModel) and model.loaded_by is not None:
        found.loaded_by = partial(_loaded, model.loaded_by)
    return found


def _loaded(load: Callable[[], Any]) -> Any:
    return ungrouped(load())


class _Ungrouped:
    """What the heads of an ungrouped model read and mix, asked of the grouped one."""

    def __init__(self, model: ResidualModel) -> None:
        self._model = model

    def with_frozen_norms(self) -> Any:
        return ungrouped(self._model.with_frozen_norms())

    def _read_by(self, layer: int, port: Input, heads: Sequence[int]) -> list[int]:
        """Return the heads of the grouped model, key/value heads for ports k and v."""
        size = self._model.shape.layers[layer].heads_per_kv_head
        return [head // size if port in ("k", "v") else head for head in heads]

    def project(
        self,
        layer: int,
        port: SinglePort,
        heads: Sequence[int],
        stream: Float[Tensor, "head batch pos d_model"],
        scale_of: Float[Tensor, "head batch pos d_model"] | None = None,
    ) -> Float[Tensor, "head batch pos d_head"]:
        return self._model.project(layer, port, self._read_by(layer, port, heads), stream, scale_of)

    def reading(self, layer: int, port: Input, head: int = 0) -> Reading | None:
        return self._model.reading(layer, port, self._read_by(layer, port, [head])[0])

    def attend(
        self,
        layer: int,
        heads: Sequence[int],
        query: Float[Tensor, "head query_batch last d_head"],
        key: Float[Tensor, "head key_batch pos d_head"],
        value: Float[Tensor, "head value_batch pos d_head"],
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "head most_batch last d_head"]:
        size = self._model.shape.layers[layer].heads_per_kv_head
        # One head of each group at a time: a module that is replayed has one key for a group.
        rows: dict[int, list[int]] = {}
        for row, head in enumerate(heads):
            rows.setdefault(head % size, []).append(row)
        mixed = [
            self._model.attend(
                layer, [heads[row] for row in some], query[some], key[some], value[some], real
            )
            for some in rows.values()
        ]
        order = torch.tensor([row for some in rows.values() for row in some])
        return torch.cat(mixed)[order.argsort().to(query.device)]
