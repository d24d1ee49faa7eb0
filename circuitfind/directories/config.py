"""Settings of a run: two runs with equal settings give the same circuit."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from circuitfind.circuit import Circuit
from circuitfind.errors import CircuitfindError, RunDirectoryError
from circuitfind.methods import METHODS
from circuitfind.methods.settings import (
    check_settings,
    completed,
    divided,
    size_asked,
    threshold_name,
)
from circuitfind.question import Question
from circuitfind.records import from_json
from circuitfind.tasks import find_task

SETTINGS = ("options", "selection")
"""Fields of `RunConfig` that hold the settings of the method."""

Asked = TypeVar("Asked", bound="RunConfig")


@dataclass(frozen=True)
class RunConfig(Question):
    """A run's identity: a question, and how its circuit is searched for.

    Attributes:
        method: Name of the method; empty for a circuit that no method of the table found.
        options: The method's own options, by name. What belongs to the selection may be given
            here as well.
        automatic: Whether the program chose the threshold. Two runs that differ in nothing else are
            the same.
        selection: How edges are chosen, by name of the fields of `Selection`.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    _: KW_ONLY
    automatic: bool = False
    selection: Mapping[str, Any] = field(default_factory=dict)

    form: ClassVar[str] = "circuitfind run 1"
    noun: ClassVar[str] = "run"
    incidental: ClassVar[frozenset[str]] = Question.incidental | {"automatic"}

    def __post_init__(self) -> None:
        if self.metric is None:
            object.__setattr__(self, "metric", find_task(self.task).metric)
        options, selection = divided(METHODS.get(self.method), self.options, self.selection)
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "selection", selection)

    @property
    def threshold(self) -> float | None:
        """The threshold of the method or of the selection."""
        return size_asked(self.method, self.options, self.selection).get("threshold")

    @property
    def n_edges(self) -> int | None:
        """Number of edges that the user asks for."""
        return size_asked(self.method, self.options, self.selection).get("n_edges")

    def at(self: Asked, threshold: float | None) -> Asked:
        """Return the same settings with another threshold."""
        name = threshold_name(METHODS.find(self.method)) or "threshold"
        return replace(self, options={**self.options, name: threshold})

    def validate(self, *, any_threshold: bool = False) -> None:
        """Check every name and option before anything is loaded.

        Args:
            any_threshold: Whether the threshold is found later, so that it is not asked for.

        Raises:
            CircuitfindError: One of them is unknown or impossible; the message lists the choices.
        """
        super().validate()
        if self.method:
            check_settings(self.method, self.options, self.selection, any_threshold=any_threshold)
            if self.crossing:
                METHODS.find(self.method).require_moves(self.options)

    def completed(self: Asked) -> Asked:
        """Return the same settings with what was not given: the method's defaults."""
        if METHODS.get(self.method) is None:
            return self
        options, selection = completed(self.method, self.options, self.selection, self.seed)
        return replace(self, options=options, selection=selection)


def config_of_origin(circuit: Circuit, path: Path) -> RunConfig:
    """Return the settings of the run that found a circuit, as its file says.

    Raises:
        RunDirectoryError: It was not found by a run, or does not say of which.
    """
    try:
        found: RunConfig = from_json(RunConfig, dict(circuit.origin), "its origin")
        return found.completed()
    except (ValueError, TypeError, CircuitfindError) as error:
        raise RunDirectoryError(
            f"{path} does not say which run found its circuit ({error}); choose another --out"
        ) from None
