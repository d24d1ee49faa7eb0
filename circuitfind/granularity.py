"""Granularity of a graph: functions that build graphs from a model's sizes.

`heads_and_mlps` gives a writer to each head and one to each MLP. The embedding runs at stage 0, the
attention of layer l at 2l + 1, its MLP at 2l + 2 (at 2l + 1 where the MLP is parallel to the
attention and does not read it), and the logits last. With grouped key/value heads there is one k
and one v reader per key/value head, because that is what the model computes. Layers may differ in
all of this.

The units of an MLP (neurons, or latents of a dictionary) can be writers themselves. The rest of the
MLP is then one writer, and so are a dictionary's skip connection and its error. Neurons are fed by
the one input of their MLP, since they share its norm; latents of a transcoder have one input each.
So can the latents of an autoencoder of what attention adds to the stream: they take the place of
the heads as writers, and every input of every head feeds all of them.

Latents of the residual stream are a block of their own, at a stage of its own before a layer
(`pre5`), between its attention and its MLP (`mid5`) or behind it (`post5`). It reads all that was
written since the embedding, or since the last such block, and what it writes takes the place of
that: readers behind it read the stream from there on (`Reader.since`).
"""

from collections.abc import Sequence
from dataclasses import replace

from circuitfind.errors import GraphError, require_kind
from circuitfind.graph import (
    MAX_PAIRS,
    Block,
    BlockKind,
    Graph,
    Kind,
    Port,
    Reader,
    Units,
    UnitsOf,
    Writer,
)
from circuitfind.shape import LayerShape, ModelShape


def heads_and_mlps(
    shape: ModelShape,
    *,
    merge_qkv: bool = False,
    split_embedding: bool = False,
    units: Sequence[Units] = (),
) -> Graph:
    """Return the graph of a model's heads and MLPs.

    Args:
        shape: The model's sizes.
        merge_qkv: Give each head one reader in place of three (query, key and value).
        split_embedding: Make token and position embedding separate writers.
        units: Neurons or latents that are writers, at most one entry for each block.

    Raises:
        GraphError: The model cannot be taken apart like this, or the graph is larger than that of
            any model.
    """
    require_kind(shape, ModelShape, "a model's sizes; give `model.shape`")
    taken_apart = _by_block(shape, units)
    _check(shape, merge_qkv=merge_qkv, split_embedding=split_embedding, units=units)
    builder = _Builder(shape, ("qkv",) if merge_qkv else ("q", "k", "v"))
    builder.add_embeddings(("embed", "pos_embed") if split_embedding else ("embed",))
    for layer, sizes in enumerate(shape.layers):
        builder.add_stream(taken_apart.get(("resid_pre", layer)))
        builder.add_attention(layer, sizes, taken_apart.get(("attention", layer)))
        builder.add_stream(taken_apart.get(("resid_mid", layer)))
        if sizes.has_mlp:
            builder.add_mlp(layer, sizes, taken_apart.get(("mlp", layer)))
        builder.add_stream(taken_apart.get(("resid_post", layer)))
    builder.add_logits()
    return Graph(shape, tuple(builder.writers), tuple(builder.readers), tuple(builder.blocks))


def with_units(graph: Graph, units: Sequence[Units]) -> Graph:
    """Return a graph with these units, or with none, and all else as it is.

    Raises:
        GraphError: It would be larger than that of any model.
    """
    if tuple(units) == graph.units:
        return graph
    found = heads_and_mlps(
        graph.shape,
        merge_qkv=not graph.split_qkv,
        split_embedding=graph.split_embedding,
        units=units,
    )
    found = found.at_places(graph.places) if graph.places else found
    return found.crossing(graph.moves) if graph.moves else found


