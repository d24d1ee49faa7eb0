"""Cut one edge after another, re-running only what each cut can change.

A full pass per candidate makes a search slow: GPT-2 small has 32,491 edges, and cutting one
changes nothing before its reader. The engine keeps what every writer wrote, what every reader
received, and every head's query, key and value. A cut changes what one reader receives; from there
only components are run again that receive something new and still lead to the logits along kept
edges: single heads, and of a head only the port that changed, at the positions that matter
(`state.py`). Many candidates are evaluated together (`trial.py`). The sparser the circuit gets,
the less each cut costs.

States are values: cutting returns a new one and leaves the old one usable, so a search tries a cut
and keeps whichever state it prefers. There is nothing to undo. States share the tensors that did
not change.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.engine.cuts import Cuts, candidates_at_once
from circuitfind.engine.differences import Outputs, groups, total
from circuitfind.engine.full_pass import Pass, embeddings, full_pass
from circuitfind.engine.gaps import gaps_of
from circuitfind.engine.gradients import TracedRun, segment_before, written_of
from circuitfind.engine.readout import Readout
from circuitfind.engine.state import EngineState, Horizon, Projected, Stage, Stream, stages
from circuitfind.engine.trial import Trial
from circuitfind.errors import MethodError
from circuitfind.problem import Problem
from circuitfind.prompts import difference_start

_DRIFT = {torch.float64: 1e-6, torch.float32: 1e-4}
"""Largest drift allowed, relative to the final stream. Norms of Hugging Face models round to
float32 even where everything else is float64."""

_PASS_FLOATS = 1 << 24
"""How many numbers the writers of a pass from scratch may write together; 64 MiB in float32."""

Pair = tuple[int, int]
"""Indices of a writer and a reader."""


class IncrementalEngine:
    """Answers what happens when edges are cut, for one problem.

    Attributes:
        problem: The problem.
        graph: Its graph.
        clean: The full graph's run on the clean prompts.
        gaps: The changes that cuts make.
        readout: Turns final streams into metric values.
        horizon: How many positions can matter at all.
        stages: The attention and the MLP of every block, in order.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.graph = problem.graph
        model, prompts = problem.model, problem.prompts
        with torch.no_grad():
            self._embedding = embeddings(model, problem.graph, prompts.clean)
            self.clean = TracedRun(model, problem.graph, prompts.real, traced=False)
            self.clean.run(total(self._embedding))
            self.gaps = gaps_of(problem)
        self.readout = Readout(problem, self.clean.final)
        self.horizon = horizon(problem)
        self.stages: list[Stage] = list(stages(self.graph))

    @property
    def most_candidates(self) -> int:
        """How many candidates are evaluated at once at most."""
        n_prompts, d_model = len(self.clean.final), self.graph.shape.d_model
        return candidates_at_once(n_prompts * self.horizon.changes * d_model)

    def start(self) -> EngineState:
        """Return the full graph: every edge kept."""
        clean = self.clean
        read = {
            index: clean.streams[segment_before(self.graph, reader.stage)]
            for index, reader in enumerate(self.graph.readers)
        }
        written = written_of(clean, self._embedding)
        outputs = Outputs(self.problem.model, written)
        streams: dict[int, Stream] = {}
        z: dict[int, Projected] = {}
        with torch.no_grad():
            for group in groups(self.graph):
                if group.kind == "attention":
                    z |= dict(zip(group.writers, written.z[group.layer], strict=True))
                if group.writers[0] in self.gaps.streams:
                    streams |= dict(zip(group.writers, outputs.of(group), strict=True))
        return self._state(self.graph.edge_mask.numpy(), streams, read, z)

    def start_from(self, kept: Tensor) -> EngineState:
        """Return the state with just these edges kept, computed from scratch."""
        mask = kept.cpu() & self.graph.edge_mask
        run = self._full_pass(mask, slice(None), keep_reads=True)
        streams = {writer: run.written[writer] for writer in self.gaps.streams}
        return self._state(mask.numpy(), streams, dict(enumerate(run.read)))

    def recomputed(self, kept: Tensor) -> Stream:
        """Return the final stream with just these edges kept, computed from scratch."""
        size = max(1, _PASS_FLOATS // (self.graph.n_components * self.clean.final[0].numel()))
        parts = [slice(first, first + size) for first in range(0, len(self.clean.final), size)]
        return torch.cat([self._full_pass(kept.cpu(), part).final for part in parts])

    def loss(self, state: EngineState) -> float:
        """Return the loss of a state: the metric's mean over prompts, lower is better."""
        return self.readout.loss(state.final)

    def cut(self, state: EngineState, edges: Iterable[Pair]) -> EngineState:
        """Return the state with these edges cut as well; edges already cut stay so."""
        kept = state.kept.copy()
        trial = Trial(self, state, kept, n=1)
        with torch.no_grad():
            for reader, writers in _by_reader(edges).items():
                span = int(state.spans.readers[reader])
                gone = [writer for writer in writers if kept[writer, reader]]
                if gone and span:
                    trial.pending[reader] = total(list(self.gaps.of(state, gone, span)))[None]
                kept[gone, reader] = False
            trial.propagate()
            return trial.pick(0, kept)

    def cut_nested(self, state: EngineState, reader: int, writers: Sequence[int]) -> Trial:
        """Evaluate cutting a reader's first edge, its first two, and so on."""
        return self._try(state, reader, writers, nested=True)

    def cut_each(self, state: EngineState, reader: int, writers: Sequence[int]) -> Trial:
        """Evaluate cutting each of a reader's edges alone."""
        return self._try(state, reader, writers, nested=False)

    def _try(
        self, state: EngineState, reader: int, writers: Sequence[int], *, nested: bool
    ) -> Trial:
        if not state.spans.readers[reader]:
            return Trial(self, state, state.kept, n=len(writers))
        span = int(state.spans.readers[reader])
        before = state.read[reader][:, -span:]
        cuts = Cuts(reader, before, self.gaps.of(state, writers, span), nested=nested)
        trial = Trial(self, state, state.kept, n=len(writers), cuts=cuts)
        with torch.no_grad():
            trial.propagate()
        return trial

    def require_no_drift(self, state: EngineState) -> float:
        """Compare a state with a pass from scratch.

        Returns:
            The distance of the final streams, relative to the norm of the full graph's: a state's
            own may be 0, where everything is cut under zero ablation.

        Raises:
            MethodError: It is larger than the rounding of thousands of updates explains.
        """
        n = state.final.shape[1]
        scratch = self.recomputed(state.mask)[:, -n:]
        drift = float((state.final - scratch).norm() / self.clean.final[:, -n:].norm())
        allowed = _DRIFT[self.problem.model.dtype]
        if not drift <= allowed:
            raise MethodError(
                f"the incremental result differs from one computed from scratch by {drift:.2g} "
                f"(allowed: {allowed:.0e}); try --dtype float64, and please report this"
            )
        return drift

    @cached_property
    def replacement(self) -> Float[Tensor, "writer batch pos d_model"]:
        """What each writer sends along a cut edge."""
        with torch.no_grad():
            return self.gaps.replacement(slice(None))

    def _full_pass(self, kept: Tensor, rows: slice, *, keep_reads: bool = False) -> Pass:
        model, prompts = self.problem.model, self.problem.prompts
        with torch.no_grad():
            return full_pass(
                model,
                self.graph,
                [stream[rows] for stream in self._embedding],
                self.gaps.replacement(rows),
                kept.to(model.device, model.dtype),
                prompts.real[rows],
                keep_reads=keep_reads,
            )

    def _state(
        self,
        kept: NDArray[np.bool_],
        written: Mapping[int, Stream],
        read: Mapping[int, Stream],
        z: Mapping[int, Projected] | None = None,
    ) -> EngineState:
        """Make a state with every head's projections, and with what it mixes unless given."""
        projected: dict[tuple[int, str], Projected] = {}
        mixed: dict[int, Projected] = {}
        with torch.no_grad():
            for stage in self.stages:
                if stage.is_attention:
                    projected |= self._project_all(stage.layer, read)
                    if z is None:
                        mixed |= self._mix_all(stage, projected)
        return EngineState(
            self.graph, self.horizon, kept.copy(), written, read, projected, z or mixed
        )

    def _project_all(
        self, layer: int, read: Mapping[int, Stream]
    ) -> dict[tuple[int, str], Projected]:
        projected: dict[tuple[int, str], Projected] = {}
        for port in self.graph.ports:
            readers = list(self.graph.head_readers(layer, port))
            streams = {reader: read[reader] for reader in readers}
            projected |= self.project(layer, readers, streams)
        return projected

    def _mix_all(
        self, stage: Stage, projected: Mapping[tuple[int, str], Projected]
    ) -> dict[int, Projected]:
        layer, heads = stage.layer, range(self.graph.shape.n_heads)
        query, key, value = (
            torch.stack([projected[self.source(layer, head, port)] for head in heads])[:, None]
            for port in ("q", "k", "v")
        )
        z = self.attend(layer, heads, query, key, value)
        return dict(zip(stage.writers, z[:, 0], strict=True))

    def project(
        self, layer: int, readers: Sequence[int], streams: Mapping[int, Stream]
    ) -> dict[tuple[int, str], Projected]:
        """Return what readers of one port of a block project their streams to."""
        port = self.graph.readers[readers[0]].port
        assert port is not None
        heads = [self.graph.readers[reader].head or 0 for reader in readers]
        stream = _stacked([streams[reader] for reader in readers])
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
        heads: Sequence[int],
        query: Float[Tensor, "head _ batch last d_head"],
        key: Float[Tensor, "head _ batch pos d_head"],
        value: Float[Tensor, "head _ batch pos d_head"],
    ) -> Float[Tensor, "head candidate batch last d_head"]:
        """Return the mixed values of some heads for all candidates, which may share any input."""
        real = self.problem.prompts.real
        query, key, value = (values.flatten(1, 2) for values in (query, key, value))
        z = self.problem.model.attend(layer, heads, query, key, value, real)
        return z.view(len(heads), -1, len(real), *z.shape[2:])

    def source(self, layer: int, head: int, port: str) -> tuple[int, str]:
        """Return which reader a head's query, key or value is projected from."""
        if not self.graph.split_qkv:
            return self.graph.head_readers(layer, "qkv")[head], port
        row = head if port == "q" else head // self.graph.shape.heads_per_kv_head
        return self.graph.head_readers(layer, port)[row], port  # type: ignore[arg-type]


def horizon(problem: Problem) -> Horizon:
    """Return how many positions, counted from the end, can matter for a problem."""
    prompts, length = problem.prompts, problem.prompts.clean.shape[1]
    steps = length - int(prompts.steps[prompts.step_is_real].min())
    if not problem.model.causal:
        return Horizon(length, length)
    # Zero and mean ablation change every position.
    first = int(difference_start(prompts).min()) if problem.ablation == "resample" else 0
    return Horizon(steps, max(length - first, steps))


def _by_reader(edges: Iterable[Pair]) -> dict[int, list[int]]:
    """Sort edges by reader, each once, in their order."""
    writers: dict[int, list[int]] = {}
    for writer, reader in dict.fromkeys(edges):
        writers.setdefault(reader, []).append(writer)
    return writers


def _stacked(streams: Sequence[Stream]) -> Float[Tensor, "head batch pos d_model"]:
    """Stack streams without copying where there is one, or all are one and the same."""
    first = streams[0]
    if all(stream.data_ptr() == first.data_ptr() for stream in streams):
        return first.expand(len(streams), *first.shape)
    return torch.stack(list(streams))
