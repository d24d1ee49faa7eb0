"""Two recorded runs of one problem, and the metric of the base with patches put into it."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.checks import relative_difference
from circuitfind.engine.horizon import horizon
from circuitfind.engine.readout import Readout
from circuitfind.errors import SelfCheckError
from circuitfind.models.forward import graph_of
from circuitfind.models.self_check import TOLERANCE
from circuitfind.patching.continuation import Continuation, Point
from circuitfind.patching.exchange import Exchange, Patched
from circuitfind.patching.measurement import Batch, Key, Part
from circuitfind.patching.recording import Recording, record
from circuitfind.patching.result import Mode
from circuitfind.problem import Problem


class Patch(NamedTuple):
    """A patch, and what to call its candidates.

    Attributes:
        keys: One per candidate.
        patched: Their streams.
    """

    keys: tuple[Key, ...]
    patched: Patched


class _Waiting(NamedTuple):
    """Candidates that enter at one point and run together.

    Attributes:
        unchanged: Keys of those that change nothing.
        changed: Of the others the key, the stream, and how many positions, counted from the end,
            differ.
    """

    unchanged: list[Key]
    changed: list[tuple[Key, Tensor, int]]


class PatchedRuns:
    """A base run that can be patched from a source run.

    Attributes:
        problem: The problem.
        base: The run that is patched.
        source: The run that patches come from.
        exchange: Makes patched streams of the two.
        rows: How many prompts, all candidates' together, run through the model at once.
        base_tokens: What the base run reads.
        source_tokens: What the source run reads.
        base_values: The metric of each prompt in the base run.
        source_values: The metric of each prompt in the source run.

    Args:
        problem: The problem, with the prompts to exchange as its pairs.
        mode: Whether the corrupted prompts are the base (denoising) or the source.
        rows: How many prompts, all candidates' together, run through the model at once.

    Raises:
        SelfCheckError: One of the recorded runs is not what the model computes.
    """

    def __init__(self, problem: Problem, mode: Mode, rows: int) -> None:
        prompts, model = problem.prompts, problem.model
        clean, corrupted = (
            record(model, tokens, prompts.real) for tokens in (prompts.clean, prompts.corrupted)
        )
        _require_same(problem, clean, corrupted)
        self.problem, self.rows = problem, rows
        self.base, self.source = clean, corrupted
        self.base_tokens, self.source_tokens = prompts.clean, prompts.corrupted
        if mode == "denoising":
            self.base, self.source = self.source, self.base
            self.base_tokens, self.source_tokens = self.source_tokens, self.base_tokens
        self.exchange = Exchange(model, graph_of(model.shape), self.base, self.source, prompts.real)
        self._readout = Readout(problem, clean.final, per_prompt=False)
        steps = horizon(problem).steps
        self._continuation = Continuation(model, self.base, prompts.real, steps)
        self._most = max(1, rows // len(prompts))
        self.base_values, self.source_values = (
            self._measured(run.final) for run in (self.base, self.source)
        )

    def part(self, patches: Iterable[Patch]) -> Part:
        """Return patches as batches; candidates that enter at one point go together."""
        return Part(self.base_values, self.source_values, self._batches(patches))

    def _batches(self, patches: Iterable[Patch]) -> Iterator[Batch]:
        for point, group in groupby(patches, key=lambda patch: patch.patched.point):
            yield from self._at_point(point, group)

    def _at_point(self, point: Point, patches: Iterable[Patch]) -> Iterator[Batch]:
        waiting = _Waiting([], [])
        for keys, patched in patches:
            changed = self._continuation.n_changed(point, patched.streams)
            if not changed:
                waiting.unchanged.extend(keys)
                continue
            for key, stream in zip(keys, patched.streams, strict=True):
                waiting.changed.append((key, stream, changed))
                if len(waiting.changed) == self._most:
                    yield partial(self._measured_at, point, waiting)
                    waiting = _Waiting([], [])
        if waiting.changed or waiting.unchanged:
            yield partial(self._measured_at, point, waiting)

    def _measured_at(self, point: Point, waiting: "_Waiting") -> Iterator[tuple[Key, Tensor]]:
        for key in waiting.unchanged:
            yield key, self.base_values
        if not waiting.changed:
            return
        n_changed = max(changed for _, _, changed in waiting.changed)
        streams = torch.stack([stream[:, -n_changed:] for _, stream, _ in waiting.changed])
        # A patch behind the last position that the metric reads still leaves those before as is.
        finals = self._with_base(self._continuation.finish(point, streams))
        scale_of = self.base.final if point.frozen else None
        for (key, _, _), final in zip(waiting.changed, finals, strict=True):
            yield key, self._measured(final, scale_of)

    def _with_base(
        self, finals: Float[Tensor, "candidate batch final d_model"]
    ) -> Float[Tensor, "candidate batch steps d_model"]:
        missing = self._continuation.steps - finals.shape[2]
        if missing <= 0:
            return finals
        n = finals.shape[2]
        before = self.base.final[:, -self._continuation.steps : -n].expand(len(finals), -1, -1, -1)
        return torch.cat([before, finals], dim=2)

    def measured_logits(
        self, logits: Float[Tensor, "batch pos d_vocab"]
    ) -> Float[Tensor, " batch"]:
        """Return the metric of each prompt from the logits of a whole run."""
        return self._readout.of_logits(logits).double()

    def _measured(
        self,
        final: Float[Tensor, "batch final d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, " batch"]:
        with torch.no_grad():
            return self._readout.values(final, scale_of).double()


def _require_same(problem: Problem, clean: Recording, corrupted: Recording) -> None:
    """Hold both recorded runs to the model's own, where the metric reads them."""
    model, prompts = problem.model, problem.prompts
    real = prompts.step_is_real
    for name, tokens, run in (
        ("clean", prompts.clean, clean),
        ("corrupted", prompts.corrupted, corrupted),
    ):
        with torch.no_grad():
            expected = prompts.at_steps(model.own_logits(tokens, prompts.real))[real]
            found = model.logits(prompts.at_steps(run.final))[real]
        difference = relative_difference(found, expected)
        if not difference <= TOLERANCE[model.weights_dtype]:
            raise SelfCheckError(
                f"the recorded {name} run is not what {model.name!r} computes: its logits differ "
                f"by {difference:.2g} of the largest one (allowed: "
                f"{TOLERANCE[model.weights_dtype]:.0e}); no patch of this model can be trusted"
            )
