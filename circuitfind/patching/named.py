"""Patches of activations that a model knows by name, by whole runs of the model with hooks.

What such an activation does is not known here, so nothing is saved: every patch is a run of the
model, many of them stacked along the batch. How an activation is patched is a function, which may
be the user's own.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from circuitfind.errors import MethodError, quoted
from circuitfind.models.hooks import HookPoints
from circuitfind.patching.measurement import Batch, Key
from circuitfind.patching.patched_runs import PatchedRuns

_LOGITS = 1 << 25
"""How many logits are computed at once, unless one patch of all prompts needs more."""


class Index(NamedTuple):
    """What one patch patches.

    Attributes:
        layer: The block; None for an activation that is not one of many blocks.
        mask: True at the positions of every prompt that are patched.
        head: The head, or key/value head; None for an activation without heads.
    """

    layer: int | None
    mask: Bool[Tensor, "batch pos"]
    head: int | None


Setter = Callable[[Tensor, Tensor, Index], Tensor]
"""From an activation of the base run, the same of the source run, and what to patch, to the
activation that the run goes on with. The first axis is that of the prompts. The activation may be
changed in place, and must be returned."""


class Wanted(NamedTuple):
    """A patch: what it is called and what it patches."""

    key: Key
    at: Index


def exchanged(head_axis: int | None, activation: Tensor, donor: Tensor, index: Index) -> Tensor:
    """Take an activation from the donor, for one head if there are heads, where the mask says so.

    Args:
        head_axis: The axis of heads; None where there are none.
        activation: That of the base run.
        donor: That of the source run.
        index: What to patch.
    """
    ours, theirs = activation, donor
    if head_axis is not None and index.head is not None:
        ours, theirs = ours.select(head_axis, index.head), theirs.select(head_axis, index.head)
    ours[index.mask] = theirs[index.mask]
    return activation


class NamedRuns:
    """Runs of a model in which activations at hook points are patched.

    Args:
        runs: The two runs, and the metric.
        hooks: The hook points of the model.
    """

    def __init__(self, runs: PatchedRuns, hooks: HookPoints) -> None:
        self._runs, self._hooks = runs, hooks
        self._prompts = runs.problem.prompts
        # Batches of a point follow one another, so one donor is held at a time.
        self._donor = lru_cache(maxsize=1)(self._read)

    def batches(self, point: str, wanted: Sequence[Wanted], setter: Setter) -> Iterator[Batch]:
        """Yield the patches of a hook point."""
        width = self._prompts.clean.shape[1] * self._runs.problem.model.shape.d_vocab
        rows = min(self._runs.rows, _LOGITS // width)
        together = max(1, rows // len(self._prompts))
        for first in range(0, len(wanted), together):
            yield partial(self._measured, point, wanted[first : first + together], setter)

    def _measured(
        self, point: str, wanted: Sequence[Wanted], setter: Setter
    ) -> Iterator[tuple[Key, Tensor]]:
        n, real, donor = len(wanted), self._prompts.real, self._donor(point)

        def change(activation: Tensor) -> Tensor:
            copies = activation.unflatten(0, (n, -1))
            return torch.cat(
                [
                    _set(setter, copy.clone(), donor.clone(), patch.at)
                    for copy, patch in zip(copies, wanted, strict=True)
                ]
            )

        tokens = self._runs.base_tokens.repeat(n, 1)
        logits = self._hooks.run(tokens, real.repeat(n, 1), {point: change})
        for patch, own in zip(wanted, logits.unflatten(0, (n, -1)), strict=True):
            yield patch.key, self._runs.measured_logits(own)

    def _read(self, point: str) -> Tensor:
        return self._hooks.read(self._runs.source_tokens, self._prompts.real, point)


def _set(setter: Setter, activation: Tensor, donor: Tensor, index: Index) -> Tensor:
    """Return what a setter returns, if that can take the activation's place."""
    shape = activation.shape
    returned: object = setter(activation, donor, index)
    if not isinstance(returned, Tensor) or returned.shape != shape:
        given = tuple(returned.shape) if isinstance(returned, Tensor) else quoted(returned)
        raise MethodError(
            f"the setter returned {given} for an activation of shape {tuple(shape)}; return the "
            "activation, changed"
        )
    return returned
