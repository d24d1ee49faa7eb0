"""The progress of a long computation, with the state from which it can continue.

Whatever takes long is a generator that yields these, so that progress, time budgets and
checkpoints are written once, in `runs`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

State = Mapping[str, Tensor]
"""All that a computation needs to go on where it was interrupted, by name."""


@dataclass(frozen=True)
class Checkpoint:
    """The progress of a computation whose result is complete only at its end.

    Attributes:
        done: Steps done.
        total: Steps in all.
        step: What a step is, in the plural: `gradients`, `training steps`, `patches`.
        state: What the computation needs to go on from here, with the last one its result; None
            where it cannot go on.
    """

    done: int
    total: int
    step: str
    state: State | None = None

    def __str__(self) -> str:
        return f"{self.done} of {self.total} {self.step} are done"
