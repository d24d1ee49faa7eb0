"""The final stream with some edges cut, computing only the components that decide it.

A pass starts from a run whose streams are known, and adds what is different (see `work`):

- the clean run, in which every edge is kept: a cut edge adds `replacement - clean output` of its
  writer to what its reader receives;
- the replaced run, in which every edge is cut: a kept edge adds `current output - replacement`.

Both are the same function of a mask. The one that is less work is taken, so that a circuit of few
edges costs its own heads and MLPs, and the model with few edges cut those behind the cuts.

Passes are made at all positions and from scratch: only the two runs are taken over from one to the
next. They share no arithmetic with the incremental search, which is checked by them, and are
themselves checked against the model (`checks`) and, in the tests, against the plain definition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.engine.moved_attention import MovedAttention
from circuitfind.engine.moves import Ports
from circuitfind.engine.pass_changes import Changes
from circuitfind.engine.replacement import Runs
from circuitfind.engine.work import Start, Work, least_work, work
from circuitfind.graph import SINGLE_PORTS, Block, SinglePort
from circuitfind.models.units import unit_block
from circuitfind.places import Places

Stream = Float[Tensor, "batch pos d_model"]
Values = Float[Tensor, "writer _batch _pos _width"]
"""What is remembered of some writers of a block (see `Written`)."""


@dataclass
class MaskedPasses:
    """Passes with some edges cut, on the same prompts.

    Attributes:
        runs: The runs that passes start from.
        empty_is_a_run: Whether the graph without edges is a run of the model.
        enlarges_rounding: Whether rounding could grow (see `replacement`); passes then start from
            the replaced run, where a reader that receives nothing receives exactly 0.
        most: How many elements the changes of a pass may have together; with more, prompts are
            taken some at a time.
        places: The places that edges tell apart.
    """

    runs: Runs
    empty_is_a_run: bool
    enlarges_rounding: bool
    most: int
    places: Places | None = None
    _known: list["_Prompts"] = field(default_factory=list, init=False, repr=False)
    _last: tuple[Work, Stream] | None = field(default=None, init=False, repr=False)

    def final(self, kept: Bool[Tensor, "writer reader"], start: Start | None = None) -> Stream:
        """Return what the logits read with just these edges kept.

        Args:
            kept: The edges.
            start: The run to start from; by default the one that is less work.
        """
        todo = self._work(kept.cpu().numpy(), start)
        # Masks can differ in edges that decide nothing.
        if self._last is not None and todo.is_same(self._last[0]):
            return self._last[1]
        final, size, parts = self.runs.final, self._prompts_at_once(todo), []
        with torch.no_grad():
            for first in range(0, len(final), size):
                parts.append(self._prompts(slice(first, first + size)).final(todo))
        self._last = todo, parts[0] if len(parts) == 1 else torch.cat(parts)
        return self._last[1]

    def _prompts(self, rows: slice) -> "_Prompts":
        """Return some of the prompts; what their passes start from is remembered for the next."""
        size = rows.stop - rows.start
        self._known = [each for each in self._known if each.rows.stop - each.rows.start == size]
        for known in self._known:
            if known.rows == rows:
                return known
        self._known.append(_Prompts(self, rows))
        return self._known[-1]

    def _prompts_at_once(self, todo: Work) -> int:
        """Return how many prompts a pass takes together, which depends on its mask alone.

        So a pass rounds alike whichever others are made before it. Powers of two, so that passes
        of about one size share what they start from.
        """
        final = self.runs.final
        most = max(1, self.most // (max(1, todo.n_streams) * final[0].numel()))
        return len(final) if most >= len(final) else 1 << (most.bit_length() - 1)

    def _work(self, kept: NDArray[np.bool_], start: Start | None) -> Work:
        if start is None and self.enlarges_rounding:
            start = "replaced"
        if start is None:
            return least_work(self.runs.graph, kept, empty_is_a_run=self.empty_is_a_run)
        return work(self.runs.graph, kept, start, empty_is_a_run=self.empty_is_a_run)


class _Prompts:
    """Passes on some of the prompts; what they start from is formed once."""

    def __init__(self, passes: MaskedPasses, rows: slice) -> None:
        self.rows, self._runs = rows, passes.runs.rows(rows)
        self._model, self._graph = passes.runs.model, passes.runs.graph.merged
        self._places = passes.places and passes.places.rows(rows)
        self._values = {"clean": self._runs.clean, "replaced": self._runs.replaced}
        self._moves: NDArray[np.bool_] | None = None
        self._moved = None
        if self._places is not None:
            self._moved = MovedAttention(self._runs, self._places)

    def final(self, todo: Work) -> Stream:
        """Return what the logits read."""
        entering, self._moves = self._entering(todo.start), todo.moves
        changes = Changes(todo.n_streams, self._runs.final, todo.changed.shape[1], self._places)
        for block in self._graph.blocks:
            run = [writer for writer in block.writers if todo.changed[writer].any()]
            if run:
                new = self._new(block, run, entering, changes) - self._of(todo.start, block, run)
                changes.send(self._written(block, run, new), todo.changed[run])
            cut = [writer for writer in block.writers if todo.replaced[writer].any()]
            if cut:
                new = self._of("replaced", block, cut) - self._of("clean", block, cut)
                changes.send(self._written(block, cut, new), todo.replaced[cut])
        logits = self._graph.blocks[-1]
        return changes.received(logits.readers, entering[logits.stage])[0]

    def _entering(self, start: Start) -> Mapping[int, Stream]:
        """Return the streams of a run by the stage of the readers that receive them."""
        return self._runs.entering if start == "clean" else self._runs.carried

    def _heads(self, writers: Sequence[int]) -> list[int]:
        return [self._graph.writers[writer].index or 0 for writer in writers]

    def _of(self, start: Start, block: Block, writers: Sequence[int]) -> Values:
        """Return what is remembered of some writers of a block in a run.

        Of a block with units it is what they write.
        """
        run = self._values[start]
        values = run.values[block.name] if block.units is None else run.of(block)
        return values[[block.writers.index(writer) for writer in writers]]

    def _written(self, block: Block, writers: Sequence[int], values: Values) -> Values:
        """Return the outputs that belong to what is remembered of writers, or differences of it."""
        if not block.has_heads or block.coupled:
            return values
        return self._model.output(block.layer, self._heads(writers), values)

    def _new(
        self,
        block: Block,
        writers: Sequence[int],
        entering: Mapping[int, Stream],
        changes: Changes,
    ) -> Values:
        """Run some writers of a block on what they receive now."""
        if block.kind == "embedding":
            return self._of("clean", block, writers)
        base = entering[block.stage]
        if block.kind != "attention" and block.units is not None:
            return self._new_units(block, writers, base, changes)
        if block.kind == "mlp":
            (received,) = changes.received(block.readers, base)
            return self._model.mlp(block.layer, received)[None]
        if block.units is not None:
            z = self._mixed(block.layer, self._graph.heads_in(block.layer), base, changes)
            wanted = [writer - block.writers[0] for writer in writers]
            return unit_block(self._model, block).outputs(z, wanted)
        heads = self._heads(writers)
        if not block.coupled:
            return self._mixed(block.layer, heads, base, changes)
        together = self._heads(block.writers)
        z = self._mixed(block.layer, together, base, changes)
        return self._model.output(block.layer, together, z)[heads]

    def _mixed(
        self, layer: int, heads: Sequence[int], base: Stream, changes: Changes
    ) -> Float[Tensor, "head batch pos d_head"]:
        """Return the z of some heads for what they receive now."""
        query, key, value = (
            self._projected(layer, port, heads, base, changes) for port in SINGLE_PORTS
        )
        read = Ports(query, key, value)
        if self._moves is not None and self._moved is not None:
            block = self._graph.attention[layer]
            kept = self._moves[[self._graph.head_number[block.writers[head]] for head in heads]]
            if not kept.all():
                moves = torch.from_numpy(kept)[:, None].to(self._runs.real.device)
                return self._moved.attend(layer, heads, read, moves)
        return self._model.attend(layer, heads, *read, self._runs.real)

    def _new_units(
        self, block: Block, writers: Sequence[int], base: Stream, changes: Changes
    ) -> Values:
        """Run some writers of an MLP with units; those that read nothing write what they did."""
        unit, first, run = unit_block(self._model, block), block.writers[0], set(writers)
        alone = [writer for writer in writers if not self._graph.inputs[writer]]
        found = dict(zip(alone, self._of("clean", block, alone), strict=True))
        for reader, fed in zip(block.readers, block.feeds, strict=True):
            wanted = sorted(run.intersection(fed))
            if wanted:
                (received,) = changes.received([reader], base)
                outputs = unit.outputs(received, [writer - first for writer in wanted])
                found |= dict(zip(wanted, outputs, strict=True))
        return torch.stack([found[writer] for writer in writers])

    def _projected(
        self,
        layer: int,
        port: SinglePort,
        heads: Sequence[int],
        base: Stream,
        changes: Changes,
    ) -> Float[Tensor, "head batch pos d_head"]:
        """Return the query, key or value of some query heads."""
        read = [self._graph.input_of(layer, head, port) for head in heads]
        readers = list(dict.fromkeys(read))
        rows = [self._graph.readers[reader].index or 0 for reader in readers]
        received = changes.received(readers, base)
        projected = self._model.project(layer, port, rows, received)
        return projected[[readers.index(reader) for reader in read]]
