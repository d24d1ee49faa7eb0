"""The directory of a method's ranking of all edges, measured: one case of a benchmark.

`ranking.json` is written last. What a method refuses is a result too, so that it is not asked
again: the file then holds the reason in place of figures.
"""

import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import circuit_file
from circuitfind.directories.mib import require_protocol
from circuitfind.directories.work import WorkDirectory, stored_result
from circuitfind.errors import MethodError, quoted
from circuitfind.evaluation.cost import Cost
from circuitfind.files import digest, path_of
from circuitfind.limits import require
from circuitfind.methods import METHODS
from circuitfind.methods.base import ScoringMethod
from circuitfind.metrics import LOGIT_DIFFERENCE
from circuitfind.records import as_json

RESULT, FORMAT = "ranking.json", "circuitfind ranking 1"

FIGURES: Mapping[str, Mapping[str, str]] = {
    "auroc": {
        "auroc": "AUROC",
        "steps": "by steps",
        "precision": "precision",
        "recall": "recall",
    },
    "areas": {"cpr": "CPR", "cmd": "CMD", "acc_auc": "acc-AUC"},
}
"""What can be measured: the names of the figures of each, and what they are called."""


@dataclass(frozen=True)
class RankingConfig(RunConfig):
    """Settings of a measured ranking.

    Attributes:
        measure: `auroc` for the areas under the ROC curves against a known circuit, `areas` for
            CPR, CMD and acc-AUC on held-out prompts.
        thresholds: Those of a method that decides edge by edge; an edge ranks by the highest one
            at which it is kept. Empty for methods that score all edges.
        against: A run directory or a circuit file that counts as true; None for the circuit that
            the model states, or that is published for the task.
        against_digest: A hash of that file; filled in by `located`.
        counts_memory: Whether the peak memory is counted too.
    """

    _: KW_ONLY
    measure: str = "auroc"
    thresholds: tuple[float, ...] = ()
    against: str | None = None
    against_digest: str | None = None
    counts_memory: bool = False

    form: ClassVar[str] = "circuitfind ranking run 1"
    noun: ClassVar[str] = "measured ranking"
    incidental: ClassVar[frozenset[str]] = RunConfig.incidental | {"counts_memory"}

    def __post_init__(self) -> None:
        if self.measure == "areas" and self.metric is None:
            object.__setattr__(self, "metric", LOGIT_DIFFERENCE.name)
        super().__post_init__()

    def validate(self, *, any_threshold: bool = True) -> None:
        if self.measure not in FIGURES:
            raise MethodError(
                f"measure is {quoted(self.measure)}; choose one of {', '.join(FIGURES)}"
            )
        if self.selection:
            name = next(iter(self.selection))
            raise MethodError(
                f"{name} chooses a circuit, and here a ranking of all edges is measured; leave it "
                "out"
            )
        if self.measure == "areas":
            require_protocol(self)
            if self.against is not None:
                raise MethodError(
                    f"against is {quoted(self.against)}, and 'areas' are measured against no known "
                    "circuit; leave it out, or choose the measure 'auroc'"
                )
        super().validate(any_threshold=any_threshold)
        for threshold in self.thresholds:
            require(threshold=threshold)
        self._require_thresholds()

    def _require_thresholds(self) -> None:
        if isinstance(METHODS.find(self.method), ScoringMethod):
            if self.thresholds:
                raise MethodError(
                    f"the method {quoted(self.method)} scores edges, which are ranked by their "
                    "scores; leave out thresholds"
                )
        elif not self.thresholds or self.threshold is not None:
            instead = "" if self.threshold is None else " in place of threshold"
            raise MethodError(
                f"the method {quoted(self.method)} decides edge by edge; give thresholds = "
                f"[...]{instead}, by which its edges are ranked"
            )

    def located(self) -> "RankingConfig":
        found = super().located()
        if self.against is None:
            return found
        file = circuit_file(path_of(self.against))
        return replace(found, against=str(file.resolve()), against_digest=digest(file))


@dataclass(frozen=True)
class RankingResult:
    """Result of a measured ranking.

    Attributes:
        figures: The figures by name; empty where the method refused.
        n_edges: Edges of the graph.
        n_true: Edges of the known circuit, where one is asked for.
        best: AUROC of the ranking that puts these first.
        refused: Why the method ranks no edges here; None where it does.
        cost: Cost of the ranking; None where there is none.
        held_out: Whether areas are measured on other prompts than edges are ranked on.
    """

    figures: Mapping[str, float | None]
    n_edges: int
    n_true: int | None = None
    best: float | None = None
    refused: str | None = None
    cost: Cost | None = None
    held_out: bool | None = None


class RankingDirectory(WorkDirectory[RankingConfig]):
    """The directory of one measured ranking."""

    kind = RankingConfig
    last = RESULT

    def result(self) -> RankingResult | None:
        """Return the result, if it is there.

        Raises:
            RunDirectoryError: The file is damaged.
        """
        return stored_result(self.path / RESULT, RankingResult, FORMAT)

    def write_result(self, found: RankingResult) -> None:
        """Write the result."""
        content = {"format": FORMAT, **as_json(found)}
        self.write(RESULT, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
