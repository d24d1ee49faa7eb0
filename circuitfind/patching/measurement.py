"""Measure patches batch after batch, so that an interrupted measurement resumes to the same result.

Prompts are taken as many at a time as `rows` allows, and of these one batch of patches after the
other. What a batch holds follows from the question alone, so a measurement that goes on from a
checkpoint runs the same batches, and its values are the same to the last bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.memory import rows_at_once
from circuitfind.limits import require
from circuitfind.patching.result import Mode, PatchResult, require_gap
from circuitfind.problem import Problem
from circuitfind.progress import Checkpoint, State

Key = tuple[str, tuple[int, ...]]
"""A site, and the indices of one of its patches along the site's axes."""

_WHOLE_BATCH = "the metric is one number for all prompts, so effects have no standard error"

Batch = Callable[[], Iterable[tuple[Key, Float[Tensor, " batch"]]]]
"""Runs some patches; returns each one's key and the metric of every prompt."""


@dataclass(frozen=True)
class Part:
    """The patches of some of the prompts.

    Attributes:
        base: Metric of each prompt in the run that is patched.
        source: Metric of each prompt in the run that the patches come from.
        batches: All patches; none is run before its batch is called.
    """

    base: Float[Tensor, " batch"]
    source: Float[Tensor, " batch"]
    batches: Iterator[Batch]


class Measurement(ABC):
    """Measurements that every kind of patching shares.

    Args:
        problem: The problem, with the prompts to exchange as its pairs (`posed`).
        mode: Which run is patched with which.
        rows: How many prompts, all patches' together, run through the model at once; by default as
            many as fit.
        memory: How many bytes may be taken beside the model; by default what is fast.

    Attributes:
        axes: The axes of each site.
        labels: The labels along each axis.
        n_patches: How many patches there are.
        notes: As in the result.

    Raises:
        LimitError: The number of rows is outside its range.
    """

    axes: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, tuple[str, ...]]
    n_patches: int
    notes: tuple[str, ...] = ()

    def __init__(
        self, problem: Problem, mode: Mode, rows: int | None, memory: int | str | None = None
    ) -> None:
        require(rows=rows)
        self.problem, self.mode = problem, mode
        self.rows = rows_at_once(problem, memory) if rows is None else rows

    @abstractmethod
    def part(self, problem: Problem, prompts: slice) -> Part:
        """Return the patches of some prompts; `problem` is about these alone."""

    def steps(self, state: State | None = None) -> Iterator[Checkpoint]:
        """Measure, yielding after each batch; the last state holds the result.

        Args:
            state: That of an earlier checkpoint of the same measurement, to go on from there.

        Raises:
            MetricError: The two runs have the same metric, so there is no effect to measure.
        """
        parts = self._parts
        total = self.n_patches * len(parts)
        state = self._fresh() if state is None else self._taken_up(state)
        if int(state["done"]) == total:
            yield Checkpoint(total, total, "patches", state)
        while int(state["part"]) < len(parts):
            for latest in self._through(parts[int(state["part"])], state):
                yield Checkpoint(int(latest["done"]), total, "patches", latest)
                state = latest
            state = {**state, "part": state["part"] + 1, "batches": torch.tensor(0)}

    def result(self, state: State) -> PatchResult:
        """Return the result that the last state holds."""
        metric, per_prompt = self.problem.metric, self.problem.prompts.per_prompt
        return PatchResult(
            values={site: per_prompt(state[f"values.{site}"]) for site in self.axes},
            axes=self.axes,
            labels=self.labels,
            base=per_prompt(state["base"]),
            source=per_prompt(state["source"]),
            mode=self.mode,
            metric=metric.name,
            unit=metric.unit,
            per=metric.per,
            notes=(*self.notes, *([_WHOLE_BATCH] if metric.per == "batch" else [])),
        )

    def finished(self, on_progress: Callable[[Checkpoint], None]) -> PatchResult:
        """Measure everything."""
        state: State = {}
        for checkpoint in self.steps():
            on_progress(checkpoint)
            state = checkpoint.state or state
        return self.result(state)

    @property
    def _parts(self) -> list[slice]:
        n = len(self.problem.prompts)
        if self.problem.metric.per == "batch":
            return [slice(0, n)]
        return [slice(first, min(first + self.rows, n)) for first in range(0, n, self.rows)]

    def _fresh(self) -> State:
        n, device = len(self.problem.prompts), self.problem.model.device
        values = {
            f"values.{site}": torch.full(
                (*(len(self.labels[axis]) for axis in axes), n),
                torch.nan,
                dtype=torch.float64,
                device=device,
            )
            for site, axes in self.axes.items()
        }
        ends = torch.full((2, n), torch.nan, dtype=torch.float64, device=device)
        counts = {name: torch.tensor(0) for name in ("part", "batches", "done")}
        return {**values, "base": ends[0], "source": ends[1], **counts}

    def _taken_up(self, state: State) -> State:
        device = self.problem.model.device
        return {
            name: tensor.to(device) if tensor.is_floating_point() else tensor
            for name, tensor in state.items()
        }

    def _through(self, prompts: slice, state: State) -> Iterator[State]:
        """Yield the state after each batch of some prompts that is not in it yet."""
        problem = replace(self.problem, prompts=self.problem.prompts.select(prompts))
        part = self.part(problem, prompts)
        state = {**state, "base": state["base"].clone(), "source": state["source"].clone()}
        state["base"][prompts], state["source"][prompts] = part.base, part.source
        if prompts.stop == len(self.problem.prompts):
            require_gap(state["base"], state["source"])
        for number, batch in enumerate(part.batches):
            if number < int(state["batches"]):
                continue
            found = {name: state[name].clone() for name in state if name.startswith("values.")}
            done = state["done"]
            for (site, index), value in batch():
                found[f"values.{site}"][index][prompts] = value
                done = done + 1
            state = {**state, **found, "done": done, "batches": torch.tensor(number + 1)}
            yield state
