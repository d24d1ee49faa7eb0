"""Settings of a measurement by patching: equal settings give the same result."""

from dataclasses import dataclass
from typing import ClassVar

from circuitfind.errors import MethodError
from circuitfind.limits import require
from circuitfind.patching.circuits import DEFAULT_FAITHFULNESS
from circuitfind.patching.pairs import require_mode
from circuitfind.patching.path import require_norm
from circuitfind.patching.result import DEFAULT_THRESHOLD
from circuitfind.patching.significant import require_components
from circuitfind.patching.sites import site_names
from circuitfind.question import Question


@dataclass(frozen=True)
class PatchConfig(Question):
    """Settings of a measurement: the question, and what is patched.

    Where it names no metric, that is the logit difference if the prompts have right and wrong
    answers, and the task's own if they have not.

    Attributes:
        sites: What a sweep patches; None for path patching.
        positions: Where; None for the default.
        layers: Which layers a sweep patches, such as `3-5,8`; None for all.
        heads: Which heads, likewise.
        senders: Where paths begin; None for all.
        receivers: Where they end; None for all.
        via: What they lead through.
        together: Whether all edges from the senders into the receivers are patched at once.
        norm: How readers norm what a path changes.
        mode: Which run is patched with which.
        threshold: Smallest effect that is significant.
        annotate: Whether heatmaps give every effect in figures.
        discover: Whether to find and draw the circuit of what is significant.
        edge_threshold: Smallest effect of its edges; None for the default, which is lowered until
            the circuit is as faithful as wanted.
        target_faithfulness: The wanted faithfulness of the circuit.
    """

    sites: str | None = None
    positions: str | None = None
    layers: str | None = None
    heads: str | None = None
    senders: tuple[str, ...] | None = None
    receivers: tuple[str, ...] | None = None
    via: tuple[str, ...] = ()
    together: bool = False
    norm: str = "exact"
    mode: str = "denoising"
    threshold: float = DEFAULT_THRESHOLD
    annotate: bool = False
    discover: bool = False
    edge_threshold: float | None = None
    target_faithfulness: float = DEFAULT_FAITHFULNESS

    form: ClassVar[str] = "circuitfind patching run 1"
    noun: ClassVar[str] = "measurement"
    of_the_report: ClassVar[frozenset[str]] = frozenset(
        {"threshold", "annotate", "discover", "edge_threshold", "target_faithfulness"}
    )

    def validate(self) -> None:
        """Check every name before anything is loaded.

        Raises:
            CircuitfindError: One is unknown or impossible; the message lists the choices.
        """
        require(patch_threshold=self.threshold)
        super().validate()
        require_mode(self.mode)
        require_norm(self.norm)
        if self.sites is not None:
            names = site_names(self.sites)
            if self.discover:
                require_components(names)
        if self.together and (self.via or not self.senders or not self.receivers):
            raise MethodError(
                "edges are patched together from named writers into named readers: give --from and "
                "--to, and no --via"
            )
        if self.together and self.norm != "exact":
            raise MethodError(
                "readers of edges that are patched together take their norm anew; leave out --norm"
            )

    @property
    def kind(self) -> str:
        return "path-patch" if self.sites is None else "patch"


DEFAULT_REPORT = PatchConfig("", "").report_settings
"""What a report is made with that says nothing else."""
