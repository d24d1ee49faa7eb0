"""Run the whole model with a soft mask: the formula, block by block and differentiable.

Every reader gets its own sum of what the writers before it contribute, a kept edge the writer's
current output and a cut edge its replacement; the model's parts do the rest. Masks may be soft, in
which case an edge carries the mixture, and the pass is differentiable in the mask, in the
embedding and in the replacements.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.engine.gradients import RecordedRun
from circuitfind.engine.moves import MixedRows, Ports, ports_of_heads
from circuitfind.engine.sums import Reads, Sums, SumsByPrompt
from circuitfind.graph import SINGLE_PORTS, Block, Graph, Input, Port, single_ports
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Rows, mix, read, unowned_bias, write
from circuitfind.models.readings import Reading
from circuitfind.models.units import unit_block
from circuitfind.places import Places

Stream = Float[Tensor, "batch pos d_model"]
Streams = Float[Tensor, "writer batch pos d_model"]
Mask = Float[Tensor, "_writer reader"]
"""How much of each edge is kept; moves inside attention have writers of their own."""

MaskByPrompt = Float[Tensor, "_writer reader batch"]
"""The same for each prompt, where no gradient is asked for."""


@dataclass(frozen=True)
class Pass:
    """One run of the model.

    Attributes:
        values: Returns what each writer wrote (see `written`).
        read: What each input received, in the order of the readers of `Graph.merged`; empty unless
            asked for.
        final: What the logits reader received.
        patterns: The attention patterns of the heads of each layer, where moves inside attention
            could be cut and what inputs received was asked for.
    """

    values: Callable[[], Streams]
    read: tuple[Stream, ...]
    final: Stream
    patterns: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def written(self) -> Streams:
        """What each writer wrote, in the order of `Graph.writers`; without a gradient if masked."""
        return self.values()


def plain_pass(
    model: ResidualModel,
    graph: Graph,
    tokens: Int[Tensor, "batch pos"],
    real: Bool[Tensor, "batch pos"] | None = None,
    *,
    keep_reads: bool = False,
) -> Pass:
    """Run the model with every edge kept."""
    embedding = embeddings(model, graph, tokens)
    run = RecordedRun(model, graph, real)
    run.run(torch.stack(embedding).sum(0))
    written = [torch.stack(embedding)]
    for block in graph.blocks[1:-1]:
        if block.units is not None:
            values = unit_block(model, block).outputs(run.given(block))
        else:
            values = run.values[block.name]
        if block.has_heads:
            values = model.output(block.layer, range(len(values)), values)
        written.append(values)
    read = (run.entering[reader.stage] for reader in graph.merged.readers)
    return Pass(lambda: torch.cat(written), tuple(read) if keep_reads else (), run.final)


def full_pass(
    model: ResidualModel,
    graph: Graph,
    embedding: Sequence[Stream],
    replacement: Streams,
    kept: Mask | MaskByPrompt,
    real: Bool[Tensor, "batch pos"] | None = None,
    places: Places | None = None,
    *,
    keep_reads: bool = False,
) -> Pass:
    """Run the model with some edges cut.

    Args:
        model: The model.
        graph: Its graph.
        embedding: What the writers that read nothing write on the clean prompts (see `sources`).
        replacement: What each writer sends along a cut edge.
        kept: 1 where an edge is kept, 0 where it is cut; anything between mixes the two. It may be
            another for each prompt.
        real: True at positions that are no padding; needed by bidirectional models only.
        places: The places that the graph tells apart.
        keep_reads: Whether the result holds what each input received.
    """
    masked = MaskedRun(model, graph, real, replacement, kept, places, keep_reads=keep_reads)
    return masked.run(embedding)


def embeddings(
    model: ResidualModel, graph: Graph, tokens: Int[Tensor, "batch pos"]
) -> tuple[Stream, ...]:
    """Return what each embedding writer of the graph writes."""
    embedding = model.embed(tokens)
    if not graph.split_embedding:
        return (embedding.joint,)
    assert embedding.position is not None
    return (embedding.token, embedding.position)


def sources(
    model: ResidualModel,
    graph: Graph,
    tokens: Int[Tensor, "batch pos"],
    real: Bool[Tensor, "batch pos"] | None = None,
) -> tuple[Stream, ...]:
    """Return what each writer of the graph that reads nothing writes (`Graph.sources`)."""
    found = embeddings(model, graph, tokens)
    if len(graph.sources) > len(found):
        written = plain_pass(model, graph, tokens, real).written
        found += tuple(written[list(graph.sources[len(found) :])])
    return found


class MaskedRun:
    """A pass in progress: what has been written so far, and the sum of what is carried instead."""

    def __init__(
        self,
        model: ResidualModel,
        graph: Graph,
        real: Tensor | None,
        replacement: Streams,
        kept: Mask | MaskByPrompt,
        places: Places | None,
        *,
        keep_reads: bool,
    ) -> None:
        self._model, self._graph, self._real = model, graph, real
        self._places = places if graph.places else None
        self._replacement, self._kept = replacement, kept
        self._sources: dict[int, Stream] = {}
        self._read: list[Stream] | None = [] if keep_reads else None
        self._patterns: dict[int, Tensor] = {}
        # Of the replacements and of what belongs to no writer.
        self._total: Stream | None = None
        by_prompt = kept.ndim > 2  # noqa: PLR2004
        self._sums = SumsByPrompt() if by_prompt else Sums(graph.n_outer[0])
        # The first writer that later readers read.
        self._first = 0

    def run(self, embedding: Sequence[Stream]) -> Pass:
        self._sources = dict(zip(self._graph.sources, embedding, strict=True))
        self._write(torch.stack(list(embedding)[: len(self._graph.embeddings)]))
        for blocks in self._graph.stages:
            together = [(block, self._outputs(block)) for block in blocks]
            for block, outputs in together:
                if block.kind == "stream":
                    # What follows reads what its writers write, and nothing from before.
                    self._total, self._first = None, block.writers[0]
                self._write(outputs)
                self._add_bias(block)
        (final,) = self._received(self._graph.logits)
        read = tuple(self._read or ())
        replacement = self._replacement[: self._sums.n_written]
        return Pass(lambda: self._sums.values + replacement, read, final, self._patterns)

    def _outputs(self, block: Block) -> Streams:
        if block.units is not None and block.kind != "attention":
            return self._unit_outputs(block)
        mixed = self._mixed(block, self._inputs(block))
        if block.units is not None:
            return unit_block(self._model, block).outputs(mixed)
        return write(self._model, block, mixed)

    def _inputs(self, block: Block) -> dict[Input, Rows]:
        """Return what the readers of a block read."""
        if reads := self._reads(block):
            found = self._summed(block.readers, Reads(list(reads.values())))
            return dict(zip(reads, found, strict=True))
        inputs, first, streams = dict[Input, Rows](), 0, self._received(block.readers)
        for port, n in self._ports(block):
            for single in single_ports(port):
                given = streams[first : first + n]
                inputs[single] = read(self._model, block, single, range(n), given)
            first += n
        return inputs

    def _ports(self, block: Block) -> list[tuple[Port | None, int]]:
        """Return by which ports the inputs of a block are read, and how many by each."""
        inputs = (self._graph.readers[number].port for number in block.readers)
        return [(port, len(list(s)) // self._graph.n_places) for port, s in groupby(inputs)]

    def _reads(self, block: Block) -> dict[Input, list[tuple[int, Reading]]]:
        """Return how the heads of a block read, where that is known and saves memory."""
        apart = self._graph.n_places > 1 or self._read is not None
        if apart or not block.has_heads or not torch.is_grad_enabled():
            return {}
        first, found, norms = 0, dict[Input, list[tuple[int, Reading]]](), set[int]()
        for port, n in self._ports(block):
            for single in single_ports(port):
                readings = [self._model.reading(block.layer, single, row) for row in range(n)]
                known = [reading for reading in readings if reading is not None]
                norms |= {id(reading.norm) for reading in known}
                if len(known) < n or len(norms) > 1:
                    return {}
                found[single] = list(enumerate(known, first))
            first += n
        return found

    def _mixed(self, block: Block, inputs: dict[Input, Rows]) -> Rows:
        """Return all heads' `z`, or the activations of an MLP's neurons."""
        model, graph, layer = self._model, self._graph, block.layer
        if block.kind != "attention" or not graph.moves:
            return mix(model, block, inputs, self._real)
        assert self._total is not None and self._places is not None
        rows, columns = graph.inner
        heads = [graph.head_number[head] for head in block.writers]
        ends = rows[heads], columns[heads]
        # Between some pairs of places nothing can move.
        kept = torch.where(graph.edge_mask[ends].to(self._kept.device), self._kept[ends], 1)
        carried = ports_of_heads(model, layer, self._total)
        live = Ports(
            *(
                inputs[port].repeat_interleave(len(heads) // len(inputs[port]), dim=0)
                for port in SINGLE_PORTS
            )
        )
        mixed = MixedRows(model, layer, range(len(heads)), self._places.of, self._real)
        share = kept[:, None].to(self._total.dtype)
        if self._read is not None:
            self._patterns[layer] = mixed.pattern(live, carried, share)
        return mixed.attend(live, carried, share)

    def _unit_outputs(self, block: Block) -> Streams:
        unit, first, feeds = unit_block(self._model, block), block.writers[0], self._graph.feeds
        readers = list(block.readers)
        found = {
            writer: self._sources[writer] for writer in block.writers if writer in self._sources
        }
        for reader, stream in zip(
            readers[:: self._graph.n_places], self._received(readers), strict=True
        ):
            fed = feeds[reader]
            outputs = unit.outputs(stream, [writer - first for writer in fed])
            found |= dict(zip(fed, outputs, strict=True))
        return torch.stack([found[writer] for writer in block.writers])

    def _received(self, readers: Sequence[int]) -> Streams:
        (streams,) = self._summed(readers)
        if self._places is not None:
            streams = self._places.merged(streams)
        if self._read is not None:
            self._read.extend(streams)
        return streams

    def _summed(self, readers: Sequence[int], reads: Reads | None = None) -> tuple[Tensor, ...]:
        """Return what readers receive, place by place; or what is read from it."""
        assert self._total is not None
        rows = slice(self._first, self._sums.n_written)
        mask = self._kept[rows, list(readers)].to(self._total.dtype)
        return self._sums.received(self._first, mask, self._total, reads)

    def _write(self, written: Streams) -> None:
        first = self._sums.n_written
        replacement = self._replacement[first : first + len(written)]
        self._sums.write(written, replacement)
        total = replacement.sum(0)
        self._total = total if self._total is None else self._total + total

    def _add_bias(self, block: Block) -> None:
        bias = unowned_bias(self._model, block)
        if bias is not None and self._total is not None:
            self._total = self._total + bias
