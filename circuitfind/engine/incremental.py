"""Cut one edge after another, re-running only what each cut can change.

A full pass per candidate makes a search slow: GPT-2 small has 32,491 edges, and cutting one
changes nothing before its reader. The engine keeps what every writer wrote, what every reader
received, and every head's query, key and value. A cut changes what one reader receives; from there
the engine walks the stages in order, re-runs only components that receive something new and still
lead to the logits along kept edges (single heads, and of a head only the port that changed), and
follows only edges that are kept. The sparser the circuit gets, the less each cut costs.

States are values: `cut` returns a new one and leaves the old one usable, so a search tries a cut
and keeps whichever state it prefers. There is nothing to undo. States share the tensors that did
not change.

Components that no longer lead to the logits are not kept up to date: edges are only ever cut, so
nothing will read them again.
"""

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.engine.full_pass import Pass, embeddings, full_pass, plain_pass
from circuitfind.engine.readout import Readout
from circuitfind.engine.replacement import replacements
from circuitfind.errors import MethodError
from circuitfind.graph import Graph
from circuitfind.problem import Problem

_DRIFT = {torch.float64: 1e-6, torch.float32: 1e-4}
"""Largest drift allowed, relative to the final stream. Norms of Hugging Face models round to
float32 even where everything else is float64."""

Pair = tuple[int, int]
"""Indices of a writer and a reader."""

Stream = Float[Tensor, "batch pos d_model"]
Projected = Float[Tensor, "batch pos d_head"]


@dataclass(frozen=True)
class EngineState:
    """A forward pass that can be continued with more edges cut.

    Attributes:
        graph: What the indices refer to.
        kept: True where an edge is kept.
        written: What each writer writes, by writer index.
        read: What each reader receives, by reader index.
        projected: Each head's query, key and value, by reader index and port.
        z: Each head's mixed values, by writer index; only where heads share a norm.
    """

    graph: Graph
    kept: NDArray[np.bool_]
    written: Mapping[int, Stream]
    read: Mapping[int, Stream]
    projected: dict[tuple[int, str], Projected]
    z: Mapping[int, Projected]

    @property
    def final(self) -> Stream:
        """What the logits read."""
        return self.read[len(self.graph.readers) - 1]

    @property
    def mask(self) -> Tensor:
        """The kept edges as a tensor."""
        return torch.from_numpy(self.kept.copy())

    @cached_property
    def alive(self) -> NDArray[np.bool_]:
        """For each writer, whether a path of kept edges leads from it to the logits."""
        return live_writers(self.graph, self.kept)

    @cached_property
    def live_readers(self) -> NDArray[np.bool_]:
        """For each reader, whether a component that it feeds is alive."""
        return _fed_alive(self.graph, self.alive)


