"""Measure many circuits on the same prompts, some prompts at a time.

A passing of prompts through the model with some edges cut is the unit of cost of every evaluation:
the meter counts them and knows how long one takes. Prompts that do not fit into memory together
are measured in chunks; since metrics give a number per prompt, that changes no number.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.engine.full_pass import embeddings, full_pass, plain_pass
from circuitfind.engine.readout import Readout
from circuitfind.engine.replacement import mean_over_prompts, replacement
from circuitfind.engine.written import Written
from circuitfind.evaluation.passes import PassLog, Rows, key_of, key_of_pass
from circuitfind.metrics import Metric
from circuitfind.problem import Problem

Mask = Bool[Tensor, "writer reader"]
Values = Mapping[str, Float[Tensor, "circuit batch"]]
"""By the name of the metric: a number per circuit and prompt, in float64."""

_FLOATS = 1 << 27
"""How many numbers the writers of a chunk of prompts may write; 512 MiB in float32."""


class Meter:
    """Measures circuits by some metrics.

    Attributes:
        problem: What is asked of the circuits.
        metrics: The metrics; the problem's own comes first.
        n_passes: How many passes of all prompts were made.
        seconds: How long they took.

    Args:
        problem: What is asked of the circuits.
        others: More metrics than the problem's own.
        prompts_at_once: How many prompts are measured together; by default as many as fit.
        on_pass: Called after each pass of all prompts.
        log: Passes that were made already, and where new ones are kept.
    """

    def __init__(
        self,
        problem: Problem,
        others: Sequence[Metric] = (),
        *,
        prompts_at_once: int | None = None,
        on_pass: Callable[[], None] = lambda: None,
        log: PassLog | None = None,
    ) -> None:
        self.problem = problem
        self.metrics = (problem.metric, *(m for m in others if m.name != problem.metric.name))
        self.n_passes, self.seconds = 0.0, 0.0
        self.on_pass = on_pass
        self._size = prompts_at_once or _prompts_at_once(problem)
        self._log = log or PassLog()
        self._names = tuple(metric.name for metric in self.metrics)
        self._key = key_of(problem, self._names, self._size)

    def values(self, kept: Sequence[Mask]) -> Values:
        """Measure some circuits, given as masks, on all prompts."""
        measured: dict[str, list[Tensor]] = {metric.name: [] for metric in self.metrics}
        share = 1 / len(self._parts)
        for number, chunk in enumerate(self._chunks()):
            rows: dict[str, list[Tensor]] = {name: [] for name in measured}
            for mask in kept:
                values, seconds = self._pass(number, chunk, mask)
                for name, row in values.items():
                    rows[name].append(row)
                self.seconds += seconds
                self.n_passes += share
                self.on_pass()
            for name, found in rows.items():
                measured[name].append(torch.stack(found))
        return {name: torch.cat(found, dim=1) for name, found in measured.items()}

    def _pass(self, part: int, chunk: "_Chunk", mask: Mask) -> tuple[Rows, float]:
        key = key_of_pass(self._key, part, mask)
        earlier = self._log.get(key, self._names, len(self._parts[part].prompts))
        if earlier is not None:
            return earlier
        started = time.monotonic()
        values = chunk.values(mask)
        seconds = time.monotonic() - started
        self._log.add(key, values, seconds)
        return values, seconds

    @cached_property
    def limits(self) -> tuple[Values, Values]:
        """What the full and the empty graph give."""
        everything = self.problem.graph.edge_mask
        values = self.values([everything, torch.zeros_like(everything)])
        full = {name: rows[:1] for name, rows in values.items()}
        return full, {name: rows[1:] for name, rows in values.items()}

    @property
    def seconds_per_pass(self) -> float:
        """How long a pass of all prompts takes, as far as is known."""
        return self.seconds / self.n_passes if self.n_passes else 0.0

    @cached_property
    def _parts(self) -> list[Problem]:
        prompts = self.problem.prompts
        if self._size >= len(prompts):
            return [self.problem]
        starts = range(0, len(prompts), self._size)
        return [
            replace(self.problem, prompts=prompts.select(slice(start, start + self._size)))
            for start in starts
        ]

    @cached_property
    def _mean(self) -> Written | None:
        """What all cut edges carry, where that is a mean over all prompts, not those of a chunk."""
        return mean_over_prompts(self._parts)

    def _chunks(self) -> Iterator["_Chunk"]:
        if len(self._parts) == 1:
            yield self._whole
        else:
            for part in self._parts:
                yield _Chunk(part, self._mean, self.metrics)

    @cached_property
    def _whole(self) -> "_Chunk":
        return _Chunk(self._parts[0], self._mean, self.metrics)


class _Chunk:
    """Prompts that are measured together."""

    def __init__(self, problem: Problem, mean: Written | None, metrics: Sequence[Metric]) -> None:
        self._problem = problem
        with torch.no_grad():
            clean = plain_pass(
                problem.model, problem.graph, problem.prompts.clean, problem.prompts.real
            )
            self._clean = clean.final
            self._replacement = replacement(problem, mean).of_all(*problem.prompts.clean.shape)
        self._readouts = {
            metric.name: Readout(replace(problem, metric=metric), clean.final) for metric in metrics
        }

    def values(self, kept: Mask) -> dict[str, Float[Tensor, " batch"]]:
        with torch.no_grad():
            # The full graph is the model: nothing of it is rounded differently.
            is_full = torch.equal(kept, self._problem.graph.edge_mask)
            final = self._clean if is_full else self._final(kept)
            return {
                name: readout.values(final).double().cpu()
                for name, readout in self._readouts.items()
            }

    def _final(self, kept: Mask) -> Float[Tensor, "batch pos d_model"]:
        problem = self._problem
        model, prompts = problem.model, problem.prompts
        return full_pass(
            model,
            problem.graph,
            embeddings(model, problem.graph, prompts.clean),
            self._replacement,
            kept.to(model.device, model.dtype),
            prompts.real,
        ).final


def _prompts_at_once(problem: Problem) -> int:
    shape = problem.graph.shape
    per_prompt = problem.graph.n_components * problem.prompts.clean.shape[1] * shape.d_model
    return max(1, _FLOATS // per_prompt)