def _by_block(shape: ModelShape, units: Sequence[Units]) -> dict[tuple[UnitsOf, int], Units]:
    found = {(each.of, each.layer): each for each in units}
    if len(found) < len(units):
        raise GraphError("the units of a block are given twice; give one entry for each block")
    for of, layer in found:
        if not has_part(shape, layer, of):
            mid = " (a stream that an MLP reads behind the attention of its layer)"
            raise GraphError(
                f"there is no {'MLP' if of == 'mlp' else of}{mid * (of == 'resid_mid')} in layer "
                f"{layer} whose units could be writers; the model has the layers 0 to "
                f"{shape.n_layers - 1}"
            )
    return found


def has_part(shape: ModelShape, layer: int, of: UnitsOf) -> bool:
    """Return whether a model has a layer, and in it what units could take apart."""
    if not 0 <= layer < shape.n_layers:
        return False
    sizes = shape.layers[layer]
    return {"mlp": sizes.has_mlp, "resid_mid": sizes.has_mid}.get(of, True)


def _check(
    shape: ModelShape, *, merge_qkv: bool, split_embedding: bool, units: Sequence[Units]
) -> None:
    n_pairs = _n_pairs(shape, merge_qkv=merge_qkv, split_embedding=split_embedding, units=units)
    if n_pairs > MAX_PAIRS:
        raise GraphError(
            f"a graph of {shape.n_layers:,} layers with {shape.heads_text} heads is "
            f"larger than that of any model: it has {n_pairs:,} pairs of a writer and a "
            f"reader, and at most {MAX_PAIRS:,} are allowed{'; list fewer units' * bool(units)}"
        )
    if merge_qkv and shape.grouped:
        raise GraphError(
            "q, k and v cannot be merged where query heads share key/value heads "
            f"({shape.heads_text} share {shape.n_kv_heads}); keep them split"
        )
    if split_embedding and not shape.learned_positions:
        raise GraphError(
            "this model has no position embedding to split from `embed`; keep the embedding joint"
        )


def _n_pairs(
    shape: ModelShape, *, merge_qkv: bool, split_embedding: bool, units: Sequence[Units]
) -> int:
    """Return how many pairs of a writer and a reader there are, in any order of execution."""
    n_writers = shape.total("n_heads") + shape.total("has_mlp")
    n_readers = n_writers + (0 if merge_qkv else 2 * shape.total("n_kv_heads"))
    n_writers += sum(len(each.numbers) for each in units)
    n_readers += sum(len(each.numbers) for each in units if each.apart)
    return ((2 if split_embedding else 1) + n_writers) * (1 + n_readers)


_STREAM_STAGES: dict[UnitsOf, int] = {"resid_pre": 1, "resid_mid": 2, "resid_post": 3}


