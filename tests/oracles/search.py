"""The naive searches: every candidate edge runs the whole model.

Written from the specification alone (Conmy et al. 2023, algorithm 1, with the order and options
that circuitfind documents), without a thought for speed, to hold the real ones to: the same edges
in the same order with the same effects.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from circuitfind.graph import Graph, Reader, Writer

Order = Literal["default", "forward-index"]
LogitsOf = Callable[[Tensor], Tensor]
"""From a mask [writer reader] to logits [batch pos vocab], such as `BruteForce(...).logits`."""
CHANNEL = "channel of "
"""Begins the name of the node between what a port reads and its head."""

Loss = Callable[[Tensor], float]
"""From logits [batch pos vocab] to one number, lower is better."""


@dataclass(frozen=True)
class Decision:
    """What became of one edge, or, under the name `*->reader`, of all edges into one reader.

    Attributes:
        before: The loss before the cut was tried.
        after: The loss with the edge cut; None if it was not tested.
        effect: `after - before`; None if it was not tested.
        kept: Whether the edge stays (for a group: whether its edges go on to be tested singly).
        tested: False if the edge went because its component was dead, or with its group.
    """

    edge: str
    before: float
    after: float | None
    effect: float | None
    kept: bool
    tested: bool


@dataclass
class Found:
    """The outcome of a search: the mask [writer reader], and every decision in order."""

    kept: Tensor
    decisions: list[Decision] = field(default_factory=list)
    loss: float = math.nan


def leave_one_out(
    logits_of: LogitsOf, graph: Graph, loss: Loss, kept: Tensor | None = None
) -> Tensor:
    """Return loss(kept without the edge) - loss(kept) [writer reader]; NaN where none is kept."""
    start = graph.edge_mask if kept is None else kept
    whole = loss(logits_of(start))
    effects = torch.full(start.shape, torch.nan, dtype=torch.float64)
    for writer, reader in start.nonzero().tolist():
        without = start.clone()
        without[writer, reader] = False
        effects[writer, reader] = loss(logits_of(without)) - whole
    return effects


def acdc(
    logits_of: LogitsOf,
    graph: Graph,
    loss: Loss,
    threshold: float,
    *,
    order: Order = "default",
    absolute: bool = False,
    group_qkv: bool = False,
    where: "Where | None" = None,
) -> Found:
    """Search as ACDC does, starting from the full graph.

    Args:
        logits_of: Runs the whole model for a mask.
        graph: The edges to search.
        loss: What must not rise.
        threshold: An edge goes for good if its effect is less than this, strictly and signed.
        order: `default` visits heads from the last to the first, `forward-index` from the first.
        absolute: Compare the effect's absolute value.
        group_qkv: Give each port of a head a node of its own between what the port reads and the
            head, as the original code does (`nodes_in_order`). The single edge into that node is
            tested like any other; without it, none of what the port reads arrives.
        where: Where the places of the graph are, if it has places.
    """
    search = _Search(logits_of, loss, threshold, absolute, Found(graph.edge_mask.clone()))
    search.found.loss = loss(logits_of(search.found.kept))
    for node in nodes_in_order(graph, order) if group_qkv else readers_in_order(graph, order):
        reader = graph.readers[graph.reader_index[node.removeprefix(CHANNEL)]]
        column = graph.reader_index[reader.name]
        dead = is_dead(graph, reader, search.found.kept, where)
        names = [f"{writer}->{reader.name}" for writer in writers_in_order(graph, reader, order)]
        if node.startswith(CHANNEL):
            without = search.found.kept.clone()
            without[:, column] = False
            if not dead and search.try_cut(f"*->{reader.name}", without):
                search.drop_untested(names)
                search.without_channel.add(reader.name)
        elif reader.name in search.without_channel:
            continue
        elif dead:
            search.found.kept[:, column] = False
            search.drop_untested(names)
        else:
            search.try_each(names, column, graph)
    return search.found


@dataclass
class _Search:
    logits_of: LogitsOf
    loss: Loss
    threshold: float
    absolute: bool
    found: Found
    without_channel: set[str] = field(default_factory=set)

    def try_each(self, names: Iterable[str], column: int, graph: Graph) -> None:
        for name in names:
            trial = self.found.kept.clone()
            trial[graph.writer_index[name.partition("->")[0]], column] = False
            self.try_cut(name, trial)

    def try_cut(self, name: str, trial: Tensor) -> bool:
        """Run the model for a trial mask, stay there if the loss rises little, and log it."""
        before, after = self.found.loss, self.loss(self.logits_of(trial))
        effect = after - before
        assert math.isfinite(effect), name
        cut = (abs(effect) if self.absolute else effect) < self.threshold
        self._log(Decision(name, before, after, effect, kept=not cut, tested=True))
        if cut:
            self.found.kept, self.found.loss = trial, after
        return cut

    def drop_untested(self, names: Iterable[str]) -> None:
        for name in names:
            self._log(Decision(name, self.found.loss, None, None, kept=False, tested=False))

    def _log(self, decision: Decision) -> None:
        self.found.decisions.append(decision)


def readers_in_order(graph: Graph, order: Order) -> Iterator[str]:
    """Yield readers from the logits back: in a layer the MLP, then all v, all k, all q.

    The residual stream, where it is taken apart, comes when it runs.

    Of one input, or of one port of all heads, or of the parts of an MLP, the last place comes
    first. Parts are visited as heads are, from the last to the first or the other way.
    """
    last_first: list[str | None] = [*reversed(graph.places)] if graph.places else [None]
    yield from (r.name for r in reversed(graph.readers) if r.layer is None)
    for layer in reversed(range(graph.shape.n_layers)):
        in_layer = [reader for reader in graph.readers if reader.layer == layer]
        arrivals = [r for r in in_layer if is_arrival(r)]
        in_layer = [r for r in in_layer if not is_arrival(r)]
        whole = {letter: [r for r in in_layer if block_letter(r) == letter] for letter in BLOCKS}
        for letter, place in product(("post", "m", "mid"), last_first):
            of_block = [reader.name for reader in whole[letter] if reader.place == place]
            yield from (reversed(of_block) if order == "default" else of_block)
        for head in sorted({int(r.index or 0) for r in arrivals}, reverse=order == "default"):
            yield from (f"a{layer}.h{head}@{place}" for place in last_first)
        for port in ("v", "k", "q", "qkv"):
            for place in last_first:
                here = [r for r in in_layer if (r.port, r.place) == (port, place)]
                of_port = {int(r.index or 0): r.name for r in here}
                for head in sorted(of_port, reverse=order == "default"):
                    yield of_port[head]
        yield from (reader.name for reader in reversed(whole["pre"]))


BLOCKS = ("post", "m", "mid", "a", "pre")
"""How names of components of a block begin: the blocks of a layer, the last one first."""


def block_letter(end: Reader | Writer) -> str:
    """Return how names of components of the same block begin."""
    return re.split(r"\d", end.name)[0]


def is_arrival(reader: Reader) -> bool:
    """Say whether a reader is where the moves of a head arrive."""
    return reader.kind == "move"


def nodes_in_order(graph: Graph, order: Order) -> Iterator[str]:
    """Yield readers and channels in the order in which the original ACDC code visits its nodes.

    It walks the places of a forward pass backwards, and at each place the heads from the last. In a
    pass all queries, then all keys, then all values of a layer are computed, each from an input of
    its own, after all those inputs were formed: so backwards come a layer's value, key and query
    channels, and only then its value, key and query inputs.
    """
    readers = list(readers_in_order(graph, order))
    for layer in [None, *reversed(range(graph.shape.n_layers))]:
        here = [graph.readers[graph.reader_index[name]] for name in readers]
        here = [reader for reader in here if reader.layer == layer]
        before = [reader.name for reader in here if block_letter(reader) == "pre"]
        behind = [reader.name for reader in here if reader.port is None]
        yield from (name for name in behind if name not in before)
        yield from (CHANNEL + reader.name for reader in here if reader.port)
        yield from (reader.name for reader in here if reader.port)
        yield from before


def writers_in_order(graph: Graph, reader: Reader, order: Order) -> Iterator[str]:
    """Yield the writers into a reader from the latest back: MLP, then heads, layer by layer.

    The parts of a block come as heads do, from the last or from the first.
    """
    if is_arrival(reader):
        for source in reversed(range(len(graph.places))):
            if (source, graph.places.index(str(reader.place))) in graph.moves:
                yield from (f"{reader.component}.{port}@{graph.places[source]}" for port in "vkq")
        return
    column = graph.reader_index[reader.name]
    earlier = [w for row, w in enumerate(graph.writers) if graph.edge_mask[row, column]]
    for layer in reversed(range(graph.shape.n_layers)):
        in_layer = [writer for writer in earlier if writer.layer == layer]
        for letter in BLOCKS:
            of_block = [writer.name for writer in in_layer if block_letter(writer) == letter]
            yield from (reversed(of_block) if order == "default" else of_block)
    embeddings = [writer.name for writer in earlier if writer.layer is None]
    yield from reversed(embeddings)


@dataclass(frozen=True)
class Where:
    """Where places are, for prompts all of whose positions are tokens.

    Attributes:
        place_of: The place of each position of each prompt, by its number.
        steps: The positions that the metric reads, in every prompt.
        first_change: The first position at which a cut edge can carry anything else; a causal model
            computes with nothing of the positions before it.
        causal: Whether positions attend to earlier ones only.
    """

    place_of: tuple[tuple[int, ...], ...]
    steps: tuple[int, ...]
    first_change: int = 0
    causal: bool = True

    def has_step(self, place: int) -> bool:
        """Say whether the metric reads at a place."""
        return any(row[step] == place for row in self.place_of for step in self.steps)

    def attends(self, attending: int, attended: int) -> bool:
        """Say whether a position of one place can attend to one of another that can change."""
        return any(
            row[later] == attending and row[earlier] == attended
            for row in self.place_of
            for later in range(len(row))
            for earlier in range(len(row))
            if not self.causal or self.first_change <= earlier <= later
        )


def is_dead(graph: Graph, reader: Reader, kept: Tensor, where: Where | None = None) -> bool:
    """Say whether nothing that computes with this reader's input has a kept outgoing edge.

    With places, an edge counts where the reader's place can tell: at that place itself, or, for
    keys and values, wherever a position can attend to it.
    """
    if reader.kind == "logits":
        return where is not None and not where.has_step(graph.places.index(str(reader.place)))
    if is_arrival(reader):
        return not _writes_on(graph, kept, reader.layer, reader.index, str(reader.place))
    if graph.moves and reader.port is not None and where is not None:
        return not _is_moved_on(graph, reader, kept, where)
    acting = _places_of_use(graph, reader, where)
    if reader.port is None:
        return not any(_acts(graph, w.name, kept, acting) for w in graph.fed_by(reader))
    names = [writer.name for writer in graph.writers if writer.port is None]
    parts = [name for name in names if name.startswith(f"a{reader.layer}.")]
    if f"a{reader.layer}.rest" in parts:  # every input of every head feeds all of them
        return not any(_acts(graph, part, kept, acting) for part in parts)
    heads = list(range(sum(name.startswith(f"a{reader.layer}.h") for name in names)))
    if not graph.shape.heads_share_norm:
        start = f"a{reader.layer}."
        of_port = {
            r.index for r in graph.readers if r.port == reader.port and r.name.startswith(start)
        }
        sharing = len(heads) // len(of_port)
        heads = [head for head in heads if head // sharing == reader.index]
    return not any(_acts(graph, f"a{reader.layer}.h{head}", kept, acting) for head in heads)


def _writes_on(graph: Graph, kept: Tensor, layer: object, head: object, place: str) -> bool:
    """Say whether what a head writes at a place is read; where they share a norm, any head's."""
    n = graph.shape.n_heads
    heads = range(n) if graph.shape.heads_share_norm else (head,)
    return any(_acts(graph, f"a{layer}.h{each}", kept, (place,)) for each in heads)


