"""At how many positions a cut can change anything that the metric reads.

Positions are counted from the end of the prompts, padding included: what can matter is always the
last positions, from the first step or from the first difference on (`state.py`).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.problem import Problem


class AtPlaces(NamedTuple):
    """Where places are, in all prompts together.

    Attributes:
        steps: How many positions, counted from the end, each place has from its first step on; 0
            where it has no step.
        changes: The same from its first position that can change on.
        attended: For each place, which places have a position that may attend to one of its own.
    """

    steps: NDArray[np.int64]
    changes: NDArray[np.int64]
    attended: NDArray[np.bool_]


@dataclass(frozen=True)
class Horizon:
    """How many positions, counted from the end, can matter at all.

    Attributes:
        steps: From the first position whose logits the metric reads.
        changes: From the first position that can change, steps included.
        places: The same place by place, where edges tell places apart.
    """

    steps: int
    changes: int
    places: AtPlaces | None = None

    def at(self, n_places: int) -> AtPlaces:
        """Return the same place by place; as if each place were everywhere, if that is unknown."""
        if self.places is not None:
            return self.places
        one = np.ones(n_places, dtype=np.int64)
        everywhere = np.ones((n_places, n_places), dtype=bool)
        return AtPlaces(one * self.steps, one * self.changes, everywhere)


def horizon(problem: Problem) -> Horizon:
    """Return how many positions, counted from the end, can matter for a problem."""
    prompts, length = problem.prompts, problem.prompts.clean.shape[1]
    causal = problem.model.causal
    steps = length - int(prompts.steps[prompts.step_is_real].min()) if causal else length
    changes = length - problem.ablation.first_change(prompts) if causal else length
    changes = max(changes, steps)
    if problem.places is None:
        return Horizon(steps, changes)
    is_step = torch.zeros_like(prompts.real, dtype=torch.bool)
    rows, columns = prompts.step_is_real.nonzero(as_tuple=True)
    is_step[rows, prompts.steps[rows, columns]] = True
    here = problem.places.masks() & prompts.real
    at = AtPlaces(
        _from_the_first(here & is_step),
        _from_the_first(here & (torch.arange(length, device=here.device) >= length - changes)),
        _attended(here, causal=causal),
    )
    return Horizon(steps, changes, at)


def _from_the_first(here: Bool[Tensor, "place batch pos"]) -> NDArray[np.int64]:
    """Return how many positions, counted from the end, there are from the first one on."""
    anywhere = here.any(dim=1).cpu().numpy()
    found: NDArray[np.int64] = anywhere.shape[1] - anywhere.argmax(axis=1)
    return np.where(anywhere.any(axis=1), found, 0)


def _attended(here: Bool[Tensor, "place batch pos"], *, causal: bool) -> NDArray[np.bool_]:
    """Return which places may attend to which: `[attended, attending]`."""
    first, last = (here.float().argmax(-1), here.shape[-1] - 1 - here.flip(-1).float().argmax(-1))
    there = here.any(-1)
    reaches = (first[:, None] <= last[None, :]) if causal else torch.ones_like(there[:, None])
    found: NDArray[np.bool_] = (reaches & there[:, None] & there[None, :]).any(-1).cpu().numpy()
    return found