class _Builder:
    """Collects the blocks of a graph in the order in which they run."""

    def __init__(self, shape: ModelShape, ports: tuple[Port, ...]) -> None:
        self._shape, self._ports = shape, ports
        # How many stages streams have taken, and that of the stream that readers read from.
        self._shift = self._since = 0
        self.writers: list[Writer] = []
        self.readers: list[Reader] = []
        self.blocks: list[Block] = []

    def add_embeddings(self, names: tuple[str, ...]) -> None:
        writers = [Writer(name, "embedding", 0) for name in names]
        self._add("embedding", "embedding", -1, 0, writers, [])

    def add_attention(self, layer: int, sizes: LayerShape, units: Units | None) -> None:
        """Add the attention of a layer; every input of its heads feeds all units, if it has any."""
        stage, size = 2 * layer + 1 + self._shift, sizes.heads_per_kv_head
        heads = range(sizes.n_heads)
        readers = []
        for port in self._ports:
            if sizes.grouped and port in ("k", "v"):
                for group in range(sizes.n_kv_heads):
                    reader = _head_reader("kv group", f"a{layer}.kv{group}", layer, group, port)
                    readers.append((reader, range(group * size, (group + 1) * size)))
            else:
                for head in heads:
                    reader = _head_reader("head", head_name(layer, head), layer, head, port)
                    readers.append((reader, range(head, head + 1)))
        groups = [range(first, first + size) for first in heads[::size]]
        writers = [Writer(head_name(layer, head), "head", stage, layer, head) for head in heads]
        if units is not None:
            writers, groups = _parts(units, stage), []
            readers = [(reader, range(len(writers))) for reader, _ in readers]
        self._add(f"a{layer}", "attention", layer, stage, writers, readers, groups)
        self.blocks[-1] = replace(self.blocks[-1], units=units)

    def add_mlp(self, layer: int, sizes: LayerShape, units: Units | None) -> None:
        """Add an MLP, of which units may be writers."""
        name = f"m{layer}"
        stage = 2 * layer + (1 if sizes.parallel_mlp else 2) + self._shift
        writers = [Writer(name, "mlp", stage, layer)] if units is None else _parts(units, stage)
        n_fed = len(writers) - (units is not None and units.error == "fixed")
        readers = [(Reader(name, "mlp", stage, name, layer), range(n_fed))]
        if units is not None and units.apart:
            readers = [
                (Reader(w.name, w.kind, stage, w.name, layer, w.index), range(i, i + 1))
                for i, w in enumerate(writers[:n_fed])
            ]
        self._add(name, "mlp", layer, stage, writers, readers)
        self.blocks[-1] = replace(self.blocks[-1], units=units)

    def add_stream(self, units: Units | None) -> None:
        """Add latents that take the residual stream apart; what follows reads what they write."""
        if units is None:
            return
        stage = 2 * units.layer + _STREAM_STAGES[units.of] + self._shift
        writers = _parts(units, stage)
        reader = Reader(units.block, "stream", stage, units.block, units.layer)
        self._add(
            units.block, "stream", units.layer, stage, writers, [(reader, range(len(writers)))]
        )
        self.blocks[-1] = replace(self.blocks[-1], units=units)
        self._shift, self._since = self._shift + 1, stage

    def add_logits(self) -> None:
        layer = self._shape.n_layers
        reader = Reader("logits", "logits", 2 * layer + 1 + self._shift, "logits")
        self._add("logits", "logits", layer, reader.stage, [], [(reader, range(0))])

    def _add(
        self,
        name: str,
        kind: BlockKind,
        layer: int,
        stage: int,
        writers: list[Writer],
        readers: list[tuple[Reader, range]],
        exchangeable: Sequence[range] = (),
    ) -> None:
        """Add a block; what readers feed and what is exchangeable are places in `writers`."""
        first_writer, first_reader = len(self.writers), len(self.readers)

        def placed(places: range) -> tuple[int, ...]:
            return tuple(first_writer + place for place in places)

        self.blocks.append(
            Block(
                name,
                kind,
                stage,
                layer,
                readers=tuple(range(first_reader, first_reader + len(readers))),
                writers=placed(range(len(writers))),
                feeds=tuple(placed(fed) for _, fed in readers),
                exchangeable=tuple(placed(group) for group in exchangeable),
                coupled=bool(exchangeable) and self._shape.heads_share_norm,
            )
        )
        self.writers.extend(writers)
        read = (replace(reader, stage=stage, since=self._since) for reader, _ in readers)
        self.readers.extend(read)


def _parts(units: Units, stage: int) -> list[Writer]:
    """Return the writers that a block with units has."""
    layer, name = units.layer, units.block
    letter = "n" if units.kind == "neuron" else "f"
    writers = [
        Writer(f"{name}.{letter}{number}", units.kind, stage, layer, number)
        for number in units.numbers
    ]
    others = ("rest", *["skip"] * units.skip)
    writers += [Writer(f"{name}.{other}", units.whole, stage, layer) for other in others]
    if units.error is not None:
        writers.append(Writer(f"{name}.error", "error", stage, layer))
    return writers


def head_name(layer: int | str, head: int | str) -> str:
    """Return the name of a head: `a5.h1`."""
    return f"a{layer}.h{head}"


def _head_reader(kind: Kind, component: str, layer: int, index: int, port: Port) -> Reader:
    name = f"{component}.{port}"
    return Reader(name, kind, 0, component, layer, index, port, looks_back=port != "q")
