"""Which circuit a user asks for: a threshold, several, a number of edges, or a target."""

import math
from dataclasses import dataclass

from circuitfind.errors import MethodError
from circuitfind.methods.threshold import Target


@dataclass(frozen=True)
class Wanted:
    """Which circuit is asked for; at most one of the four.

    Attributes:
        threshold: A number, several separated by commas, or `auto`.
        n_edges: How many edges the method `exact` keeps.
        target_edges: How many edges ACDC should keep at most.
        target_faithfulness: How faithful ACDC's circuit should be at least.
    """

    threshold: str | None = None
    n_edges: int | None = None
    target_edges: int | None = None
    target_faithfulness: float | None = None

    def __post_init__(self) -> None:
        given = (self.threshold, self.n_edges, self.target_edges, self.target_faithfulness)
        if sum(value is not None for value in given) > 1:
            raise MethodError(
                "--threshold, --edges, --target-edges and --target-faithfulness exclude one "
                "another; give one of them"
            )

    @property
    def target(self) -> Target | None:
        if self.target_edges is None and self.target_faithfulness is None:
            return None
        return Target(self.target_edges, self.target_faithfulness)

    @property
    def thresholds(self) -> list[float]:
        """The thresholds in numbers, each once.

        Raises:
            MethodError: One is no finite number.
        """
        try:
            numbers = [float(text) for text in (self.threshold or "").split(",")]
        except ValueError:
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)):
            raise MethodError(
                f"the threshold {self.threshold!r} is no finite number; give one in the metric's "
                "unit, several separated by commas, or auto"
            )
        return list(dict.fromkeys(numbers))

    def require_fit(self, method: str) -> None:
        """Refuse to ask a method for what it cannot be asked.

        Raises:
            MethodError: The message says what it can be asked.
        """
        if method == "exact" and self.target is not None:
            raise MethodError(
                "--target-edges and --target-faithfulness go with --method acdc; with exact give "
                "--edges or --threshold"
            )
        if method == "exact" and self.threshold is None and self.n_edges is None:
            raise MethodError("the method 'exact' needs --edges or --threshold; give one of them")
        if method != "exact" and self.n_edges is not None:
            raise MethodError(
                f"--edges goes with --method exact; with {method} give --target-edges"
            )
