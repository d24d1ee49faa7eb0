"""The circuit that a user asks for: by a threshold, several, a number of edges, or a target."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from circuitfind.errors import MethodError, quoted
from circuitfind.limits import require
from circuitfind.methods import METHODS
from circuitfind.methods.base import Method, ScoringMethod
from circuitfind.methods.settings import threshold_is_needed, threshold_name
from circuitfind.methods.threshold import Target


@dataclass(frozen=True)
class Wanted:
    """The circuit that a user asks for; at most one of the four is given.

    Attributes:
        threshold: A number, several separated by commas, or `auto`.
        n_edges: How many edges a method that ranks them keeps.
        target_edges: How many edges ACDC should keep at most.
        target_faithfulness: How faithful the circuit should be at least.
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
        require(
            edges=self.n_edges,
            target_edges=self.target_edges,
            target_faithfulness=self.target_faithfulness,
        )

    def with_options(
        self, name: str, options: Mapping[str, Any]
    ) -> tuple["Wanted", dict[str, Any]]:
        """Return what is asked for with a method's options too, and the other options.

        The options `threshold=0.5` and `n_edges=20` ask for the same as `--threshold 0.5` and
        `--edges 20`.

        Raises:
            MethodError: Something is asked for twice, or two things that exclude one another.
        """
        threshold = threshold_name(METHODS.find(name)) or "threshold"
        asked = {
            field: options[option]
            for field, option in (
                ("threshold", threshold),
                ("n_edges", "n_edges"),
                ("target_faithfulness", "target_faithfulness"),
            )
            if option in options
        }
        for field, value in asked.items():
            if getattr(self, field) is not None:
                flag = "edges" if field == "n_edges" else field.replace("_", "-")
                raise MethodError(
                    f"--{flag} is given twice, also as an option of the method with the value "
                    f"{quoted(value)}; give one of them"
                )
        if "threshold" in asked:
            asked["threshold"] = repr(asked["threshold"])
        taken = {threshold, *asked}
        others = {option: value for option, value in options.items() if option not in taken}
        return replace(self, **asked), others

    @property
    def target(self) -> Target | None:
        if self.target_edges is None and self.target_faithfulness is None:
            return None
        return Target(self.target_edges, self.target_faithfulness)

    @property
    def thresholds(self) -> list[float]:
        """The thresholds in numbers, each once.

        Raises:
            MethodError: One is not a number.
            LimitError: One is outside the range of thresholds.
        """
        try:
            numbers = [float(text) for text in (self.threshold or "").split(",")]
        except ValueError:
            raise MethodError(
                f"the threshold {quoted(self.threshold)} is not a number; give one in the metric's "
                "unit, several separated by commas, or auto"
            ) from None
        for number in numbers:
            require(threshold=number)
        return list(dict.fromkeys(numbers))

    def require_fit(self, name: str) -> None:
        """Refuse to ask a method for what it cannot be asked.

        Raises:
            MethodError: The message says what it can be asked.
        """
        method = METHODS.find(name)
        nothing = self.threshold is None and self.n_edges is None and self.target is None
        if isinstance(method, ScoringMethod):
            if self.target_edges is not None:
                raise MethodError(
                    f"--target-edges is for methods that search with a threshold, such as acdc; "
                    f"with {name} give --edges"
                )
            if nothing and not method.says_how_many:
                raise MethodError(
                    f"the method {name!r} needs --edges, --threshold or --target-faithfulness; "
                    "give one of them"
                )
        elif threshold_name(method) is None and not nothing:
            raise MethodError(
                f"the method {name!r} has no threshold and ranks no edges; leave out --threshold, "
                "--edges, --target-edges and --target-faithfulness"
            )
        elif self.n_edges is not None:
            raise MethodError(
                f"--edges is for methods that rank edges; with {name} give --target-edges"
            )

    def options_for(self, name: str) -> list[dict[str, Any]]:
        """Return the settings of each run that is asked for; none if they have to be searched for.

        Raises:
            MethodError: A threshold is not a number.
            LimitError: A threshold is outside the range of thresholds.
        """
        method = METHODS.find(name)
        if self.n_edges is not None:
            return [{"n_edges": self.n_edges}]
        if self.threshold not in (None, "auto"):
            setting = threshold_name(method) or "threshold"
            return [{setting: threshold} for threshold in self.thresholds]
        if self.threshold == "auto" or self._is_searched_for(method):
            return []
        if self.target_faithfulness is not None:
            return [{"target_faithfulness": self.target_faithfulness}]
        return [{}]

    def _is_searched_for(self, method: Method) -> bool:
        """Return whether a threshold is searched for though no such search is asked for by name."""
        if isinstance(method, ScoringMethod):
            return False
        return threshold_is_needed(method) or self.target is not None
