"""Path patching: send a component's foreign output along chosen edges, all else as it was.

A run is taken in which one writer is heard differently by one reader alone (Wang et al. 2022,
arXiv 2211.00593; Goldowsky-Dill et al. 2023, arXiv 2304.05969): the reader receives what the writer
writes in the source run in place of what it writes in the base run, its norm is taken of that sum,
and what follows from what its component then writes reaches all later components. A frozen norm
keeps its scale from the base run, so that what the reader's weights read is linear in the change.
A path of several edges is a chain of such changes: each component on the way is run with only the
path's change in its input, and what it then writes otherwise is passed on along the path's next
edge alone. Only direct edges count: a path through an MLP names that MLP.

The linearised effect of an edge is the metric's derivative along the change that it carries, one
backward pass for all edges (attribution patching on the base run, Syed et al. 2023,
arXiv 2310.10348).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from inspect import signature
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.full_pass import full_pass, plain_pass, sources
from circuitfind.engine.readout import Readout
from circuitfind.errors import GraphError, MethodError, quoted
from circuitfind.graph import Graph, Reader, Writer
from circuitfind.metrics import Metric
from circuitfind.notebook import observer
from circuitfind.patching.components import Components
from circuitfind.patching.measurement import Measurement, Part
from circuitfind.patching.pairs import posed
from circuitfind.patching.patched_runs import Patch, PatchedRuns
from circuitfind.patching.result import Mode, PatchResult
from circuitfind.problem import HasProblem, Problem, as_problem
from circuitfind.progress import Checkpoint

Norm = Literal["exact", "frozen"]
"""How a reader norms what a path changes: anew, or with the scale of the base run."""

NORMS: tuple[Norm, ...] = get_args(Norm)

PATH = "path"
"""Name of the only site of a result of path patching; its axes are sender and receiver."""

FROZEN_NOTE = "readers norm a changed input with the scale of the unpatched run (norm frozen)"


def path_patch(
    asked: HasProblem,
    senders: Sequence[str] | None = None,
    receivers: Sequence[str] | None = None,
    *,
    via: Sequence[str] = (),
    mode: Mode = "noising",
    norm: Norm = "exact",
    rows: int | None = None,
    memory: int | str | None = None,
    progress: bool = False,
    on_progress: Callable[[Checkpoint], None] | None = None,
) -> PatchResult:
    """Measure what each path from a sender to a receiver carries.

    Args:
        asked: The problem, or what a search for its circuit found; gives
            the model, its graph, the pairs of prompts and the metric.
        senders: Writers, such as `a5.h1`; all unless given.
        receivers: Readers, such as `a9.h6.q`; all unless given. They have no places: a path is
            patched at all positions.
        via: Readers that every path leads through, in order: with `a7.h3.v` the path enters head
            a7.h3 by its value and goes on from what that head writes.
        mode: Which run's writes are sent into which run (see `patch`).
        norm: Whether each reader on a path takes its norm of its changed input (`exact`), or keeps
            the scale of the base run (`frozen`), as direct logit attribution does. The norms of
            all later components are taken anew.
        rows: As for `patch`.
        memory: As for `patch`.
        progress: Show how far the measurement is, on one line of stderr; also in notebooks.
        on_progress: Called as the measurement proceeds, in place of that line.

    Returns:
        A result with the site `path` and the axes `sender` and `receiver`; NaN where there is no
        such path.

    Raises:
        GraphError: There is no such writer or reader, or no path at all.
        MethodError: The mode or the norm is unknown.
        MetricError: The two runs have the same metric, so there is no effect to measure.
    """
    paths = PathPatching(
        as_problem(asked),
        senders,
        receivers,
        mode,
        via=via,
        norm=norm,
        rows=rows,
        memory=memory,
    )
    return paths.finished(observer(progress=progress, on_progress=on_progress))


class PathPatching(Measurement):
    """All paths from some writers to some readers; the arguments are those of `path_patch`."""

    def __init__(
        self,
        problem: Problem,
        senders: Sequence[str] | None = None,
        receivers: Sequence[str] | None = None,
        mode: Mode = "noising",
        *,
        via: Sequence[str] = (),
        norm: Norm = "exact",
        rows: int | None = None,
        memory: int | str | None = None,
    ) -> None:
        require_norm(norm)
        problem = posed(problem, mode)
        # Paths are patched at all positions, whatever places a search tells apart.
        problem = replace(problem, graph=problem.graph.merged)
        super().__init__(problem, mode, rows, memory)
        self._frozen = norm == "frozen"
        if self._frozen and "scale_of" not in signature(problem.model.project).parameters:
            raise MethodError(
                f"the model {quoted(problem.model.name)} cannot keep the scale of a norm: its "
                "project, mlp and logits take no scale_of; choose norm exact"
            )
        self.notes = (FROZEN_NOTE,) if self._frozen else ()
        graph = problem.graph
        if graph.units:
            raise GraphError(
                "paths are patched between heads and MLPs, and this graph has neurons or latents; "
                "give a problem without (for single cuts of such edges, search with `exact`)"
            )
        self._senders = _writers(graph, senders)
        self._receivers = _readers(graph, receivers)
        self._via = _readers(graph, via)
        for reader in self._via:
            if reader.name == "logits":
                raise GraphError("no path leads through the logits; give them as the receiver")
        self._exists = torch.tensor(
            [[self._is_path(w, r) for r in self._receivers] for w in self._senders]
        )
        if not bool(self._exists.any()):
            stops = [self._senders[0].name, *via, self._receivers[0].name]
            raise GraphError(
                f"there is no path {' -> '.join(stops)}: each component must run before the next "
                "one reads"
            )
        self.axes = {PATH: ("sender", "receiver")}
        self.labels = {
            "sender": tuple(writer.name for writer in self._senders),
            "receiver": tuple(reader.name for reader in self._receivers),
        }
        self.n_patches = int(self._exists.sum())

    def _is_path(self, sender: Writer, receiver: Reader) -> bool:
        writes_at = sender.stage
        for reader in (*self._via, receiver):
            if writes_at >= reader.stage:
                return False
            writes_at = reader.stage
        return True

    def part(self, problem: Problem, prompts: slice) -> Part:
        runs = PatchedRuns(problem, self.mode, self.rows)
        return runs.part(self._patches(runs))

    def _patches(self, runs: PatchedRuns) -> Iterator[Patch]:
        """Make all patches, reader by reader, so that those that enter at one point go together."""
        problem = runs.problem
        components = Components(
            problem.model,
            problem.graph,
            runs.base,
            runs.source,
            problem.prompts.real,
            frozen=self._frozen,
        )
        most = max(1, self.rows // len(problem.prompts))
        order = sorted(range(len(self._receivers)), key=lambda i: self._receivers[i].stage)
        for senders in _chunks(range(len(self._senders)), most):
            changes = self._changes(components, senders)
            for receiver in order:
                exists = [row for row, i in enumerate(senders) if self._exists[i, receiver]]
                if exists:
                    patched = components.arriving(self._receivers[receiver], changes[exists])
                    keys = tuple((PATH, (senders[row], receiver)) for row in exists)
                    yield Patch(keys, patched)

    def _changes(
        self, components: Components, senders: Sequence[int]
    ) -> Float[Tensor, "candidate batch pos d_model"]:
        """Return what arrives otherwise at the end of each sender's path."""
        with torch.no_grad():
            changes = torch.stack([components.sent(self._senders[i]) for i in senders])
            for reader in self._via:
                changes = components.passed_on(reader, changes)
        return changes


