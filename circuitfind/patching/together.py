"""Patch several edges at once: some writers are heard differently by some readers, all together.

The usual question of path patching (Wang et al. 2022, arXiv 2211.00593): what do these heads tell
those? All paths that begin with one of the edges carry the source run, so a receiver that another
one acts on receives that too. This is the full pass with just these edges cut.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.readout import Readout
from circuitfind.errors import GraphError
from circuitfind.metrics import KL
from circuitfind.notebook import observer
from circuitfind.patching.measurement import Key, Measurement, Part
from circuitfind.patching.pairs import posed
from circuitfind.patching.path import PATH
from circuitfind.patching.result import Mode, PatchResult
from circuitfind.problem import HasProblem, Problem, as_problem
from circuitfind.progress import Checkpoint


def patch_together(
    asked: HasProblem,
    senders: Sequence[str],
    receivers: Sequence[str],
    *,
    mode: Mode = "noising",
    rows: int = 64,
    memory: int | str | None = None,
    progress: bool = False,
    on_progress: Callable[[Checkpoint], None] | None = None,
) -> PatchResult:
    """Measure what all edges from some writers into some readers carry together.

    Args:
        asked: The problem, or what a search for its circuit found; gives
            the model, its graph, the pairs of prompts and the metric.
        senders: Writers, such as `a7.h3`.
        receivers: Readers, such as `a9.h6.q`.
        mode: Which run's writes are sent into which run (see `patch`).
        rows: How many prompts run at once. No result depends on it.
        memory: How many bytes may be taken beside the model, also as text like `2GB`; by default
            what it takes.
        progress: Show how far the measurement is, on one line of stderr; also in notebooks.
        on_progress: Called as the measurement proceeds, in place of that line.

    Returns:
        A result with the site `path`, one sender and one receiver, each named after all of them.

    Raises:
        GraphError: There is no such writer or reader, or no edge between them.
        MetricError: The two runs have the same metric, so there is no effect to measure.
    """
    edges = Together(as_problem(asked), senders, receivers, mode, rows=rows, memory=memory)
    return edges.finished(observer(progress=progress, on_progress=on_progress))


class Together(Measurement):
    """One patch of several edges; the arguments are those of `patch_together`."""

    n_patches = 1

    def __init__(
        self,
        problem: Problem,
        senders: Sequence[str],
        receivers: Sequence[str],
        mode: Mode = "noising",
        *,
        rows: int = 64,
        memory: int | str | None = None,
    ) -> None:
        super().__init__(posed(problem, mode), mode, rows)
        self._kept, self._memory = _without(problem, senders, receivers), memory
        self.axes = {PATH: ("sender", "receiver")}
        self.labels = {"sender": ("+".join(senders),), "receiver": ("+".join(receivers),)}

    def part(self, problem: Problem, prompts: slice) -> Part:
        patched, base, source = _measured(problem, self._kept, self.mode, self._memory)
        key: Key = (PATH, (0, 0))
        return Part(base, source, iter([lambda: [(key, patched)]]))


def _without(problem: Problem, senders: Sequence[str], receivers: Sequence[str]) -> torch.Tensor:
    """Return the mask that keeps every edge but those between the two."""
    graph = problem.graph
    writers = [graph.writer_index[graph.writer(name).name] for name in senders]
    readers = [graph.reader_index[graph.reader(name).name] for name in receivers]
    kept = graph.edge_mask.clone()
    for writer in writers:
        kept[writer, readers] = False
    if kept.equal(graph.edge_mask):
        raise GraphError(
            f"no edge leads from {', '.join(senders) or 'nothing'} into "
            f"{', '.join(receivers) or 'nothing'}: a component must run before the next one reads"
        )
    return kept


def _measured(
    problem: Problem, kept: torch.Tensor, mode: Mode, memory: int | str | None
) -> torch.Tensor:
    """Return the metric of each prompt: with the edges patched, of the base, of the source."""
    prompts = problem.prompts
    if mode == "denoising":
        prompts = replace(prompts, clean=prompts.corrupted, corrupted=prompts.clean)
    # Cut edges carry the source run. Its metric is not asked for, and that of the problem may be
    # one for the whole batch.
    engine = IncrementalEngine(replace(problem, prompts=prompts, metric=KL), memory)
    everything = problem.graph.edge_mask
    masks = [kept, everything, torch.zeros_like(everything)]
    _, base, source = finals = list(engine.finals(masks))
    readout = Readout(problem, source if mode == "denoising" else base, per_prompt=False)
    with torch.no_grad():
        return torch.stack([readout.values(final).double() for final in finals])
