"""The restarts of a search for rivals: three of ACDC, then one of learned masks, and so on.

Both are pushed away from the circuit (`methods/repelled.py`): ACDC in a random order with a price
on the circuit's edges, and masks that are trained with such a price in their loss. Where a search
does not lead to a rival, it is repeated with a smaller threshold, or a smaller price of masks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any

import numpy as np

from circuitfind.circuit import Circuit
from circuitfind.directories.attempts import Attempts
from circuitfind.directories.rivals import RivalsConfig
from circuitfind.errors import MethodError
from circuitfind.evaluation.measured import Measured
from circuitfind.limits import LIMITS
from circuitfind.methods import METHODS
from circuitfind.methods.base import Progress
from circuitfind.methods.learned import EdgeOptions
from circuitfind.methods.repelled import Repulsion, largest, repelled, trained_apart
from circuitfind.progress import Checkpoint

PRICES = (inf, 1.0, 10.0)
"""What restarts of ACDC pay for an edge of the circuit, in turn, in thresholds."""

MASK_PRICE, EVERY = 1.0, 4
"""What masks pay for all edges of the circuit, in gaps, and which restarts train masks."""

STEPS = 400
"""Of each training."""

FINER, MOST_SEARCHES = 4.0, 3
"""By what thresholds and prices are divided without a rival, and how many searches are made."""

ACDC, MASKS = "acdc", "learned masks"
"""Kinds of restarts."""

_GAP_SHARE = 0.1


@dataclass(frozen=True)
class Restarting:
    """Searches that are pushed away from a circuit.

    Attributes:
        circuit: The circuit.
        measured: Measures on the prompts of the search.
        settings: How to search.
        attempts: Where searches under way are kept.
        on_progress: Called as the work proceeds.
    """

    circuit: Circuit
    measured: Measured
    settings: RivalsConfig
    attempts: Attempts
    on_progress: Callable[[Checkpoint], None]

    @cached_property
    def untrained(self) -> str | None:
        """Why no masks can be trained; None if they can."""
        problem = self.measured.problem
        if problem.graph.moves:
            return "learned masks cannot tell the moves inside attention apart"
        if problem.metric.slope == "nowhere":
            return f"the metric {problem.metric.name!r} has no gradient"
        return None

    @property
    def cost(self) -> str:
        """What will be done, for people."""
        n, edges = self.settings.restarts, self.circuit.graph.n_edges
        found = (
            f"{n} restart{'s' * (n != 1)}, each 1 to {MOST_SEARCHES} searches among {edges} edges"
        )
        if n < EVERY:
            return found
        if self.untrained:
            return f"{found}, none of them with learned masks, as {self.untrained}"
        return f"{found}, every fourth by training masks"

    def kind(self, number: int) -> str:
        """Return how a restart searches."""
        return MASKS if number % EVERY == EVERY - 1 and not self.untrained else ACDC

    def found(self, number: int) -> Iterator[Circuit]:
        """Yield what each search of a restart ends in, of at most as many edges as the circuit.

        A training whose loss becomes infinite or NaN ends in nothing.
        """
        search = {ACDC: self._repelled, MASKS: self._trained}[self.kind(number)]
        for trial in range(MOST_SEARCHES):
            found = search(number, trial)
            if found is not None:
                yield found

    def tell(self, number: int, trial: int = 0, done: float = 0.0) -> None:
        """Tell which share of a search is done."""
        n = self.settings.restarts * MOST_SEARCHES
        edges = self.circuit.graph.n_edges
        at = round((number * MOST_SEARCHES + trial + done) * edges)
        self.on_progress(Checkpoint(min(at, n * edges), n * edges, "edges of all restarts"))

    def _repelled(self, number: int, trial: int) -> Circuit:
        price = PRICES[number % len(PRICES)]
        asked = Repulsion(self._threshold / FINER**trial, price, self._seed(number))
        with self.attempts.searching(number, trial) as (earlier, record):

            def say(step: Progress) -> None:
                record(step)
                if step.decisions:
                    self.tell(number, trial, step.done / step.total)

            found = repelled(self.measured.engine, self.circuit, asked, earlier, say)
        return largest(found, self.circuit.n_edges)

    def _trained(self, number: int, trial: int) -> Circuit | None:
        price = MASK_PRICE / FINER**trial
        options = EdgeOptions(steps=STEPS, seed=self._seed(number) % 10**12)
        with self.attempts.training(number, trial) as (state, keep):

            def say(step: Checkpoint) -> None:
                keep(step)
                # What an earlier process has finished is not a step.
                if step.state is not state:
                    self.tell(number, trial, step.done / step.total)

            try:
                found = trained_apart(
                    self.measured.engine, self.circuit, price, options, state, say
                )
            except MethodError:
                return None
        # Probabilities are not effects in the unit of the metric.
        return replace(largest(found, self.circuit.n_edges), effects=None)

    def _seed(self, number: int) -> int:
        return seed_of(self.settings.seed, number)

    @property
    def _threshold(self) -> float:
        scale = self.measured.scale
        share = _GAP_SHARE * abs(scale.full - scale.empty) / self.circuit.n_edges
        return self.settings.threshold or _threshold_of(self.circuit) or share


def _threshold_of(circuit: Circuit) -> float | None:
    """Return the threshold of the search for a circuit, if it was one in the metric's unit."""
    method, options = METHODS.get(circuit.origin.get("method")), circuit.origin.get("options")
    if method is None or not isinstance(options, Mapping):
        return None
    given: Any = options.get(method.option_for("threshold"))
    return float(given) if LIMITS["restart_threshold"].holds(given) else None


def seed_of(seed: int, number: int) -> int:
    """Return the seed of a restart: searches with different seeds share none."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])