def _is_moved_on(graph: Graph, reader: Reader, kept: Tensor, where: Where) -> bool:
    """Say whether a kept move takes what a port receives to where its head is read."""
    own, n = graph.places.index(str(reader.place)), graph.shape.n_heads
    size = 1 if reader.port == "q" else n // graph.shape.n_kv_heads
    first = int(reader.index or 0) * size
    for head, (source, target) in product(range(first, first + size), graph.moves):
        if own != (target if reader.port == "q" else source):
            continue
        start = f"a{reader.layer}.h{head}"
        move = (
            graph.writer_index[f"{start}.{reader.port}@{graph.places[source]}"],
            graph.reader_index[f"{start}@{graph.places[target]}"],
        )
        reaches = where.attends(target, source) or reader.port == "q"
        written = _writes_on(graph, kept, reader.layer, head, graph.places[target])
        if kept[move] and reaches and written:
            return True
    return False


def _places_of_use(graph: Graph, reader: Reader, where: Where | None) -> tuple[str | None, ...]:
    """Return the places at which a component uses what a reader receives."""
    if where is None:
        return (None,)
    own = graph.places.index(str(reader.place))
    if reader.port in (None, "q"):
        return (reader.place,)
    return tuple(p for number, p in enumerate(graph.places) if where.attends(number, own))


def _acts(graph: Graph, writer_name: str, kept: Tensor, at: tuple[str | None, ...]) -> bool:
    columns = [index for index, reader in enumerate(graph.readers) if reader.place in at]
    return bool(kept[graph.writer_index[writer_name], columns].any())