def live_writers(graph: Graph, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which writers a path of kept edges leads from to the logits.

    Where heads share a norm, a head leads wherever any head of its block does.
    """
    alive = np.zeros(len(graph.writers), dtype=bool)
    reader_alive = np.zeros(len(graph.readers), dtype=bool)
    reader_alive[graph.reader_index["logits"]] = True
    for step in reversed(list(_steps(graph))):
        for writer in step.writers:
            alive[writer] = (kept[writer] & reader_alive).any()
        if graph.shape.heads_share_norm and step.is_attention:
            alive[step.writers] = alive[step.writers].any()
        for writer in step.writers:
            if alive[writer]:
                reader_alive[list(graph.readers_of[graph.writers[writer].name])] = True
    return alive


def _fed_alive(graph: Graph, alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
    readers = np.zeros(len(graph.readers), dtype=bool)
    readers[graph.reader_index["logits"]] = True
    for writer in np.flatnonzero(alive):
        readers[list(graph.readers_of[graph.writers[writer].name])] = True
    return readers


@dataclass(frozen=True)
class _Step:
    """The attention or the MLP of a block, or the embedding."""

    layer: int
    writers: list[int]
    readers: list[int]
    is_attention: bool


def _steps(graph: Graph) -> Iterator[_Step]:
    embedding = [i for i, writer in enumerate(graph.writers) if writer.stage == 0]
    yield _Step(-1, embedding, [], is_attention=False)
    for layer in range(graph.shape.n_layers):
        readers = [i for port in graph.ports for i in graph.head_readers(layer, port)]
        yield _Step(layer, list(graph.head_writers(layer)), readers, is_attention=True)
        if graph.shape.has_mlp:
            name = f"m{layer}"
            writer, reader = graph.writer_index[name], graph.reader_index[name]
            yield _Step(layer, [writer], [reader], is_attention=False)


class IncrementalEngine:
    """Answers what happens when edges are cut, for one problem.

    Attributes:
        problem: The problem.
        clean: The full graph's pass on the clean prompts.
        replacement: What each writer sends along a cut edge.
        readout: Turns a state's final stream into metric values.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.graph = problem.graph
        prompts = problem.prompts
        with torch.no_grad():
            self.clean = plain_pass(
                problem.model, problem.graph, prompts.clean, prompts.real, keep_reads=True
            )
            self.replacement = replacements(problem)
        self.readout = Readout(problem, self.clean.final)
        self._steps = list(_steps(self.graph))[1:]

    def start(self) -> EngineState:
        """Return the full graph: every edge kept."""
        return self._state_of(self.clean, self.graph.edge_mask.numpy())

    def start_from(self, kept: Tensor) -> EngineState:
        """Return the state with just these edges kept, computed from scratch."""
        mask = kept.cpu() & self.graph.edge_mask
        return self._state_of(self._full_pass(mask, keep_reads=True), mask.numpy())

    def recomputed(self, kept: Tensor) -> Stream:
        """Return the final stream with just these edges kept, computed from scratch."""
        return self._full_pass(kept.cpu(), keep_reads=False).final

    def loss(self, state: EngineState) -> float:
        """Return the loss of a state: the metric's mean over prompts, lower is better."""
        return self.readout.loss(state.final)

    def cut(self, state: EngineState, edges: Iterable[Pair]) -> EngineState:
        """Return the state with these edges cut as well; edges already cut stay so."""
        with torch.no_grad():
            return _Cut(self, state).apply(edges)

    def require_no_drift(self, state: EngineState) -> float:
        """Compare a state with a pass from scratch.

        Returns:
            The distance of the final streams, relative to their norm.

        Raises:
            MethodError: It is larger than the rounding of thousands of updates explains.
        """
        scratch = self.recomputed(state.mask)
        drift = float((state.final - scratch).norm() / scratch.norm())
        allowed = _DRIFT[self.problem.model.dtype]
        if not drift <= allowed:
            raise MethodError(
                f"the incremental result differs from one computed from scratch by {drift:.2g} "
                f"(allowed: {allowed:.0e}); try --dtype float64, and please report this"
            )
        return drift

    def _full_pass(self, kept: Tensor, *, keep_reads: bool) -> Pass:
        model, prompts = self.problem.model, self.problem.prompts
        with torch.no_grad():
            return full_pass(
                model,
                self.graph,
                embeddings(model, self.graph, prompts.clean),
                self.replacement,
                kept.to(model.device, model.dtype),
                prompts.real,
                keep_reads=keep_reads,
            )

    def _state_of(self, run: Pass, kept: NDArray[np.bool_]) -> EngineState:
        """Make a state of a pass, with every head's projections."""
        projected: dict[tuple[int, str], Projected] = {}
        z: dict[int, Projected] = {}
        with torch.no_grad():
            for step in self._steps:
                if step.is_attention:
                    projected |= self._project_all(step.layer, run.read)
                    if self.graph.shape.heads_share_norm:
                        z |= self.attend(step.layer, step.writers, projected)
        written, read = dict(enumerate(run.written)), dict(enumerate(run.read))
        return EngineState(self.graph, kept.copy(), written, read, projected, z)

    def _project_all(self, layer: int, read: Sequence[Stream]) -> dict[tuple[int, str], Projected]:
        projected: dict[tuple[int, str], Projected] = {}
        for port in self.graph.ports:
            readers = list(self.graph.head_readers(layer, port))
            streams = {reader: read[reader] for reader in readers}
            projected |= self.project(layer, readers, streams)
        return projected

    def project(
        self, layer: int, readers: Sequence[int], streams: Mapping[int, Stream]
    ) -> dict[tuple[int, str], Projected]:
        """Return what readers of one port of a block project their streams to."""
        port = self.graph.readers[readers[0]].port
        assert port is not None
        heads = [self.graph.readers[reader].head or 0 for reader in readers]
        stream = torch.stack([streams[reader] for reader in readers])
        model = self.problem.model
        return {
            (reader, single): values
            for single in (("q", "k", "v") if port == "qkv" else (port,))
            for reader, values in zip(
                readers, model.project(layer, single, heads, stream), strict=True
            )
        }

    def attend(
        self,
        layer: int,
        writers: Sequence[int],
        projected: Mapping[tuple[int, str], Projected],
    ) -> dict[int, Projected]:
        """Return the mixed values of some heads of a block."""
        shape = self.graph.shape
        heads = [self.graph.writers[writer].head or 0 for writer in writers]
        query, key, value = (
            torch.stack([projected[self._source(layer, head, port)] for head in heads])
            for port in ("q", "k", "v")
        )
        real = self.problem.prompts.real
        z = self.problem.model.attend(layer, heads, query, key, value, real)
        assert z.shape[-1] == shape.d_head
        return dict(zip(writers, z, strict=True))

    def _source(self, layer: int, head: int, port: str) -> tuple[int, str]:
        """Return which reader a head's query, key or value is projected from."""
        if not self.graph.split_qkv:
            return self.graph.head_readers(layer, "qkv")[head], port
        row = head if port == "q" else head // self.graph.shape.heads_per_kv_head
        return self.graph.head_readers(layer, port)[row], port  # type: ignore[arg-type]


@dataclass
class _Cut:
    """One cut in progress: what has changed so far, to be propagated in order of execution."""

    engine: IncrementalEngine
    state: EngineState
    read: dict[int, Stream] = field(default_factory=dict)
    written: dict[int, Stream] = field(default_factory=dict)
    projected: dict[tuple[int, str], Projected] = field(default_factory=dict)
    z: dict[int, Projected] = field(default_factory=dict)
    pending: dict[int, Stream] = field(default_factory=dict)

    def apply(self, edges: Iterable[Pair]) -> EngineState:
        kept = self.state.kept.copy()
        for writer, reader in edges:
            if kept[writer, reader]:
                kept[writer, reader] = False
                self._replace(writer, reader)
        self._kept = kept
        first = min((self.engine.graph.readers[r].stage for r in self.pending), default=None)
        if first is not None:
            self._propagate(first)
        return replace(
            self.state,
            kept=kept,
            written={**self.state.written, **self.written},
            read={**self.state.read, **self.read},
            projected={**self.state.projected, **self.projected},
            z={**self.state.z, **self.z},
        )

    def _replace(self, writer: int, reader: int) -> None:
        if not self.state.live_readers[reader]:
            return
        change = self.engine.replacement[writer] - self.state.written[writer]
        earlier = self.pending.get(reader)
        self.pending[reader] = change if earlier is None else earlier + change

    def _propagate(self, first_stage: int) -> None:
        graph = self.engine.graph
        for step in self.engine._steps:
            if graph.readers[step.readers[0]].stage < first_stage:
                continue
            changed = self._receive(step.readers)
            if changed and step.is_attention:
                self._run_heads(step, changed)
            elif changed:
                new = self.engine.problem.model.mlp(step.layer, self.read[changed[0]])
                self.written[step.writers[0]] = new
        self._receive([len(graph.readers) - 1])

    def _receive(self, readers: Sequence[int]) -> list[int]:
        """Bring what these readers receive up to date; return those that received a change."""
        live = [reader for reader in readers if self.state.live_readers[reader]]
        writers = list(self.written)
        arriving = self._kept[np.ix_(writers, live)]
        columns = np.flatnonzero(arriving.any(axis=0))
        if len(columns):
            changes = self._arriving(writers, arriving[:, columns])
            for column, change in zip(columns, changes, strict=True):
                reader = live[column]
                earlier = self.pending.get(reader)
                self.pending[reader] = change if earlier is None else earlier + change
        changed = [reader for reader in live if reader in self.pending]
        for reader in changed:
            self.read[reader] = self.state.read[reader] + self.pending.pop(reader)
        return changed

    def _arriving(self, writers: Sequence[int], kept: NDArray[np.bool_]) -> Tensor:
        """Sum the changes of writers over the kept edges into each reader, in one product."""
        changes = torch.stack([self.written[w] - self.state.written[w] for w in writers])
        weights = torch.from_numpy(kept.T.copy()).to(changes.device, changes.dtype)
        return (weights @ changes.flatten(1)).view(len(weights), *changes.shape[1:])

    def _run_heads(self, step: _Step, changed: Sequence[int]) -> None:
        engine, graph = self.engine, self.engine.graph
        for port in graph.ports:
            readers = [reader for reader in changed if graph.readers[reader].port == port]
            if readers:
                self.projected |= engine.project(step.layer, readers, self.read)
        fed = {name for r in changed for name in graph.components_fed_by(graph.readers[r])}
        writers = [w for w in step.writers if graph.writers[w].name in fed and self.state.alive[w]]
        projected = ChainMap(self.projected, self.state.projected)
        z = engine.attend(step.layer, writers, projected)
        if graph.shape.heads_share_norm:
            self.z |= z
            writers = step.writers
            z = {writer: self.z.get(writer, self.state.z[writer]) for writer in writers}
        heads = [graph.writers[writer].head or 0 for writer in writers]
        stacked = torch.stack([z[writer] for writer in writers])
        output = engine.problem.model.output(step.layer, heads, stacked)
        self.written |= dict(zip(writers, output, strict=True))
