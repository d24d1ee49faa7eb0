"""From a sweep to a minimal circuit: the components that matter, and the edges between them.

1. Take the components at which a patch was significant: a head for its output, pattern or query, a
   key/value head for its key or value, a block's heads or MLP for what they add. A site of the
   stream stands for no component, but where its effect changes from one depth to the next, the
   components in between did that.
2. Keep only the edges between them, and of these cut one after another, from the logits back, as
   ACDC does (Conmy et al. 2023, arXiv 2304.14997): for good, if that raises the loss by less than
   a share of the difference between the two runs.
3. Remove what no path from the embedding to the logits uses.

This is the classroom way from a sweep to a circuit. What the sweep missed the circuit lacks: a
denoising sweep finds single patches that suffice, a noising sweep what is needed, and the circuit's
scorecard tells how far they got.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import EngineState, IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.graph import Graph, Reader
from circuitfind.patching.result import DEFAULT_THRESHOLD, PatchResult, Row
from circuitfind.progress import Checkpoint, State

_DEPTH = {"resid_pre": 0, "resid_mid": 1, "resid_post": 2}
"""Where in a block a site of the stream lies; a block is two deep."""

_EDGES_PER_COMPONENT = 5


@dataclass(frozen=True)
class Significant:
    """The components that a sweep found to matter.

    Attributes:
        writers: Components whose output mattered, or that do something with an input that did.
        readers: Their inputs that may matter; if no port of a head was swept, all of them.
    """

    writers: frozenset[str]
    readers: frozenset[str]


def significant_components(
    result: PatchResult, graph: Graph, threshold: float = DEFAULT_THRESHOLD
) -> Significant:
    """Return the components at which a patch was significant."""
    writers, ports = set[str](), set[str]()
    for row in result.significant(threshold):
        if row.site in ("q", "k", "v"):
            reader = _port(graph, row.indices[0], row.indices[2], row.site)
            ports.add(reader.name)
            writers |= set(graph.components_fed_by(reader))
        elif row.site not in _DEPTH:
            writers |= set(_written_at(graph, row))
    writers |= set(_between(result, graph, threshold))
    swept = {site for site in ("q", "k", "v") if site in result.values}
    readers = {
        reader.name
        for reader in graph.readers
        if reader.name in ports
        or (reader.port not in swept and writers & set(graph.components_fed_by(reader)))
    }
    return Significant(frozenset(writers), frozenset(readers))


def _port(graph: Graph, layer: int, head: int, port: str) -> Reader:
    if not graph.split_qkv:
        return graph.reader(f"a{layer}.h{head}.qkv")
    return graph.reader(f"{graph.attention_component(layer, head, port)}.{port}")  # type: ignore[arg-type]


def _written_at(graph: Graph, row: Row) -> Iterator[str]:
    layer = int(row.place["layer"])
    if row.site == "mlp_out":
        yield f"m{layer}"
    elif row.site == "attn_out":
        yield from _heads(graph, layer)
    else:
        yield f"a{layer}.h{row.place['head']}"


def _heads(graph: Graph, layer: int) -> Iterator[str]:
    for writer in graph.head_writers(layer):
        yield graph.writers[writer].name


def _between(result: PatchResult, graph: Graph, threshold: float) -> Iterator[str]:
    """Yield the components between two depths of the stream whose effects differ."""
    by_place: dict[int, dict[int, float]] = {}
    for site, depth in _DEPTH.items():
        for row in result.rows(site) if site in result.values else ():
            layer, place = row.indices
            by_place.setdefault(place, {})[2 * layer + depth] = row.effect
    for effects in by_place.values():
        depths = sorted(effects)
        for before, after in zip(depths, depths[1:], strict=False):
            if abs(effects[after] - effects[before]) >= threshold:
                yield from _at_depths(graph, before, after)


def _at_depths(graph: Graph, before: int, after: int) -> Iterator[str]:
    for depth in range(before, after):
        layer, is_mlp = divmod(depth, 2)
        if not is_mlp:
            yield from _heads(graph, layer)
        elif graph.shape.has_mlp:
            yield f"m{layer}"


def circuit_of(
    engine: IncrementalEngine,
    result: PatchResult,
    threshold: float = DEFAULT_THRESHOLD,
    *,
    edge_threshold: float | None = None,
) -> Circuit:
    """Return the edges that are needed between the components that a sweep found to matter.

    Args:
        engine: The problem that was swept, with the pairs that its mode exchanges (`posed`) and
            the ablation `resample`.
        result: What the sweep measured.
        threshold: Smallest effect of a patch that matters, as a share of the difference between
            the two runs.
        edge_threshold: Smallest effect of an edge that is kept, likewise; by default a fifth of
            the threshold, because a component acts through several edges.

    Returns:
        The circuit; its effects are those of the cuts, in the metric's unit.

    Raises:
        MethodError: No component, or no path from the embedding to the logits, is left.
    """
    search = EdgeSearch(engine, result, threshold, edge_threshold=edge_threshold)
    *_, last = search.steps()
    assert last.state is not None
    return search.circuit(last.state)


class EdgeSearch:
    """The search for the edges that are needed; the arguments are those of `circuit_of`."""

    def __init__(
        self,
        engine: IncrementalEngine,
        result: PatchResult,
        threshold: float = DEFAULT_THRESHOLD,
        *,
        edge_threshold: float | None = None,
    ) -> None:
        self._engine, self._threshold = engine, threshold
        graph = engine.graph
        self._found = significant_components(result, graph, threshold)
        if not self._found.writers:
            raise MethodError(
                f"no component has an effect of {threshold:g} or more, so there is no circuit to "
                "draw; choose a smaller threshold, or other sites"
            )
        names = {*self._found.readers, "logits"}
        rows = torch.tensor([w.stage == 0 or w.name in self._found.writers for w in graph.writers])
        columns = torch.tensor([reader.name in names for reader in graph.readers])
        self._among = Circuit(graph, graph.edge_mask & rows[:, None] & columns).connected()
        share = threshold / _EDGES_PER_COMPONENT if edge_threshold is None else edge_threshold
        self._needed = share * abs(result.gap)

    def steps(self, state: State | None = None) -> Iterator[Checkpoint]:
        """Cut every edge whose absence raises the loss by less than a threshold, as ACDC does.

        Args:
            state: That of an earlier checkpoint of the same search, to go on from there.

        Yields:
            A checkpoint after each reader; the last one's state holds the circuit.
        """
        engine, graph, among = self._engine, self._engine.graph, self._among
        total = among.n_edges
        nothing = torch.full(graph.edge_mask.shape, torch.nan, dtype=torch.float64)
        begun = state or {"kept": among.kept, "effects": nothing, "tested": torch.tensor(0)}
        current, done = engine.start_from(begun["kept"]), int(begun["tested"])
        effects = begun["effects"]
        if done == total:
            yield Checkpoint(done, total, "edges", begun)
        passed = 0
        for reader in reversed(range(len(graph.readers))):
            writers = among.kept[:, reader].nonzero().flatten().tolist()
            passed += len(writers)
            if not writers or passed <= done:
                continue
            current, effects = self._without_needless(current, effects.clone(), reader, writers)
            now = {"kept": current.mask, "effects": effects, "tested": torch.tensor(passed)}
            yield Checkpoint(passed, total, "edges", now)
        engine.require_no_drift(current)

    def _without_needless(
        self, state: EngineState, effects: Tensor, reader: int, writers: Sequence[int]
    ) -> tuple[EngineState, Tensor]:
        """Cut a reader's needless edges, from the latest writer back, and note every effect."""
        engine = self._engine
        current = engine.loss(state)
        for writer in reversed(writers):
            trial = engine.cut(state, [(writer, reader)])
            rise = engine.loss(trial) - current
            if state.live_readers[reader]:
                effects[writer, reader] = rise
            if rise < self._needed:
                state, current = trial, current + rise
        return state, effects

    def circuit(self, state: State) -> Circuit:
        """Return the circuit that the last state holds, without dead ends.

        Raises:
            MethodError: No path from the embedding to the logits is left.
        """
        circuit = Circuit(self._engine.graph, state["kept"], state["effects"]).connected()
        if not circuit.n_edges:
            raise MethodError(
                f"between the {len(self._found.writers)} components with an effect of "
                f"{self._threshold:g} or more no path from the embedding to the logits is needed; "
                "choose a smaller threshold, or the mode noising"
            )
        return circuit
