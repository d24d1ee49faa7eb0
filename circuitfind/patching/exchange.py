"""The residual streams of a run in which some activations come from another run.

Every patch is reduced to the stream right after the component it changes: a head's patched query
to what the block's attention then adds, an attention pattern to the values it then mixes. From
there all patches are alike (`continuation.py`). One call patches one place in all heads of a block,
each head for itself.

An attention pattern is a linear map on values, so a head with its pattern from another run is a
head with its query and key from that run and its own values; and what single entries of a pattern
contribute is what is mixed if all other values are zero. Both hold for any attention, whatever its
positions, caps and masks, so that patterns need not be known.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Heads, Stream, attend
from circuitfind.patching.continuation import Point
from circuitfind.patching.recording import Recording

Mask = Bool[Tensor, "batch pos"]


class Patched(NamedTuple):
    """Streams after a patch.

    Attributes:
        point: Where they enter.
        streams: One per candidate: one for a site of the stream, one per head for a head's.
    """

    point: Point
    streams: Float[Tensor, "candidate batch pos d_model"]


class Exchange:
    """Two runs of a model: a base, and a source from which parts of it are replaced.

    Methods named after a site (`SITES`) return the patched streams of one block and place.
    """

    def __init__(
        self,
        model: ResidualModel,
        base: Recording,
        source: Recording,
        real: Bool[Tensor, "batch pos"],
    ) -> None:
        self._model, self._base, self._source, self._real = model, base, source, real

    def resid_pre(self, layer: int, mask: Mask) -> Patched:
        base, source = self._base.stream[layer], self._source.stream[layer]
        return Patched(Point(layer), _mixed(mask, source, base)[None])

    def resid_mid(self, layer: int, mask: Mask) -> Patched:
        base, source = self._base.middle(layer), self._source.middle(layer)
        return Patched(Point(layer, "mlp"), _mixed(mask, source, base)[None])

    def resid_post(self, layer: int, mask: Mask) -> Patched:
        return self.resid_pre(layer + 1, mask)

    def attn_out(self, layer: int, mask: Mask) -> Patched:
        base, source = self._base.attention[layer], self._source.attention[layer]
        return self._after_attention(layer, (_mixed(mask, source, base) - base)[None])

    def mlp_out(self, layer: int, mask: Mask) -> Patched:
        base, source = self._base.mlp[layer], self._source.mlp[layer]
        change = _mixed(mask, source, base) - base
        return Patched(Point(layer + 1), (self._base.stream[layer + 1] + change)[None])

    def head(self, layer: int, mask: Mask) -> Patched:
        return self._with_z(layer, _mixed(mask, self._source.z[layer], self._base.z[layer]))

    def q(self, layer: int, mask: Mask) -> Patched:
        query = _mixed(mask, self._source.query[layer], self._base.query[layer])
        return self._with_z(layer, self._attend(layer, query=query))

    def k(self, layer: int, mask: Mask) -> Patched:
        key = _mixed(mask, self._source.key[layer], self._base.key[layer])
        return self._with_z(layer, self._attend(layer, key=key), by_kv_head=True)

    def v(self, layer: int, mask: Mask) -> Patched:
        value = _mixed(mask, self._source.value[layer], self._base.value[layer])
        return self._with_z(layer, self._attend(layer, value=value), by_kv_head=True)

    def pattern(self, layer: int, mask: Mask) -> Patched:
        return self._with_z(layer, _mixed(mask, self._foreign_pattern(layer), self._base.z[layer]))

    def pattern_cell(self, layer: int, mask: Mask, seen: Mask) -> Patched:
        """Patch the attention that the positions of a mask pay to those of another."""
        # The source's pattern on the base's values, as far as these lie where they are to be seen.
        visible = seen[None, :, :, None] & torch.ones_like(self._base.value[layer]).bool()
        value = self._base.value[layer].where(visible, 0)
        source, base = self._source, self._base
        foreign = self._attend(layer, query=source.query[layer], key=source.key[layer], value=value)
        own = self._attend(layer, value=value)
        z = base.z[layer]
        return self._with_z(layer, _mixed(mask, z + foreign - own, z))

    def _foreign_pattern(self, layer: int) -> Heads:
        return self._attend(layer, query=self._source.query[layer], key=self._source.key[layer])

    def _attend(
        self,
        layer: int,
        *,
        query: Heads | None = None,
        key: Heads | None = None,
        value: Heads | None = None,
    ) -> Heads:
        """Return all heads' mixed values, with the base's query, key and value unless given."""
        base = self._base
        return attend(
            self._model,
            layer,
            base.query[layer] if query is None else query,
            base.key[layer] if key is None else key,
            base.value[layer] if value is None else value,
            self._real,
        )

    def _with_z(self, layer: int, z: Heads, *, by_kv_head: bool = False) -> Patched:
        """Return the stream with each head's mixed values replaced, one head (or group) a time."""
        changes = torch.stack(list(self._changes(layer, z, by_kv_head=by_kv_head)))
        return self._after_attention(layer, changes)

    def _changes(self, layer: int, z: Heads, *, by_kv_head: bool) -> Iterator[Stream]:
        shape, base = self._model.shape, self._base.z[layer]
        heads = range(len(base))
        size = shape.layers[layer].heads_per_kv_head if by_kv_head else 1
        groups = [heads[first : first + size] for first in heads[::size]]
        written = self._model.output(layer, heads, base)
        if not shape.heads_share_norm:
            changes = self._model.output(layer, heads, z) - written
            yield from (changes[group.start : group.stop].sum(0) for group in groups)
            return
        # One head's change reaches what all others write, through the norm of their sum.
        for group in groups:
            mixed = base.clone()
            mixed[group.start : group.stop] = z[group.start : group.stop]
            yield (self._model.output(layer, heads, mixed) - written).sum(0)

    def _after_attention(
        self, layer: int, changes: Float[Tensor, "candidate batch pos d_model"]
    ) -> Patched:
        """Add changes of what the attention writes to the stream at which it is next read."""
        shape = self._model.shape.layers[layer]
        if shape.has_mlp and not shape.parallel_mlp:
            return Patched(Point(layer, "mlp"), self._base.middle(layer) + changes)
        return Patched(Point(layer + 1), self._base.stream[layer + 1] + changes)


def _mixed(mask: Mask, source: Tensor, base: Tensor) -> Tensor:
    """Take the source where a mask over prompts and positions says so, otherwise the base."""
    return torch.where(mask[..., None], source, base)