def require_norm(norm: str) -> None:
    """Refuse an unknown way to norm what a path changes.

    Raises:
        MethodError: The message lists the known ones.
    """
    if norm not in NORMS:
        raise MethodError(f"no norm named {quoted(norm)}; choose one of {', '.join(NORMS)}")


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _writers(graph: Graph, names: Sequence[str] | None) -> tuple[Writer, ...]:
    if names is None:
        return graph.writers
    return tuple(graph.writer(name) for name in _once(names))


def _readers(graph: Graph, names: Sequence[str] | None) -> tuple[Reader, ...]:
    if names is None:
        return graph.readers
    return tuple(graph.reader(name) for name in _once(names))


def _once(names: Sequence[str]) -> Sequence[str]:
    if repeated := [name for name in names if list(names).count(name) > 1]:
        raise GraphError(f"{repeated[0]!r} is given twice; give it once")
    return names


def linearised_edges(
    asked: HasProblem,
    *,
    mode: Mode = "noising",
) -> Float[Tensor, "writer reader"]:
    """Estimate every edge's effect on the mean metric from one gradient, in the metric's unit.

    The derivative of the mean metric, taken on the base run, along what each edge would carry
    otherwise. Where the metric is linear in what a reader receives this is the exact change.

    Raises:
        MethodError: The metric has no gradient on the base run: KL divergence of the run from
            itself is at its minimum, and accuracy changes in jumps.
    """
    problem = posed(as_problem(asked), mode)
    _require_slope(problem.metric, mode)
    model, graph, prompts = problem.model, problem.graph, problem.prompts
    base, source = prompts.clean, prompts.corrupted
    if mode == "denoising":
        base, source = source, base
    with torch.no_grad():
        written = plain_pass(model, graph, source, prompts.real).written
        clean = plain_pass(model, graph, prompts.clean, prompts.real).final
        embedding = sources(model, graph, base, prompts.real)
    # The caller may have switched gradients off.
    with torch.inference_mode(mode=False), torch.enable_grad():
        kept = graph.edge_mask.to(device=model.device, dtype=model.dtype).requires_grad_()
        run = full_pass(model, graph, embedding, written, kept, prompts.real, problem.places)
        value = Readout(problem, clean, per_prompt=False).values(run.final).double().mean()
        (gradient,) = torch.autograd.grad(value, kept)
    # Less of the edge's own value means more of its replacement.
    return torch.where(graph.edge_mask, -gradient.cpu().double(), torch.nan)


def _require_slope(metric: Metric, mode: Mode) -> None:
    if metric.slope == "nowhere":
        raise MethodError(
            f"the metric {metric.name!r} has no slope anywhere, so nothing can be estimated from "
            "its gradient; choose logit-difference or loss"
        )
    if metric.slope == "not at the full model" and mode != "denoising":
        raise MethodError(
            f"the metric {metric.name!r} has no slope on the clean run, where it is smallest, so "
            "nothing can be estimated from its gradient; choose logit-difference or loss, or the "
            "mode denoising"
        )
