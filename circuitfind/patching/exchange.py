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

from circuitfind.graph import Block, Graph
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

    Methods named after a site (`SITES`) return the patched streams of one layer and place.
    """

    def __init__(
        self,
        model: ResidualModel,
        graph: Graph,
        base: Recording,
        source: Recording,
        real: Bool[Tensor, "batch pos"],
    ) -> None:
        self._model, self._graph, self._real = model, graph, real
        self._base, self._source = base, source

    def resid_pre(self, layer: int, mask: Mask) -> Patched:
        return self._entering(self._graph.attention[layer].stage, mask)

    def resid_mid(self, layer: int, mask: Mask) -> Patched:
        return self._entering(self._graph.mlps[layer].stage, mask)

    def resid_post(self, layer: int, mask: Mask) -> Patched:
        last = self._graph.mlps.get(layer, self._graph.attention[layer])
        return self._entering(self._base.stage_after(last), mask)

    def _entering(self, stage: int, mask: Mask) -> Patched:
        base, source = self._base.entering[stage], self._source.entering[stage]
        return Patched(Point(stage), _mixed(mask, source, base)[None])

    def attn_out(self, layer: int, mask: Mask) -> Patched:
        return self._added(self._graph.attention[layer], mask)

    def mlp_out(self, layer: int, mask: Mask) -> Patched:
        return self._added(self._graph.mlps[layer], mask)

    def _added(self, block: Block, mask: Mask) -> Patched:
        base, source = self._base.added[block.name], self._source.added[block.name]
        return after(self._base, block, (_mixed(mask, source, base) - base)[None])

    def head(self, layer: int, mask: Mask) -> Patched:
        block = self._graph.attention[layer]
        z = _mixed(mask, self._source.z[block.name], self._base.z[block.name])
        return self._with_z(block, z)

    def q(self, layer: int, mask: Mask) -> Patched:
        block = self._graph.attention[layer]
        query = _mixed(mask, self._source.query[block.name], self._base.query[block.name])
        return self._with_z(block, self._attend(block, query=query))

    def k(self, layer: int, mask: Mask) -> Patched:
        block = self._graph.attention[layer]
        key = _mixed(mask, self._source.key[block.name], self._base.key[block.name])
        return self._with_z(block, self._attend(block, key=key), by_kv_head=True)

    def v(self, layer: int, mask: Mask) -> Patched:
        block = self._graph.attention[layer]
        value = _mixed(mask, self._source.value[block.name], self._base.value[block.name])
        return self._with_z(block, self._attend(block, value=value), by_kv_head=True)

    def pattern(self, layer: int, mask: Mask) -> Patched:
        block, source = self._graph.attention[layer], self._source
        foreign = self._attend(block, query=source.query[block.name], key=source.key[block.name])
        return self._with_z(block, _mixed(mask, foreign, self._base.z[block.name]))

    def pattern_cell(self, layer: int, mask: Mask, seen: Mask) -> Patched:
        """Patch the attention that the positions of a mask pay to those of another."""
        block, source = self._graph.attention[layer], self._source
        # The source's pattern on the base's values, as far as these lie where they are to be seen.
        own_value = self._base.value[block.name]
        visible = seen[None, :, :, None] & torch.ones_like(own_value).bool()
        value = own_value.where(visible, 0)
        query, key = source.query[block.name], source.key[block.name]
        foreign = self._attend(block, query=query, key=key, value=value)
        own = self._attend(block, value=value)
        z = self._base.z[block.name]
        return self._with_z(block, _mixed(mask, z + foreign - own, z))

    def _attend(
        self,
        block: Block,
        *,
        query: Heads | None = None,
        key: Heads | None = None,
        value: Heads | None = None,
    ) -> Heads:
        """Return all heads' mixed values, with the base's query, key and value unless given."""
        base = self._base
        return attend(
            self._model,
            block.layer,
            base.query[block.name] if query is None else query,
            base.key[block.name] if key is None else key,
            base.value[block.name] if value is None else value,
            self._real,
        )

    def _with_z(self, block: Block, z: Heads, *, by_kv_head: bool = False) -> Patched:
        """Return the stream with each head's mixed values replaced, one head (or group) a time."""
        changes = torch.stack(list(self._changes(block, z, by_kv_head=by_kv_head)))
        return after(self._base, block, changes)

    def _changes(self, block: Block, z: Heads, *, by_kv_head: bool) -> Iterator[Stream]:
        base, layer = self._base.z[block.name], block.layer
        heads = range(len(base))
        size = len(block.exchangeable[0]) if by_kv_head else 1
        groups = [heads[first : first + size] for first in heads[::size]]
        written = self._model.output(layer, heads, base)
        if not block.coupled:
            changes = self._model.output(layer, heads, z) - written
            yield from (changes[group.start : group.stop].sum(0) for group in groups)
            return
        # One head's change reaches what all others write, through the norm of their sum.
        for group in groups:
            mixed = base.clone()
            mixed[group.start : group.stop] = z[group.start : group.stop]
            yield (self._model.output(layer, heads, mixed) - written).sum(0)


def after(
    base: Recording, block: Block, changes: Float[Tensor, "candidate batch pos d_model"]
) -> Patched:
    """Add changes of what a block adds to the stream at which it is next read."""
    stage = base.stage_after(block)
    return Patched(Point(stage), base.entering[stage] + changes)


def _mixed(mask: Mask, source: Tensor, base: Tensor) -> Tensor:
    """Take the source where a mask over prompts and positions says so, otherwise the base."""
    return torch.where(mask[..., None], source, base)
